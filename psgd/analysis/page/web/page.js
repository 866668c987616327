// Binds the pictures to the page: what is shown, and when it is drawn anew.
"use strict";

const report = JSON.parse(document.getElementById("report-data").textContent);
const state = { x: "seconds", scale: "linear", seeds: "band", metric: 0, timeline: 0, hidden: new Set() };
const CONFIG = { responsive: true, displaylogo: false, displayModeBar: false, doubleClick: "reset" };
const several = report.metrics.some((metric) => metric.modes.some((mode) => mode.seeds.length > 1));
const longest = greatest(report.throughput.map((band) => band.x));
const lengths = report.timelines.filter(Boolean).map((timeline) => timeline.end - timeline.start);
const windowLength = Math.min(...lengths);

const PICTURES = {
  "plot-metric": () => curveFigure(report.metrics[state.metric], report.modes, state, report.simulated),
  "plot-loss": () => curveFigure(report.metrics.at(-1), report.modes, state, report.simulated),
  "plot-timeline": () => timelineFigure(report.timelines[state.timeline], state.timeline, windowLength),
  "plot-throughput": () =>
    courseFigure(report.throughput, report.modes, state, "seconds", longest, report.simulated, (value) => `${numberWords(value)}/s`, { title: "samples/s", rangemode: "tozero", tickformat: "~s" }),
  "plot-lag": () => lagFigure(report.lags, report.modes, state),
  "plot-lr": () =>
    courseFigure(report.lr.map((bands) => bands[state.x]), report.modes, state, state.x, longest, report.simulated, numberWords, { rangemode: "tozero" }),
  "plot-tried": () => triedFigure(report.tried, report.modes, state, report.metrics[0]),
};

function draw(names = Object.keys(PICTURES)) {
  for (const name of names) {
    const place = document.getElementById(name);
    if (!place) continue;
    const { data, layout } = PICTURES[name]();
    Plotly.react(place, data, layout, CONFIG);
  }
}

function pickTimeline(mode) {
  state.timeline = mode;
  const key = document.getElementById("timeline-key");
  if (!key) return;
  key.style.setProperty("--colour", `var(--mode-${mode % DASHED_FROM})`);
  document.getElementById("timeline-words").textContent = timelineWords(report.timelines[mode], several);
}

const CHOICES = {
  x: (value) => { state.x = value; draw(["plot-metric", "plot-loss", "plot-lr"]); },
  scale: (value) => { state.scale = value; document.documentElement.classList.toggle("log", value === "log"); draw(["plot-metric", "plot-loss"]); },
  seeds: (value) => { state.seeds = value; document.documentElement.classList.toggle("each", value === "each"); draw(["plot-metric", "plot-loss"]); },
  metric: (value) => { state.metric = report.metrics.findIndex((metric) => metric.key === value); draw(["plot-metric"]); },
  interval: (value) => { for (const place of document.querySelectorAll("[data-interval]")) place.dataset.interval = value; },
};

for (const choice of document.querySelectorAll("[data-choice]")) {
  choice.addEventListener("change", (event) => CHOICES[choice.dataset.choice](event.target.value));
}

for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const mode = Number(button.dataset.mode);
    const shows = !state.hidden.delete(mode);
    if (shows) state.hidden.add(mode);
    button.setAttribute("aria-pressed", String(!shows));
    for (const row of document.querySelectorAll(`.shares [data-mode="${mode}"]`)) row.classList.toggle("off", shows);
    draw(Object.keys(PICTURES).filter((name) => name !== "plot-timeline"));
  });
}

const picker = document.getElementById("timeline-mode");
pickTimeline(Math.max(report.timelines.findIndex(Boolean), 0));
if (picker) {
  for (const option of picker.options) option.disabled = !report.timelines[Number(option.value)];
  picker.value = String(state.timeline);
  picker.addEventListener("change", () => { pickTimeline(Number(picker.value)); draw(["plot-timeline"]); });
}

window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
window.matchMedia("(max-width: 46rem)").addEventListener("change", () => draw());
for (const [event, printing] of [["beforeprint", true], ["afterprint", false]]) {
  window.addEventListener(event, () => { document.documentElement.classList.toggle("printing", printing); draw(); });
}
draw();
