// plot.js: line charts on uPlot (vendor/): its options in one place, in the page's colours, plus what the library
// lacks.
// Guarantees: a chart is as wide as its host and is redrawn when the width or the colour scheme changes; a value that
// is null, or that a log axis cannot show, is a gap and never a zero; every chart is described in words.
// Must not: know about runs or reports, request data, or give external text to the library.

import { format, power } from "./dom.js";

const HEIGHT = 240;
const FONT = '12px system-ui, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif';
const charts = new Map(); // host element -> { spec, u, key, zoomed }
const resized = new ResizeObserver((entries) => entries.forEach(({ target }) => fit(target)));

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Draws `spec` into `host`, or updates the chart there:
//   { desc, x: { label, log }, y: { label, log, min, max }, xs: [x], series: [{ name, kind, values: [y or null] }],
//     rules: [{ y, label }], states: [state of each x], sync: charts of one key share their
//     cursor, rest: index of the values shown while no pointer is over the chart }
// A kind is one of LOOKS.
export function plot(host, spec) {
  const known = charts.get(host) ?? { u: null };
  known.spec = spec;
  host.setAttribute("role", "img");
  host.setAttribute("aria-label", spec.desc);
  if (!charts.has(host)) {
    charts.set(host, known);
    resized.observe(host);
  }
  const key = JSON.stringify([spec.x, spec.y.label, spec.y.log, spec.series.map(({ name, kind }) => [name, kind])]);
  if (known.u !== null && known.key === key) {
    known.u.setData(data(spec), !known.zoomed);
    if (known.zoomed) known.u.redraw();
    rest(known.u, spec);
    return;
  }
  known.key = key;
  draw(host);
}

// Removes the charts under `root` from the page.
export function forget(root) {
  for (const [host, { u }] of charts) {
    if (!root.contains(host)) continue;
    u?.destroy();
    resized.unobserve(host);
    charts.delete(host);
  }
}

export function restyle() {
  for (const host of charts.keys()) draw(host);
}

function fit(host) {
  const chart = charts.get(host);
  const width = host.clientWidth;
  if (!chart || width < 80) return; // folded: the observer calls again
  if (chart.u === null) draw(host);
  else if (chart.u.width !== width) chart.u.setSize({ width, height: HEIGHT });
}

function draw(host) {
  const chart = charts.get(host);
  chart.u?.destroy();
  chart.u = null;
  chart.zoomed = false;
  if (host.clientWidth < 80) return;
  chart.u = new window.uPlot(options(chart, host.clientWidth), data(chart.spec), host);
}

const data = ({ xs, y, series }) =>
  [xs, ...series.map(({ values }) => values.map((v) => (v === null || v === undefined || (y.log && v <= 0) ? null : v)))];

const LOOKS = {
  first: { colour: "first", width: 2 },
  second: { colour: "second", width: 2 },
  third: { colour: "good", width: 2 },
  null: { colour: "null", width: 1.5, dash: [5, 4] },
  limit: { colour: "rule", width: 1.5, dash: [7, 4] },
  faded3: { colour: "first", width: 1.2, alpha: 0.7 },
  faded2: { colour: "first", width: 1.2, alpha: 0.55 },
  faded1: { colour: "first", width: 1.2, alpha: 0.45 },
  faded0: { colour: "first", width: 1.2, alpha: 0.35 },
};

function options(chart, width) {
  const { spec } = chart;
  const ink = colour("quiet");
  const shade = ({ kind }) => colour(LOOKS[kind].colour) + Math.round((LOOKS[kind].alpha ?? 1) * 255).toString(16).padStart(2, "0");
  const axis = (side, { label, log }) => ({
    scale: side, label, labelFont: FONT, font: FONT, stroke: ink, labelSize: 18, labelGap: 0,
    size: side === "y" ? 52 : 28, gap: 4, space: side === "y" ? 30 : 56,
    grid: { stroke: colour("line"), width: 1, show: side === "y" },
    ticks: { stroke: colour("line"), width: 1, size: 4 },
    values: (u, splits) => splits.map((v) => (log ? onLog(v) : format(Number(v.toPrecision(10))))),
    ...(log ? { filter: (u, splits) => splits, splits: (u, i, min, max) => decades(min, max, side === "y" ? 6 : 5) } : {}),
    ...(side === "x" && !log ? { incrs: [1, 2, 5].flatMap((f) => [...Array(16).keys()].map((e) => f * 10 ** e)).sort((a, b) => a - b) } : {}),
  });
  const one = ({ name, kind }) => {
    const look = LOOKS[kind];
    const stroke = colour(look.colour);
    return {
      label: name, stroke, width: look.width, dash: look.dash, alpha: look.alpha ?? 1, spanGaps: false,
      points: { size: 5, fill: stroke, stroke, ...(look.dash || look.alpha ? { show: false } : {}) },
      value: (u, v) => format(v),
    };
  };
  return {
    width, height: HEIGHT,
    padding: [10, 12, 0, 0],
    cursor: { sync: spec.sync ? { key: spec.sync, setSeries: false, scales: ["x", null] } : undefined, drag: { x: true, y: false, setScale: true }, y: false },
    legend: { live: true, markers: { width: 0, fill: (u, i) => (i === 0 ? "transparent" : shade(spec.series[i - 1])) } },
    scales: {
      x: { time: false, distr: spec.x.log ? 3 : 1, range: (u, min, max) => ends(chart.spec, min, max) },
      y: { distr: spec.y.log ? 3 : 1, range: () => span(chart.spec.y) },
    },
    axes: [axis("x", spec.x), axis("y", spec.y)],
    series: [{ label: spec.x.label, value: (u, v) => format(v) }, ...spec.series.map(one)],
    hooks: {
      draw: [(u) => marks(u, chart.spec)],
      ready: [(u) => rest(u, chart.spec)],
      setCursor: [(u) => rest(u, chart.spec)],
      setScale: [(u, side) => { if (side === "x") chart.zoomed = zoomed(u); }],
    },
  };
}

