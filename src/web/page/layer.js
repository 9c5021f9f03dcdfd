// layer.js: one layer of a run: its verdict in plain words, its charts, its measures, its method's diagnostics.
// Guarantees: repeats the service's judgement and never judges itself; a measure or state that this page does not know
// appears under the service's own name; an undefined value is a dash, never a zero; an estimate is labelled as one.
// Must not: request data (run.js does), build markup from strings, or set styles (classes only).

import { drawHistory, drawSpectra } from "./charts.js";
import { count, el, format, patch, plain } from "./dom.js";
import { AXES, CAUSES, MARKS, MEASURES, SUMMARY, UNDEFINED, pill, sentence } from "./words.js";

const PANELS = [ // [key, title, axis that can be logarithmic, initially]
  ["rank", "Rank over windows", "rank", true],
  ["scale", "Center norm, scaled std and mean cosine"],
  ["spectrum", "Spectrum", "component", false],
  ["cumulative", "Cumulative variance"],
  ["heat", "Log eigenvalue by window"],
  ["loss", "Loss against its constant"],
];

// The empty elements of a layer, and its state. `refold` is called when the reader opens or folds it.
export function layerSection(open, refold) {
  const section = {
    summary: el("summary"), verdict: el("section", { className: "card wide verdict" }), table: el("section", { className: "card wide" }),
    panels: {}, log: { rank: true, component: false }, history: null, spectra: null, pick: null, key: null, newest: null,
  };
  for (const [key, title, option] of PANELS) section.panels[key] = panel(title, option, section);
  const more = el("details", { className: "aside" }, el("summary", {}, "All values, under the service's names"));
  section.all = more.appendChild(el("div", { className: "scroll", tabIndex: 0 }));
  section.measures = section.table.appendChild(el("div", { className: "tables" }));
  section.table.append(more);
  section.slider = el("input", { type: "range", min: 0, max: 0, value: 0 });
  section.sliderText = el("output");
  section.slider.addEventListener("input", () => section.choose(Number(section.slider.value)));
  const slider = el("label", { className: "slider" }, "window", section.slider, section.sliderText);
  section.panels.heat.root.append(slider);
  // The newest window stays chosen until another is, so that the charts follow the run.
  section.choose = (i) => {
    section.pick = i >= section.spectra.windows.length - 1 ? null : i;
    redraw(section);
  };
  const grid = el("div", { className: "grid" }, section.verdict, ...PANELS.map(([key]) => section.panels[key].root), section.table);
  section.box = el("details", { className: "layer", open }, section.summary, grid);
  section.nothing = el("p", { className: "quiet" });
  section.box.append(section.nothing);
  section.grid = grid;
  section.shared = {};
  section.box.addEventListener("toggle", refold);
  return section;
}

function panel(title, option, section) {
  const host = el("div", { className: "chart" });
  const note = el("p", { className: "quiet note" }, "reading …");
  const head = el("div", { className: "row" }, el("h4", {}, title));
  if (option) {
    const check = el("input", { type: "checkbox", checked: section.log[option] });
    check.addEventListener("change", () => {
      section.log[option] = check.checked;
      redraw(section);
    });
    head.append(el("label", {}, check, `log ${option} axis`));
  }
  return { root: el("section", { className: "card" }, head, host, note), host, note };
}

// Draws the data; `section.shared` holds the ends of axes that two runs share.
export function redraw(section) {
  if (section.newest === null || !section.box.open) return;
  drawHistory(section, section.newest, section.shared);
  drawSpectra(section, section.shared);
  const windows = section.spectra?.windows ?? [];
  section.slider.max = Math.max(0, windows.length - 1);
  section.slider.value = section.pick ?? section.slider.max;
  section.slider.disabled = windows.length < 2;
  section.sliderText.textContent = windows.length === 0 ? "" : `${windows[section.pick ?? windows.length - 1]}${section.pick === null ? " (newest)" : ""}`;
}

// `layer` as in /v1/runs/{run}; `latched` is the run's latched verdict if it is this layer's, otherwise null.
export function renderLayer(section, layer, latched) {
  const { newest, open_windows: filling = [], nonfinite_rows: refused = 0 } = layer;
  patch(section.summary, [layer.layer, layer.state, newest && glance(newest), refused], () => [
    el("h3", {}, layer.layer), pill(layer.state),
    el("span", { className: "quiet" }, newest ? glance(newest) : "no closed window"),
    refused > 0 ? el("span", { className: "warn" }, `${count(refused, "row")} refused: not finite (NaN or infinite)`) : null,
  ]);
  const fill = filling.slice(0, 8).map(({ window, rows }) => `Window ${window} is filling: ${count(rows, "row")} so far.`).join(" ");
  section.grid.hidden = !newest;
  section.nothing.hidden = Boolean(newest);
  section.nothing.textContent = `A verdict comes when the first window closes. ${fill}`;
  section.newest = newest ?? null;
  if (!newest || !section.box.open) return;
  patch(section.verdict, [layer.state, layer.latched, layer.since_window, newest, latched, fill], () => verdictCard(layer, latched, fill));
  patch(section.measures, [newest.measures, newest.methods, newest.computed], () => [measureTable(newest), methodTable(newest)]);
  patch(section.all, [newest.measures, newest.methods, newest.computed], () => [allTable(newest)]);
}

