// plot.js: line charts as SVG, and how elements are made and numbers written.
// Guarantees: a chart is as wide as its host and is drawn again when that changes; a value that is null, or that a log axis
// cannot hold, is a gap and never a zero; every chart has a title, a description, and labels on both axes.
// Must not: know of runs or reports, ask the service, put in strings as markup, or set styles (classes only).

const NS = "http://www.w3.org/2000/svg";
const HEIGHT = 250;
const MARGIN = { left: 50, right: 14, top: 24, bottom: 42 };
const charts = new WeakMap(); // host element -> { spec, id, pick }
const resized = new ResizeObserver((entries) => entries.forEach((entry) => draw(entry.target)));
let count = 0;

const power = (n) => "10" + [...String(n)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("");

// Four significant digits, a real minus sign, powers of ten outside 0.001 to 99,999; null is a dash.
export function format(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || (size >= 1e5 && !Number.isInteger(value)) || size >= 1e12)) {
    const [digits, exponent] = value.toExponential(2).split("e");
    return `${Number(digits)}\u202f×\u202f${power(Number(exponent))}`.replace(/^-/, "−");
  }
  const digits = Number.isInteger(value) ? value : Number(value.toPrecision(4));
  return digits.toLocaleString("en", { maximumFractionDigits: 6 }).replace(/^-/, "−");
}

function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// An element; `properties` are DOM properties, strings become text, null children are left out.
export function el(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children.filter((child) => child !== null));
  return node;
}

// Draws `spec` into `host`, now and whenever the host's width changes:
//   { title, desc, x: { label, log, min, max, whole }, y: { label, log, min, max, powers },
//     series: [{ name, kind, points: [[x, y or null]] }], rules: [{ y, label }], ribbon: [[x, state]], rest: x of the values shown
//     while no pointer is over the chart }
export function chart(host, spec) {
  const known = charts.get(host);
  charts.set(host, { spec, id: known?.id ?? ++count, pick: known?.pick ?? null });
  if (known) draw(host);
  else resized.observe(host);
}

