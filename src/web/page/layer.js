// layer.js: one layer of a run on the page: its verdict in plain words, its spectrum, its history, its measures.
// Guarantees: what the service says is repeated, never judged anew; a measure or state this page does not know is shown under
// the service's own name; an undefined value is a dash that says so, never a zero.
// Must not: ask the service (app.js does), build markup from strings, or set styles (classes only).

import { chart, el, format } from "./plot.js";

export const STATES = ["collapsed", "degrading", "insufficient_rows", "warming_up", "healthy"]; // worst first
const MARKS = { ok: "✓", warning: "!", critical: "✕", unknown: "?" };
const AXES = { scale: "Is the cloud spread out?", dimension: "How many directions does it use?" };
const SUMMARY = {
  healthy: "Both axes are as they should be.",
  warming_up: "An untrained network looks collapsed, so it is not judged yet.",
};
const CAUSES = {
  constant: "Every input is mapped to nearly the same point.",
  line: "The embeddings lie along one line.",
  low_rank: "The embeddings fill only a low-dimensional subspace.",
  dead_units: "Many dimensions hardly vary at all.",
  duplicate_units: "Several dimensions carry the same signal.",
  one_prototype: "Nearly every sample is assigned to one prototype.",
  uniform_prototypes: "Every sample is spread evenly over all prototypes: the assignment says nothing.",
  masked_by_batch_norm: "Collapsed before batch norm, which hides it from what comes after.",
  no_alignment: "Views of one sample are no closer to each other than to other samples.",
  stale_queue: "The queue is stale: queries and keys no longer have the same spectrum.",
  insufficient_rows: "This window has too few rows to be judged.",
};
// How a measure is called, and how to read it; in the order of the table.
const MEASURES = {
  entropy_rank_share: ["Entropy rank, as a share of noise", "0: a line; 1: as shapeless noise"],
  entropy_rank_to_null: ["Entropy rank to that of noise", "judged against the run's own best"],
  samples: ["Samples", "too few to judge"],
  entropy_rank: ["Entropy rank", "directions in use, by the entropy of the spectrum"],
  entropy_rank_null: ["Entropy rank of noise", "what shapeless noise with as many rows would have"],
  stable_rank: ["Stable rank", "directions in use, large ones counting more"],
  stable_rank_corrected: ["Stable rank, corrected", "the same, without the bias of few rows"],
  numerical_rank: ["Numerical rank", "eigenvalues above the noise floor"],
  rankme: ["RankMe", "rank of the uncentred embeddings"],
  center_norm: ["Center norm", "0: the unit rows cancel out; 1: all point the same way"],
  scaled_std: ["Scaled std", "1: an even cloud; 0: a single point"],
  mean_cosine: ["Mean cosine", "between different samples; near 1 they form a cone"],
  relative_variance: ["Relative variance", "share of the energy that varies; 0: a single point"],
  log10_top_to_median: ["Spectrum tail", "decades from the first to the median eigenvalue"],
  uniformity: ["Uniformity", "0: all identical; near −4: even on the sphere"],
  alignment: ["Alignment", "squared distance between views of one sample"],
  signal_gap: ["Signal gap", "how much closer views are than strangers"],
  alpha: ["Alpha", "decay exponent of the spectrum"],
  dead_dims: ["Dead dimensions", "dimensions that hardly vary"],
  duplicate_rows: ["Duplicate rows", "rows exactly equal to another"],
};
const NO_SPECTRUM = "no eigenvalue above the noise floor, or no spectrum of this window";
const NO_VIEWS = "it needs two or more views of each sample";
const UNDEFINED = {
  entropy_rank: NO_SPECTRUM, stable_rank: NO_SPECTRUM, intrinsic_dimension: NO_SPECTRUM, log10_top_to_median: NO_SPECTRUM,
  alignment: NO_VIEWS, signal_gap: NO_VIEWS, view_mean_norm: NO_VIEWS,
  stable_rank_corrected: "too few rows for an unbiased estimate", ln_first_to_last: "it needs more rows than dimensions",
  alpha: "fewer than ten eigenvalues above the noise floor to fit",
};

export const plain = (word) => String(word ?? "unknown").replaceAll("_", " ");
export const count = (n, one) => `${format(n)} ${one}${n === 1 ? "" : "s"}`;
export const rank = (state) => (STATES.includes(state) ? STATES.indexOf(state) : STATES.length); // 0 is the worst
const known = (state) => (STATES.includes(state) ? state : "unknown");
export const pill = (state) => el("span", { className: `pill ${known(state)}` }, plain(state));

