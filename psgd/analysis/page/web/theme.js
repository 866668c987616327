// Colours, numbers and axes that all pictures share.
"use strict";

const DASHED_FROM = 8; // the style has as many colours; further modes begin again, dashed
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "pentagon", "star"];
const NINES_END = 1e-4; // where the logarithmic axis of an accuracy ends, which has no place for 100 %
const NINES = [0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999];

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const modeColour = (index) => css(`--mode-${index % DASHED_FROM}`);
const modeDash = (index) => (index >= DASHED_FROM ? "dash" : "solid");
const isNarrow = () => window.innerWidth < 736;

/** A colour between two, as pictures know no color-mix: all of `colour` at 1, all of `ground` at 0. */
function mixed(colour, ground, share) {
  const parts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const under = parts(ground);
  return `rgb(${parts(colour).map((part, at) => Math.round(part * share + under[at] * (1 - share))).join(", ")})`;
}

function transparent(colour, alpha) {
  const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return `rgba(${parts.join(", ")}, ${alpha})`;
}

/** Text that pictures take for HTML, made harmless. */
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/** The unit in which so many seconds are a handy number. */
function timeUnit(seconds) {
  if (seconds >= 3 * 86400) return { name: "days", seconds: 86400 };
  if (seconds >= 3 * 3600) return { name: "hours", seconds: 3600 };
  if (seconds >= 600) return { name: "minutes", seconds: 60 };
  if (seconds >= 1) return { name: "seconds", seconds: 1 };
  return { name: "milliseconds", seconds: 1e-3 };
}

function durationWords(seconds) {
  if (seconds >= 600) return `${(seconds / 60).toPrecision(3)} min`;
  if (seconds >= 1) return `${seconds.toPrecision(3)} s`;
  if (seconds >= 1e-3) return `${(seconds * 1e3).toPrecision(3)} ms`;
  return `${(seconds * 1e6).toPrecision(3)} µs`;
}

function numberWords(value) {
  const size = Math.abs(value);
  return size >= 1000 ? Math.round(value).toLocaleString("en-US") : String(Number(value.toPrecision(4)));
}

const percentWords = (value) => `${(100 * value).toFixed(2)} %`;

/** Marks of a logarithmic axis, with plain numbers. */
function logTicks(values) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const steps = high / low < 12 ? [1, 1.5, 2, 3, 4, 5, 7] : high / low < 1e3 ? [1, 2, 5] : [1];
  const marks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1)
    for (const step of steps) marks.push(step * 10 ** power);
  const inside = marks.filter((mark) => mark >= low * 0.95 && mark <= high * 1.05);
  return { tickvals: inside, ticktext: inside.map(numberWords) };
}

/** 0.9 to 1, 0.99 to 2, and so on. */
const nines = (accuracy) => -Math.log10(Math.max(1 - accuracy, NINES_END));

function axis(options) {
  return {
    gridcolor: css("--grid"), linecolor: css("--line"), zeroline: false, automargin: true, fixedrange: false,
    tickfont: { color: css("--soft") }, title: { font: { color: css("--soft"), size: 12 } }, ...options,
    ...(options.title === undefined ? {} : { title: { text: options.title, font: { color: css("--soft"), size: 12 }, standoff: 10 } }),
  };
}

function layout(options) {
  const touch = window.matchMedia("(pointer: coarse)").matches;
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, autosize: true,
    font: { family: css("--sans"), size: isNarrow() ? 11 : 12, color: css("--ink") },
    margin: { l: 8, r: 8, t: 12, b: 8 }, dragmode: touch ? false : "zoom", hovermode: "x unified",
    hoverlabel: { bgcolor: transparent(css("--paper"), 0.88), bordercolor: css("--line"), font: { family: css("--sans"), color: css("--ink"), size: 12 } },
    ...options,
  };
}