function draw(host) {
  const { spec, id } = charts.get(host);
  const width = host.clientWidth;
  if (width < 80) return; // folded away: the observer calls again
  const area = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: HEIGHT - MARGIN.bottom };
  const x = scale(spec.x, area.left, area.right);
  const y = scale(spec.y, area.bottom, area.top);
  const title = svg("title", { id: `chart-${id}-title` }, spec.title);
  const desc = svg("desc", { id: `chart-${id}-desc` }, spec.desc);
  const cursor = svg("line", { class: "cursor", y1: area.top, y2: area.bottom, visibility: "hidden" });
  const hit = svg("rect", { class: "hit", x: area.left, y: 0, width: area.right - area.left, height: HEIGHT }, svg("title"));
  const named = { role: "img", "aria-labelledby": title.id, "aria-describedby": desc.id };
  const root = svg(
    "svg", { ...named, width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}` },
    title, desc, ...axes(spec, area, x, y), ...ribbon(spec.ribbon ?? [], area, x),
    ...spec.series.flatMap((series) => line(series, x, y)), ...rules(spec.rules ?? [], area, y), cursor, hit,
  );
  const legend = el("p", { className: "legend" });
  const show = () => readout(host, legend, cursor, x);
  hit.addEventListener("pointermove", (event) => {
    charts.get(host).pick = nearest(spec, x, event.clientX - root.getBoundingClientRect().left);
    show();
  });
  hit.addEventListener("pointerleave", () => {
    charts.get(host).pick = null;
    show();
  });
  host.replaceChildren(legend, root);
  show();
}

// A number to its place between two pixels; null where a log axis has no place for it.
function scale({ min, max, log }, from, to) {
  const at = (v) => (log ? Math.log10(v) : v);
  const slope = max > min ? (to - from) / (at(max) - at(min)) : 0;
  return (v) => {
    if (v === null || v === undefined || (log && v <= 0)) return null;
    return slope === 0 ? (from + to) / 2 : from + (at(v) - at(min)) * slope;
  };
}

function ticks({ min, max, log, whole }, room) {
  if (max <= min) return [min];
  if (log) {
    const first = Math.ceil(Math.log10(min) - 1e-9);
    const last = Math.floor(Math.log10(max) + 1e-9);
    const every = Math.max(1, Math.ceil((last - first + 1) / room));
    const factors = last - first < 2 && room > 3 ? [1, 2, 5] : [1];
    const found = [];
    for (let e = first - 1; e <= last; e += 1) {
      if (factors.length === 1 && (e < first || (e - first) % every)) continue;
      found.push(...factors.map((f) => f * 10 ** e).filter((v) => v >= min * 0.999 && v <= max * 1.001));
    }
    return found;
  }
  const rough = (max - min) / room;
  const unit = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((f) => f * unit).find((s) => s >= rough);
  if (whole) step = Math.max(1, Math.round(step));
  const first = Math.ceil(min / step - 1e-9);
  return Array.from({ length: Math.floor(max / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

function axes(spec, area, x, y) {
  const write = (v, axis) => {
    if (axis.powers) return power(Math.round(Math.log10(v)));
    return axis.whole ? String(Math.round(v)) : format(Number(v.toPrecision(12)));
  };
  const parts = [];
  for (const v of ticks(spec.y, 6)) {
    parts.push(svg("line", { class: "grid-line", x1: area.left, x2: area.right, y1: y(v), y2: y(v) }));
    parts.push(svg("text", { class: "tick", x: area.left - 8, y: y(v) + 4, "text-anchor": "end" }, write(v, spec.y)));
  }
  for (const v of ticks(spec.x, Math.max(2, Math.min(10, Math.floor((area.right - area.left) / 64))))) {
    parts.push(svg("line", { class: "axis", x1: x(v), x2: x(v), y1: area.bottom, y2: area.bottom + 6 }));
    parts.push(svg("text", { class: "tick", x: x(v), y: area.bottom + 20, "text-anchor": "middle" }, write(v, spec.x)));
  }
  parts.push(svg("line", { class: "axis", x1: area.left, x2: area.right, y1: area.bottom, y2: area.bottom }));
  parts.push(svg("text", { class: "label", x: 0, y: 11 }, spec.y.label));
  parts.push(svg("text", { class: "label", x: area.right, y: HEIGHT - 5, "text-anchor": "end" }, spec.x.label));
  return parts;
}

// One coloured strip under the x axis: what each window was judged; neighbours with one state are one rectangle.
function ribbon(marks, area, x) {
  const half = (i, j) => (marks[j] ? (x(marks[i][0]) + x(marks[j][0])) / 2 : x(marks[i][0]) + (j > i ? 3 : -3));
  const parts = [];
  for (let from = 0, i = 0; i < marks.length; i += 1) {
    if (marks[i + 1]?.[1] === marks[i][1]) continue;
    const left = Math.max(area.left, half(from, from - 1));
    const width = Math.max(1, Math.min(area.right, half(i, i + 1)) - left);
    parts.push(svg("rect", { class: `strip ${marks[i][1]}`, x: left, y: area.bottom + 1, width, height: 4 }));
    from = i + 1;
  }
  return parts;
}

function rules(list, area, y) {
  return list.flatMap(({ y: value, label }) => {
    const at = Math.min(area.bottom, Math.max(area.top, y(value)));
    return [
      svg("line", { class: "rule", x1: area.left, x2: area.right, y1: at, y2: at }),
      svg("text", { class: "rule-label", x: area.left + 6, y: at > area.bottom - 18 ? at - 5 : at + 14 }, label),
    ];
  });
}

// The line with its gaps, and dots where there are few enough points to see them (a lone point is always a dot).
function line({ kind, points }, x, y) {
  let path = "";
  let pen = false;
  const dots = [];
  points.forEach(([a, b], i) => {
    const [px, py] = [x(a), y(b)];
    if (px === null || py === null) {
      pen = false;
      return;
    }
    path += `${pen ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`;
    const alone = !pen && (i + 1 === points.length || y(points[i + 1][1]) === null);
    const few = points.length <= 40 && kind !== "null";
    if (alone || few) dots.push(svg("circle", { class: `dot ${kind}`, cx: px, cy: py, r: 2.2 }));
    pen = true;
  });
  return [svg("path", { class: `line ${kind} ${points.length > 400 ? "dense" : ""}`, d: path }), ...dots];
}

function nearest(spec, x, pixel) {
  let best = null;
  for (const series of spec.series) {
    for (const [a] of series.points) {
      if (best === null || Math.abs(x(a) - pixel) < Math.abs(x(best) - pixel)) best = a;
    }
  }
  return best;
}

// The legend, with the values under the pointer; without one, those of the default place (`spec.rest`).
function readout(host, legend, cursor, x) {
  const { spec, pick } = charts.get(host);
  const at = pick ?? spec.rest;
  const entries = spec.series.map(({ name, kind, points }) => {
    const found = points.find(([a]) => a === at);
    const key = svg("svg", { width: 18, height: 8, "aria-hidden": "true" }, svg("path", { class: `line ${kind}`, d: "M0 4H18" }));
    return found ? el("span", {}, key, `${name} `, el("b", {}, format(found[1]))) : el("span", {}, key, name);
  });
  legend.replaceChildren(el("span", {}, `${spec.x.label} ${at}`), ...entries);
  cursor.setAttribute("visibility", pick === null ? "hidden" : "visible");
  if (pick !== null) for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(pick));
}