// Fills `node` anew only when `key` has changed, so that focus and selected text survive a round that brought nothing.
export function patch(node, key, build) {
  const text = JSON.stringify(key);
  if (node.patched === text) return;
  node.patched = text;
  node.replaceChildren(...build().filter((child) => child !== null));
}

// The elements of a layer, empty, and what is kept of it. `refold` is called when the reader opens or folds it.
export function layerSection(open, refold) {
  const section = {
    summary: el("summary"), verdict: el("section", { className: "card verdict" }),
    spectrumPanel: panel("Spectrum", "log component axis", false), rankPanel: panel("Rank over windows", "log rank axis", true),
    scalePanel: panel("Scale over windows"), table: el("section", { className: "card" }),
    history: { windows: [], from: 0, cursor: null, key: null, version: 0 }, spectrum: null, spectrumKey: null,
  };
  const { summary, verdict, spectrumPanel, rankPanel, scalePanel, table } = section;
  const more = el("details", { className: "aside" }, el("summary", {}, "All measures, as the service names them"));
  section.all = more.appendChild(el("div", { className: "scroll", tabIndex: 0 }));
  section.newest = table.appendChild(el("div"));
  table.append(more);
  const grid = el("div", { className: "grid" }, verdict, spectrumPanel.root, rankPanel.root, scalePanel.root, table);
  section.box = el("details", { className: "layer", open }, summary, grid);
  section.nothing = el("p", { className: "quiet" });
  section.box.append(section.nothing);
  section.grid = grid;
  summary.addEventListener("click", refold);
  return section;
}

function panel(title, option, checked) {
  const host = el("div", { className: "chart" });
  const note = el("p", { className: "quiet note" });
  const check = el("input", { type: "checkbox", checked: checked ?? false });
  const head = el("div", { className: "row" }, el("h4", {}, title), option ? el("label", {}, check, option) : null);
  const result = { root: el("section", { className: "card" }, head, host, note), host, note, check, redraw: () => {} };
  check.addEventListener("change", () => result.redraw());
  return result;
}

// `layer` as /v1/runs/{run} has it; `latched` is the run's latched verdict when it is this layer's, else null.
export function renderLayer(section, layer, latched) {
  const { newest, open_windows: filling = [], nonfinite_rows: refused = 0 } = layer;
  patch(section.summary, [layer.layer, layer.state, newest && glance(newest), refused], () => [
    el("h3", {}, layer.layer), pill(layer.state),
    el("span", { className: "quiet" }, newest ? glance(newest) : "no closed window"),
    refused > 0 ? el("span", { className: "warn" }, `${count(refused, "row")} refused: not finite (NaN or infinite)`) : null,
  ]);
  const fill = filling.map(({ window, rows }) => `Window ${window} is filling: ${count(rows, "row")} so far.`).join(" ");
  section.grid.hidden = !newest;
  section.nothing.hidden = Boolean(newest);
  section.nothing.textContent = `A verdict comes when the first window closes. ${fill}`;
  if (!newest || !section.box.open) return;
  const key = [layer.state, layer.latched, layer.since_window, newest, latched, fill];
  patch(section.verdict, key, () => verdictCard(layer, latched, fill));
  patch(section.newest, newest.measures, () => [newestTable(newest)]);
  patch(section.all, [newest.measures, newest.methods, newest.computed], () => [allTable(newest)]);
  drawSpectrum(section);
  drawHistory(section, newest.verdict.reasons ?? []);
}

function glance({ window, rows, dim, measures }) {
  const ranks = `entropy rank ${format(measures.entropy_rank)} of ${dim}`;
  return `window ${window} · ${count(rows, "row")} · ${ranks} · scaled std ${format(measures.scaled_std)}`;
}

// ---- the verdict

