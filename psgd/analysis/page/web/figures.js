// From the report's data to traces and layouts; nothing here touches the page.
"use strict";

const FEW_POINTS = 40; // each of which gets a marker

/** A mode's line in its band from the least to the greatest seed. `told` makes the words of a value. */
function bandTraces(mode, name, band, told, map, xUnit, dots) {
  if (!band.x.length) return [];
  const colour = modeColour(mode);
  const x = band.x.map((value) => value / xUnit);
  const edge = { x, mode: "lines", type: "scatter", line: { width: 0, color: colour }, hoverinfo: "skip" };
  const words = band.y.map((value, at) =>
    band.low ? `${told(value)} (${told(band.low[at]).replace(" %", "")}–${told(band.high[at])})` : told(value));
  const line = {
    x, y: band.y.map(map), name: plain(name), type: "scatter", mode: dots && x.length <= FEW_POINTS ? "lines+markers" : "lines",
    line: { color: colour, width: 2.25, dash: modeDash(mode) }, marker: { symbol: SYMBOLS[mode % SYMBOLS.length], size: 6 },
    customdata: words, hovertemplate: `<b>%{fullData.name}</b>  %{customdata}<extra></extra>`,
  };
  if (!band.low) return [line];
  return [
    { ...edge, y: band.low.map(map) },
    { ...edge, y: band.high.map(map), fill: "tonexty", fillcolor: transparent(colour, 0.16) },
    line,
  ];
}

/** One seed's curve; where it diverged there is a cross. */
function seedTraces(mode, name, seed, axisName, told, map, xUnit, alone) {
  const colour = modeColour(mode);
  const x = seed[axisName].map((value) => value / xUnit);
  const told_at = seed.values.map((value) => (value === null ? "" : told(value)));
  const label = seed.seed === null ? name : `${name}, seed ${seed.seed}`;
  const line = {
    x, y: seed.values.map((value) => (value === null ? null : map(value))), name: plain(label), type: "scatter", mode: "lines",
    line: { color: colour, width: alone ? 1.5 : 1.25, dash: seed.diverged ? "dot" : modeDash(mode) },
    customdata: told_at, hovertemplate: `<b>%{fullData.name}</b>  %{customdata}<extra></extra>`,
  };
  if (!seed.diverged) return [line];
  const last = seed.values.findLastIndex((value) => value !== null);
  return [line, {
    x: [x[last]], y: [map(seed.values[last])], name: plain(label), type: "scatter", mode: "markers", hoverinfo: "skip",
    marker: { symbol: "x", size: 10, color: colour },
  }];
}

function xAxis(name, longest, simulated) {
  if (name === "samples") return { unit: 1, axis: axis({ title: "samples", rangemode: "tozero", tickformat: "~s", unifiedhovertitle: { text: "%{x:,.0f} samples" } }) };
  const unit = timeUnit(longest);
  const title = simulated ? `virtual time, ${unit.name}` : `${unit.name} since the start`;
  return { unit: unit.seconds, axis: axis({ title, rangemode: "tozero", unifiedhovertitle: { text: `%{x:.4~g} ${unit.name}` } }) };
}

const greatest = (lists) => lists.reduce((most, list) => list.reduce((high, value) => (value > high ? value : high), most), 0);

/** A metric in the course of training. */
function curveFigure(metric, modes, state, simulated) {
  const told = metric.percent ? percentWords : numberWords;
  const stretched = state.scale === "log" && metric.percent;
  const map = stretched ? nines : (value) => value;
  const shown = metric.modes.map((curves, mode) => ({ ...curves, mode, name: modes[mode] })).filter((each) => !state.hidden.has(each.mode));
  const across = xAxis(state.x, greatest(metric.modes.flatMap((each) => each.seeds.map((seed) => seed.seconds))), simulated);
  const data = shown.flatMap((each) => {
    const seeds = state.seeds === "each" ? each.seeds : each.seeds.filter((seed) => seed.diverged);
    const band = state.seeds === "each" ? [] : bandTraces(each.mode, each.name, each[state.x], told, map, across.unit, state.x === "samples");
    return [...band, ...seeds.flatMap((seed) => seedTraces(each.mode, each.name, seed, state.x, told, map, across.unit, state.seeds === "each"))];
  });
  const y = axis({});
  if (stretched) Object.assign(y, { tickvals: NINES.map(nines), ticktext: NINES.map((value) => `${+(100 * value).toFixed(2)} %`) });
  else if (metric.percent) y.tickformat = ".0%";
  else if (state.scale === "log") Object.assign(y, { type: "log", ...logTicks(shown.flatMap((each) => each.seeds.flatMap((seed) => seed.values.filter((value) => value > 0)))) });
  const shapes = metric.target === null ? [] : [{
    type: "line", xref: "paper", x0: 0, x1: 1, y0: map(metric.target), y1: map(metric.target), line: { color: css("--soft"), width: 1, dash: "dash" },
    label: { text: `target ${told(metric.target).replace(".00", "")}`, textposition: "start", yanchor: "bottom", padding: 4, font: { color: css("--soft"), size: 11 } },
  }];
  return { data, layout: layout({ xaxis: across.axis, yaxis: y, shapes, hovermode: state.seeds === "each" ? "closest" : "x unified" }) };
}