// With one point the library would make an axis from 0 to 100.
function ends({ xs, x }, min, max) {
  if (xs.length > 1 && max > min) return [min, max];
  return x.log ? [xs[0] / 2, xs[0] * 2] : [xs[0] - 1, xs[0] + 1];
}

function zoomed(u) {
  const xs = u.data[0];
  return xs.length > 1 && (u.scales.x.min > xs[0] || u.scales.x.max < xs.at(-1));
}

function span({ min, max, log }) {
  if (max > min) return [min, max];
  return log ? [min / 2, min * 2] : [min - 1, min + 1];
}

// Ticks of a log axis: decades, fewer if there are many; 2 and 5 in between if there are few.
function decades(min, max, room) {
  const [first, last] = [Math.ceil(Math.log10(min) - 1e-9), Math.floor(Math.log10(max) + 1e-9)];
  const every = Math.max(1, Math.ceil((last - first + 1) / room));
  const factors = last - first < 2 ? [1, 2, 5] : [1];
  const found = [];
  for (let e = first - 1; e <= last; e += 1) {
    if (factors.length === 1 && (e < first || (e - first) % every)) continue;
    found.push(...factors.map((f) => f * 10 ** e).filter((v) => v >= min * 0.999 && v <= max * 1.001));
  }
  return found;
}

function onLog(v) {
  const e = Math.log10(v);
  return Math.abs(e) <= 3.001 ? format(Number(v.toPrecision(3))) : power(Math.round(e));
}

// Without a pointer the legend shows the values of the default place, not dashes.
function rest(u, { rest: at }) {
  if ((u.cursor.idx === null || u.cursor.idx === undefined) && u.legend.idx !== at) u.setLegend({ idx: at }, false);
}

// Not in the library: limits with their names, and the strip of states below the windows.
function marks(u, { rules = [], states, xs }) {
  const { ctx, bbox } = u;
  const scale = window.devicePixelRatio || 1;
  ctx.save();
  ctx.font = FONT.replace("12px", `${12 * scale}px`);
  for (const { y, label } of rules) {
    const at = u.valToPos(y, "y", true);
    if (at < bbox.top || at > bbox.top + bbox.height) continue;
    ctx.strokeStyle = ctx.fillStyle = colour("rule");
    ctx.lineWidth = 1.5 * scale;
    ctx.setLineDash([7 * scale, 4 * scale]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, at);
    ctx.lineTo(bbox.left + bbox.width, at);
    ctx.stroke();
    const above = at > bbox.top + 20 * scale;
    ctx.setLineDash([]);
    ctx.lineWidth = 4 * scale;
    ctx.strokeStyle = colour("card"); // keeps the words readable over a line
    ctx.lineJoin = "round";
    ctx.textAlign = "right";
    const place = [label, bbox.left + bbox.width - 6 * scale, at + (above ? -6 : 15) * scale];
    ctx.strokeText(...place);
    ctx.fillText(...place);
  }
  if (states) strip(u, states, xs, scale);
  ctx.restore();
}

// Neighbours with the same state are one rectangle.
function strip({ ctx, bbox, valToPos }, states, xs, scale) {
  const half = (i, j) => (xs[j] === undefined ? valToPos(xs[i], "x", true) + (j > i ? 4 : -4) * scale : (valToPos(xs[i], "x", true) + valToPos(xs[j], "x", true)) / 2);
  for (let from = 0, i = 0; i < states.length; i += 1) {
    if (states[i + 1] === states[i]) continue;
    const left = Math.max(bbox.left, half(from, from - 1));
    const right = Math.min(bbox.left + bbox.width, half(i, i + 1));
    ctx.fillStyle = colour({ healthy: "good", degrading: "fair", collapsed: "bad", warming_up: "cool" }[states[i]] ?? "dull");
    if (right > left) ctx.fillRect(left, bbox.top + bbox.height - 5 * scale, Math.max(scale, right - left), 5 * scale);
    from = i + 1;
  }
}

window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