function glance({ window, rows, dim, measures, computed }) {
  const about = computed.estimated?.includes("entropy_rank") ? "estimated entropy rank" : "entropy rank";
  return `window ${window} · ${count(rows, "row")} · ${about} ${format(measures.entropy_rank)} of ${dim} · scaled std ${format(measures.scaled_std)}`;
}

// ---- the verdict

function verdictCard(layer, latched, fill) {
  const { newest } = layer;
  const { verdict, notes = [] } = newest;
  const facts = [
    `window ${newest.window}`, newest.revision > 1 ? `revision ${newest.revision}` : null,
    newest.step === null || newest.step === undefined ? null : `step ${format(newest.step)}`,
    newest.loss === null || newest.loss === undefined ? null : `loss ${format(newest.loss)}`,
    newest.complete === false ? "incomplete: some workers had not finished" : null,
  ].filter((fact) => fact !== null);
  const text = CAUSES[verdict.cause] ?? SUMMARY[verdict.state] ?? null;
  const left = [
    el("h4", {}, "Newest window"),
    el("p", { className: "state" }, pill(verdict.state)),
    text ? el("p", { className: "cause" }, text) : null,
    el("p", { className: "quiet" }, `cause: ${plain(verdict.cause)} · ${facts.join(" · ")}`),
    latchLine(layer, latched),
    ...Object.entries(AXES).map(([axis, question]) => axisLine(axis, question, verdict[axis])),
    fill ? el("p", { className: "quiet" }, fill) : null,
  ];
  const right = [reasonList("Why", verdict.reasons), textList("Notes", notes.map((note) => [String(note)]))];
  return [el("div", {}, ...left), el("div", {}, ...right)];
}

function latchLine({ state, latched: isLatched, since_window: since, newest }, latched) {
  const from = since === null || since === undefined ? "" : ` since window ${since}`;
  const now = newest.verdict.state;
  if (state === now) return isLatched ? el("p", { className: "latch" }, `Latched${from}.`) : null;
  const then = `${isLatched ? "Latched as" : "The layer is"} ${plain(state)}${from}`;
  const text = el("p", {}, `${then}; the newest window (${newest.window}) is ${plain(now)}.`);
  return el("div", { className: "latch" }, text, reasonList(`Judged ${plain(state)} because`, latched?.reasons));
}

function axisLine(axis, question, level) {
  const badge = el("span", { className: `badge ${level in MARKS ? level : "unknown"}` }, `${MARKS[level] ?? "?"} ${plain(level)}`);
  return el("p", { className: "axis-line" }, el("b", {}, axis), badge, el("span", { className: "quiet" }, question));
}

function reasonList(title, reasons) {
  return textList(title, (reasons ?? []).map((reason) => sentence(reason)));
}

function textList(title, items) {
  if (items.length === 0) return null;
  return el("div", {}, el("h5", {}, title), el("ul", {}, ...items.map((item) => el("li", {}, ...item))));
}

// ---- the measures

function valueCell(measure, value, computed) {
  if (value !== null) {
    const between = computed?.intervals?.[measure];
    const guess = computed?.estimated?.includes(measure) ?? false;
    return el("td", { className: "value" }, guess ? el("span", { className: "tag" }, "estimate") : null, format(value),
      between ? el("span", { className: "interval" }, `${format(between[0])} to ${format(between[1])}`) : null);
  }
  const why = `undefined: ${UNDEFINED[measure] ?? "its inputs were not sent, or it is meaningless for this window"}`;
  const dash = [el("span", { ariaHidden: "true" }, "–"), el("span", { className: "unseen" }, why)];
  return el("td", { className: "value", title: why }, ...dash);
}

const head = (...names) => el("thead", {}, el("tr", {}, ...names.map((text) => el("th", { scope: "col" }, text))));

function measureTable({ window, measures, computed }) {
  const rows = Object.entries(MEASURES).filter(([measure]) => measure in measures);
  const note = computed.exact ? "" : " · not all exact: intervals are 95 % confidence";
  return el("table", {},
    el("caption", {}, el("h4", {}, `Measures of window ${window}${note}`)),
    head("measure", "value", "how to read it"),
    el("tbody", {}, ...rows.map(([measure, [name, reading]]) => el("tr", {},
      el("th", { scope: "row", title: measure }, name), valueCell(measure, measures[measure], computed),
      el("td", { className: "quiet" }, reading)))));
}

// The groups whose inputs were sent; the notes name what is missing for the others.
function methodTable({ methods }) {
  const groups = Object.entries(methods ?? {}).filter(([, values]) => values !== null);
  if (groups.length === 0) return null;
  const rows = groups.flatMap(([group, values]) => Object.entries(values).map(([name, value], i) => el("tr", {},
    el("td", { className: "quiet" }, i === 0 ? plain(group) : ""), el("th", { scope: "row" }, plain(name)), valueCell(name, value))));
  return el("table", { className: "method" },
    el("caption", {}, el("h4", {}, "Diagnostics of the method")), head("group", "diagnostic", "value"), el("tbody", {}, ...rows));
}

// Every leaf of nested objects, by its dotted path.
function leaves(value, path = "") {
  if (value === null || typeof value !== "object") return [[path, value]];
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, path ? `${path}.${key}` : key));
}

function allTable({ measures, methods, computed }) {
  const rows = [...leaves(measures), ...leaves(methods ?? {}, "methods"), ...leaves(computed ?? {}, "computed")];
  return el("table", {}, el("tbody", {}, ...rows.map(([path, value]) => el("tr", {},
    el("th", { scope: "row" }, el("code", {}, path)), valueCell(path, value)))));
}