/** Samples a second, or learning rates, in the course of the run. */
function courseFigure(bands, modes, state, axisName, longest, simulated, told, yOptions) {
  const across = xAxis(axisName, longest, simulated);
  const data = bands.flatMap((band, mode) => (state.hidden.has(mode) ? [] : bandTraces(mode, modes[mode], band, told, (value) => value, across.unit, false)));
  return { data, layout: layout({ xaxis: across.axis, yaxis: axis(yOptions) }) };
}

/** A histogram a mode, one below the other; lags have one scale. */
function lagFigure(lags, modes, state) {
  const shown = lags.modes.map((each, mode) => ({ ...each, mode })).filter((each) => each.max > 0 && !state.hidden.has(each.mode));
  const height = 1 / Math.max(shown.length, 1);
  const figure = { data: [], layout: layout({ hovermode: "closest", bargap: 0.12, shapes: [], annotations: [] }) };
  const end = Math.max(...lags.modes.map((each) => each.max ?? 0)) + lags.width;
  const most = Math.max(...shown.flatMap((each) => each.share), 0);
  shown.forEach((each, row) => {
    const suffix = row === 0 ? "" : String(row + 1);
    const top = 1 - row * height;
    const middles = each.from.map((lag) => lag + (lags.width - 1) / 2);
    const lagWords = (lag) => (lags.width === 1 ? `lag ${lag}` : `lag ${lag} to ${lag + lags.width - 1}`);
    figure.data.push({
      type: "bar", x: middles, y: each.share, width: middles.map(() => 0.88 * lags.width), yaxis: `y${suffix}`, name: plain(modes[each.mode]),
      marker: { color: modeColour(each.mode) },
      customdata: each.from.map((lag, at) => `${lagWords(lag)}: ${(100 * each.share[at]).toPrecision(3)} % of the pushes`),
      hovertemplate: "%{customdata}<extra></extra>",
    });
    figure.layout[`yaxis${suffix}`] = axis({ domain: [top - height * 0.76, top - height * 0.18], tickformat: ".0%", nticks: 3, rangemode: "tozero", range: [0, most * 1.08], fixedrange: true });
    figure.layout.annotations.push({
      xref: "paper", x: 0, yref: "paper", y: top, xanchor: "left", yanchor: "top", showarrow: false, align: "left",
      text: `<b>${plain(modes[each.mode])}</b>  mean ${+each.mean.toPrecision(3)}, greatest ${each.max}`, font: { color: css("--ink"), size: 12 },
    });
    figure.layout.shapes.push({
      type: "line", xref: "x", x0: each.mean, x1: each.mean, yref: `y${suffix}`, y0: 0, y1: most * 1.08, line: { color: css("--ink"), width: 1.25, dash: "dot" },
    });
  });
  const last = shown.length > 1 ? `y${shown.length}` : "y";
  figure.layout.xaxis = axis({ title: "lag, in updates", anchor: last, range: [-0.5, end - 0.5], tickformat: ",d", ...(end < 12 ? { dtick: 1 } : {}), showgrid: false });
  figure.layout.height = 60 + Math.max(shown.length, 1) * (isNarrow() ? 125 : 140);
  return figure;
}

/** Learning rates that were tried; a ring is the best of a mode. */
function triedFigure(tried, modes, state, metric) {
  const told = metric && metric.percent ? percentWords : numberWords;
  const data = tried.flatMap((rates, mode) => {
    const found = rates.filter((rate) => rate.median !== null);
    if (state.hidden.has(mode) || !found.length) return [];
    return [{
      type: "scatter", mode: "lines+markers", name: plain(modes[mode]), x: found.map((rate) => rate.lr), y: found.map((rate) => rate.median),
      line: { color: modeColour(mode), dash: modeDash(mode), width: 2 }, marker: { symbol: SYMBOLS[mode % SYMBOLS.length], size: 7 },
      error_y: {
        type: "data", symmetric: false, array: found.map((rate) => rate.high - rate.median), arrayminus: found.map((rate) => rate.median - rate.low),
        thickness: 1, width: 3, color: modeColour(mode),
      },
      customdata: found.map((rate) => told(rate.median)), hovertemplate: "<b>%{fullData.name}</b>  %{customdata}<extra></extra>",
    }];
  });
  const every = [...new Set(tried.flat().map((rate) => rate.lr))].sort((a, b) => a - b);
  const x = axis({ type: "log", title: "learning rate", ...(every.length < 9 ? { tickvals: every, ticktext: every.map(String) } : {}) });
  return { data, layout: layout({ xaxis: x, yaxis: axis(metric && metric.percent ? { tickformat: ".0%" } : {}) }) };
}