function verdictCard(layer, latched, fill) {
  const { newest } = layer;
  const { verdict, notes = [] } = newest;
  const facts = [
    `window ${newest.window}`, newest.revision > 1 ? `revision ${newest.revision}` : null,
    newest.step === null || newest.step === undefined ? null : `step ${format(newest.step)}`,
    newest.loss === null || newest.loss === undefined ? null : `loss ${format(newest.loss)}`,
    newest.complete === false ? "incomplete: not every worker was done" : null,
  ].filter((fact) => fact !== null);
  const text = CAUSES[verdict.cause] ?? SUMMARY[verdict.state] ?? null;
  return [
    el("h4", {}, "Newest window"),
    el("p", { className: "state" }, pill(verdict.state)),
    text ? el("p", { className: "cause" }, text) : null,
    el("p", { className: "quiet" }, `cause: ${plain(verdict.cause)} · ${facts.join(" · ")}`),
    latchLine(layer, latched),
    ...Object.entries(AXES).map(([axis, question]) => axisLine(axis, question, verdict[axis])),
    reasonList("Why", verdict.reasons),
    textList("Notes", notes.map((note) => [String(note)])),
    fill ? el("p", { className: "quiet" }, fill) : null,
  ];
}

function latchLine({ state, latched: isLatched, since_window: since, newest }, latched) {
  const from = since === null || since === undefined ? "" : ` since window ${since}`;
  const now = newest.verdict.state;
  if (state === now) return isLatched ? el("p", { className: "latch" }, `Latched${from}.`) : null;
  const then = `${isLatched ? "Latched" : "The layer is"} ${plain(state)}${from}`;
  const text = el("p", {}, `${then}; the newest window (${newest.window}) reads ${plain(now)}.`);
  return el("div", { className: "latch" }, text, reasonList(`Judged ${plain(state)} because`, latched?.reasons));
}

function axisLine(axis, question, level) {
  const badge = el("span", { className: `badge ${level in MARKS ? level : "unknown"}` }, `${MARKS[level] ?? "?"} ${plain(level)}`);
  return el("p", { className: "axis-line" }, el("b", {}, axis), badge, el("span", { className: "quiet" }, question));
}

function reasonList(title, reasons) {
  return textList(title, (reasons ?? []).map(sentence));
}

function textList(title, items) {
  if (items.length === 0) return null;
  return el("div", {}, el("h5", {}, title), el("ul", {}, ...items.map((item) => el("li", {}, ...item))));
}

function sentence({ measure, value, threshold }) {
  const [name, reading] = MEASURES[measure] ?? [plain(measure), null];
  const side = value < threshold ? "under" : value > threshold ? "over" : "at";
  const limit = threshold === null || threshold === undefined ? "" : `, ${side} the threshold of ${format(threshold)}`;
  const said = value === null ? [" is undefined"] : [" is ", el("b", {}, format(value)), limit];
  return [el("b", {}, name), ...said, reading ? el("span", { className: "quiet" }, ` (${reading})`) : ""];
}

// ---- the charts

function show(target, key, build) {
  target.redraw = () => {
    const spec = build(target.check.checked);
    target.host.hidden = spec === null;
    if (spec !== null) chart(target.host, spec);
  };
  if (target.drawn === key) return;
  target.drawn = key;
  target.redraw();
}

function spectrumNote(spectrum, above) {
  if (spectrum?.complete === false && !spectrum.eigenvalues.length) return `Window ${spectrum.window}: the spectrum was too large to be solved, and no eigenvalue is known; ranks are estimates.`;
  if (!spectrum?.eigenvalues?.length) return "No spectrum of this window: the solver failed, or the service skipped it to keep up.";
  const { window, eigenvalues, noise_floor: floor, input_noise_floor: input, numeric_noise_floor: numeric } = spectrum;
  if (!eigenvalues.some((v) => v > 0)) return `Window ${window}: no eigenvalue is above zero; nothing varies.`;
  const known = spectrum.complete === false ? `the first ${format(eigenvalues.length)} of ${format(spectrum.dim)} eigenvalues are known (the spectrum was too large to be solved, ranks are estimates); ` : "";
  const share = `${known}${format(above)} of ${count(eigenvalues.length, "eigenvalue")}`;
  const floors = `${format(floor)} (input ${format(input)}, numeric ${format(numeric)})`;
  return `Window ${window}: ${share} above the noise floor of ${floors}.`;
}

