// What each slot did over a window of a run.
"use strict";

const KINDS = { compute: "computing", transfer: "transfer, update", wait: "waiting" };

function timelineFigure(timeline, mode, length) {
  const colour = modeColour(mode);
  const unit = timeUnit(timeline.end);
  const ends = [timeline.start, timeline.start + length];
  const fills = {
    compute: { color: colour },
    transfer: {
      color: mixed(colour, css("--paper"), 0.35),
      pattern: { shape: "/", fgcolor: colour, bgcolor: mixed(colour, css("--paper"), 0.35), size: 5, solidity: 0.35 },
    },
    wait: { color: css("--wait") },
  };
  const row = new Map(timeline.rows.map((slot, at) => [slot, at]));
  const data = Object.keys(KINDS).filter((kind) => timeline[kind].slot.length).map((kind) => ({
    type: "bar", orientation: "h", name: KINDS[kind], y: timeline[kind].slot.map((slot) => row.get(slot)), width: 0.78,
    base: timeline[kind].start.map((start) => start / unit.seconds), x: timeline[kind].length.map((each) => each / unit.seconds),
    marker: { ...fills[kind], line: { width: 0 } },
    customdata: timeline[kind].slot.map((slot, at) => `slot ${slot}: ${KINDS[kind]} for ${durationWords(timeline[kind].length[at])}`),
    hovertemplate: "%{customdata}<extra></extra>",
  }));
  const rows = timeline.rows.length;
  const annotations = computeShares(timeline, ends).map((share, at) => ({
    xref: "paper", x: 1, xanchor: "left", xshift: 6, y: at, showarrow: false, text: `${Math.round(100 * share)} %`, font: { size: 11, color: css("--soft") },
  }));
  return {
    data,
    layout: layout({
      barmode: "overlay", hovermode: "closest", annotations, height: 64 + rows * (rows > 12 ? 18 : 30), margin: { l: 8, r: 46, t: 6, b: 8 },
      xaxis: axis({ title: `${unit.name} since the start`, range: ends.map((end) => end / unit.seconds), nticks: isNarrow() ? 5 : 10 }),
      yaxis: axis({
        tickvals: timeline.rows.map((_, at) => at), ticktext: timeline.rows.map((slot) => `slot ${slot}`),
        range: [rows - 0.4, -0.6], showgrid: false, fixedrange: true,
      }),
    }),
  };
}

/** The part of the window that each row computes. */
function computeShares(timeline, [begin, end]) {
  const sums = new Map(timeline.rows.map((slot) => [slot, 0]));
  const { slot, start, length } = timeline.compute;
  slot.forEach((each, at) => {
    const inside = Math.min(start[at] + length[at], end) - Math.max(start[at], begin);
    sums.set(each, sums.get(each) + Math.max(inside, 0));
  });
  return timeline.rows.map((each) => sums.get(each) / (end - begin));
}

function timelineWords(timeline, several) {
  const shown = timeline.rows.length;
  const whose = timeline.slots > shown ? `${shown} of ${timeline.slots.toLocaleString("en-US")} slots, evenly chosen` : shown === 1 ? "The slot" : `All ${shown} slots`;
  return `${whose}${several && timeline.seed !== null ? `, of the run with seed ${timeline.seed}` : ""}.`;
}
