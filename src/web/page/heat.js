// heat.js: the heat map of log eigenvalue by window and component, on a canvas.
// Guarantees: draws all cells that it is given (the service limits them); values below the noise floor have their own
// colour, outside the scale; described in words. Must not: request data, or choose windows.

import { format, power } from "./dom.js";
import { colour } from "./plot.js";

const HEIGHT = 240;
const MARGIN = { left: 52, right: 74, top: 10, bottom: 46 };
// Viridis (CC0), nine of its colours: even steps for the eye, also without red and green.
const RAMP = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121], [109, 205, 89], [253, 231, 37]];

// `maps` holds the hosts' canvases and what they show, so that they can be redrawn.
const maps = new Map();
const resized = new ResizeObserver((entries) => entries.forEach(({ target }) => paint(target)));

// spec: { windows, components, eigenvalues: [[value or null] or null], floors, picked: index, pick(index), desc }
export function heat(host, spec) {
  if (!maps.has(host)) {
    const canvas = document.createElement("canvas");
    host.replaceChildren(canvas);
    canvas.addEventListener("click", (event) => {
      const { spec: now, area } = maps.get(host);
      const column = Math.floor(((event.offsetX - area.left) / area.width) * now.windows.length);
      if (column >= 0 && column < now.windows.length) now.pick(column);
    });
    maps.set(host, { canvas });
    resized.observe(host);
  }
  maps.get(host).spec = spec;
  host.setAttribute("role", "img");
  host.setAttribute("aria-label", spec.desc);
  paint(host);
}

export function forgetHeat(root) {
  for (const host of maps.keys()) {
    if (!root.contains(host)) continue;
    resized.unobserve(host);
    maps.delete(host);
  }
}

function ramp(share) {
  const at = Math.min(1, Math.max(0, share)) * (RAMP.length - 1);
  const i = Math.min(RAMP.length - 2, Math.floor(at));
  return RAMP[i].map((from, c) => Math.round(from + (RAMP[i + 1][c] - from) * (at - i)));
}

// The decades of the scale: from the largest eigenvalue down to the smallest above noise, at most ten.
function decades({ eigenvalues, floors }) {
  let [low, high] = [Infinity, -Infinity];
  eigenvalues.forEach((values, column) => values?.forEach((value) => {
    if (value === null || value <= 0 || value <= (floors[column] ?? 0)) return;
    const log = Math.log10(value);
    low = Math.min(low, log);
    high = Math.max(high, log);
  }));
  if (high === -Infinity) return null;
  return [Math.max(low, high - 10), high];
}

// The rows of a component's band: bands are as high as the step to the next component on a log axis.
function bands(components, height) {
  const top = (c) => Math.log(c) / Math.log(components.at(-1) + 1);
  return components.map((c, i) => [top(c) * height, top(components[i + 1] ?? c + 1) * height]);
}

function paint(host) {
  const { canvas, spec } = maps.get(host) ?? {};
  const width = host.clientWidth;
  if (!spec || width < 120) return;
  const scale = window.devicePixelRatio || 1;
  [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(HEIGHT * scale)];
  const ctx = canvas.getContext("2d");
  ctx.scale(scale, scale);
  ctx.font = '12px system-ui, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif';
  const area = { left: MARGIN.left, top: MARGIN.top, width: width - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
  maps.get(host).area = area;
  const range = decades(spec);
  if (range !== null) cells(ctx, area, spec, range);
  axes(ctx, area, spec);
  if (range !== null) key(ctx, area, range);
}

function cells(ctx, area, { windows, components, eigenvalues, floors, picked }, [low, high]) {
  const rows = bands(components, area.height);
  const noise = colour("noise");
  const step = area.width / windows.length;
  windows.forEach((_, column) => {
    const left = area.left + column * step;
    rows.forEach(([from, to], row) => {
      const value = eigenvalues[column]?.[row] ?? null;
      if (value === null) return; // unknown: the card shows through
      const under = value <= 0 || value <= (floors[column] ?? 0);
      ctx.fillStyle = under ? noise : `rgb(${ramp(high > low ? (Math.log10(value) - low) / (high - low) : 1)})`;
      // Slightly larger than its share, or hairlines appear between the cells.
      ctx.fillRect(left, area.top + from, step + 0.6, to - from + 0.6);
    });
  });
  ctx.strokeStyle = colour("ink");
  ctx.lineWidth = 1.5;
  ctx.strokeRect(area.left + picked * step, area.top, Math.max(step, 2), area.height);
}

function axes(ctx, area, { windows, components }) {
  ctx.fillStyle = colour("quiet");
  const bottom = area.top + area.height;
  ctx.textAlign = "right";
  const last = components.at(-1) ?? 1;
  for (const c of [1, 10, 100, 1000, 10000].filter((c) => c < last * 0.6).concat(last)) {
    const y = area.top + (Math.log(c) / Math.log(last + 1)) * area.height;
    ctx.fillText(format(c), area.left - 8, y + (c === 1 ? 10 : 4));
  }
  ctx.textAlign = "center";
  const room = Math.max(1, Math.floor(area.width / 60));
  const every = Math.max(1, Math.ceil(windows.length / room));
  windows.forEach((window, i) => {
    if (i % every) return;
    ctx.fillText(format(window), area.left + ((i + 0.5) / windows.length) * area.width, bottom + 18);
  });
  ctx.fillText("window", area.left + area.width / 2, HEIGHT - 8);
  ctx.save();
  ctx.translate(12, area.top + area.height / 2);
  ctx.rotate(-Math.PI / 2);
  ctx.fillText("component", 0, 0);
  ctx.restore();
}

function key(ctx, area, [low, high]) {
  const left = area.left + area.width + 14;
  for (let i = 0; i < 100; i += 1) {
    ctx.fillStyle = `rgb(${ramp(1 - i / 99)})`;
    ctx.fillRect(left, area.top + (i / 100) * area.height, 12, area.height / 100 + 0.6);
  }
  ctx.fillStyle = colour("quiet");
  ctx.textAlign = "left";
  const first = Math.ceil(low), last = Math.floor(high);
  const every = Math.max(1, Math.ceil((last - first + 1) / 6));
  for (let e = first; e <= last; e += every) {
    ctx.fillText(power(e), left + 17, area.top + (1 - (e - low) / (high - low || 1)) * area.height + 4);
  }
}

window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => [...maps.keys()].forEach(paint));