function drawSpectrum({ spectrum, spectrumKey, spectrumPanel }) {
  const values = spectrum?.eigenvalues ?? [];
  const floor = spectrum?.noise_floor ?? 0;
  const positive = values.filter((v) => v > 0);
  const above = positive.filter((v) => v > floor).length;
  spectrumPanel.note.textContent = spectrumKey === null ? "reading …" : spectrumNote(spectrum, above);
  show(spectrumPanel, spectrumKey, (log) => {
    if (positive.length === 0) return null;
    const smallest = positive.at(-1);
    const away = floor < smallest * 1e-4; // a floor that far down would flatten the spectrum: it is named at the edge
    const lowest = away ? smallest / 4 : Math.max(Math.min(smallest, floor), floor * 1e-3);
    const min = 10 ** Math.floor(Math.log10(lowest));
    const max = Math.max(10 * min, 10 ** Math.ceil(Math.log10(Math.max(positive[0], floor))));
    const points = (keep) => values.map((v, i) => [i + 1, keep(v) ? v : null]);
    return {
      title: `Spectrum of window ${spectrum.window}`,
      desc: `Logarithmic; from ${format(positive[0])} down to ${format(smallest)}. ${spectrumNote(spectrum, above)}`,
      x: { label: "component", log, min: 1, max: values.length, whole: true },
      y: { label: "eigenvalue", log: true, min, max, powers: true },
      series: [
        { name: "eigenvalue", kind: "first", points: points((v) => v > floor) },
        { name: "under the floor: noise", kind: "noise", points: points((v) => v <= floor && v >= min) },
      ].filter(({ points: all }) => all.some(([, v]) => v !== null)),
      rules: floor > 0 ? [{ y: floor, label: `${away ? "↓ " : ""}noise floor ${format(floor)}${away ? ", below" : ""}` }] : [],
      rest: 1,
    };
  });
}

function drawHistory({ history, rankPanel, scalePanel }, reasons) {
  const { windows, key, cursor, version } = history;
  const so = cursor === null ? "" : `reading … ${count(windows.length, "window")} so far`;
  const reading = key === null && windows.length === 0 ? "reading …" : so;
  const points = (measure) => windows.map((report) => [report.window, report[measure] ?? null]);
  const of = (kind, name, measure) => ({ kind, name, measure, points: points(measure) });
  const plot = (target, title, y, series) => {
    const empty = series.every((one) => one.points.every(([, v]) => v === null));
    target.note.textContent = reading || (empty ? "Undefined in every window so far." : "");
    if (empty) return null;
    const [first, last] = [windows[0].window, windows.at(-1).window];
    const told = series.map((one) => `${one.name} from ${format(one.points[0][1])} to ${format(one.points.at(-1)[1])}`);
    const limits = reasons.filter(({ measure, threshold }) => threshold !== null && series.some((one) => one.measure === measure));
    return {
      title,
      desc: `Windows ${first} to ${last}: ${told.join("; ")}. The strip under the axis has the colour of each window's state.`,
      x: { label: "window", min: first, max: last, whole: true }, y, series, rest: last,
      rules: limits.map(({ measure, threshold: at }) => ({ y: at, label: `threshold ${format(at)} for ${plain(measure)}` })),
      ribbon: windows.map(({ window, state }) => [window, known(state)]),
    };
  };
  show(rankPanel, `${version} ${key}`, (log) => {
    const ranks = [of("first", "entropy rank", "entropy_rank"), of("second", "stable rank", "stable_rank")];
    const series = [...ranks, of("null", "noise", "entropy_rank_null")];
    const top = series.flatMap((one) => one.points).reduce((most, [, v]) => Math.max(most, v ?? 0), 2);
    return plot(rankPanel, "Rank over windows", { label: "rank", log, min: log ? 1 : 0, max: top * (log ? 1.3 : 1.08) }, series);
  });
  show(scalePanel, `${version} ${key}`, () => {
    const series = [of("first", "scaled std", "scaled_std"), of("second", "center norm", "center_norm")];
    return plot(scalePanel, "Scale over windows", { label: "0 to 1", min: 0, max: 1 }, series);
  });
}

// ---- the measures

function valueCell(measure, value) {
  if (value !== null) return el("td", { className: "value" }, format(value));
  const why = `undefined: ${UNDEFINED[measure] ?? "its inputs were not sent, or it has no meaning for this window"}`;
  const dash = [el("span", { ariaHidden: "true" }, "–"), el("span", { className: "unseen" }, why)];
  return el("td", { className: "value", title: why }, ...dash);
}

function newestTable({ window, measures }) {
  const rows = Object.entries(MEASURES).filter(([measure]) => measure in measures);
  return el("table", {},
    el("caption", {}, el("h4", {}, `Measures of window ${window}`)),
    el("thead", {}, el("tr", {}, ...["measure", "value", "how to read it"].map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...rows.map(([measure, [name, reading]]) => el("tr", {},
      el("th", { scope: "row", title: measure }, name), valueCell(measure, measures[measure]),
      el("td", { className: "quiet" }, reading)))));
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
