// charts.js: what each chart of a layer shows, from the service's columns.
// Guarantees: limits are those of the newest report; two runs side by side share their axes.
// Must not: draw (plot.js and heat.js do), ask the service, or judge.

import { count, format, plain } from "./dom.js";
import { heat } from "./heat.js";
import { plot } from "./plot.js";
import { known } from "./words.js";

// What is requested of a layer's history.
export const ASKED = ["entropy_rank", "entropy_rank_null", "stable_rank", "center_norm", "scaled_std", "mean_cosine", "loss.constant"];
const FADED = 4; // earlier windows in the spectrum

const numbers = (columns) => columns.flat().filter((v) => typeof v === "number");
const most = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);
const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);

// The y range that each chart needs, { rank: [low, high], loss, spectrum }, so that both runs can share it.
export function extents({ history, spectra }) {
  const found = {};
  if (history !== null) {
    const { entropy_rank, stable_rank, entropy_rank_null } = history.measures;
    const ranks = numbers([entropy_rank, stable_rank, entropy_rank_null]);
    if (ranks.length > 0) found.rank = [Math.min(1, least(ranks)), most(ranks)];
    const losses = numbers([history.losses, history.measures["loss.constant"]]);
    if (losses.length > 0) found.loss = [least(losses), most(losses)];
    const scale = numbers([history.measures.center_norm, history.measures.scaled_std, history.measures.mean_cosine]);
    found.scale = [Math.min(0, least(scale)), Math.max(1, most(scale))];
  }
  if (spectra !== null) {
    const values = numbers(spectra.eigenvalues.map((row) => row ?? [])).filter((v) => v > 0);
    const floors = numbers([spectra.noise_floors]).filter((v) => v > 0);
    if (values.length > 0) {
      // A floor far below every eigenvalue would flatten the spectrum: only the note mentions it.
      const low = least([least(values), ...floors.filter((floor) => floor > least(values) * 1e-3)]);
      found.spectrum = [Math.max(low, most(values) * 1e-16), most([...values, ...floors])];
    }
  }
  return found;
}

export function union(all) {
  const whole = {};
  for (const extent of all) {
    for (const [name, [low, high]] of Object.entries(extent)) {
      const [a, b] = whole[name] ?? [Infinity, -Infinity];
      whole[name] = [Math.min(a, low), Math.max(b, high)];
    }
  }
  return whole;
}

const decade = ([low, high]) => [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high) + 1e-9)];

function told(xs, series) {
  const ends = series.map(({ name, values }) => `${name} from ${format(values[0])} to ${format(values.at(-1))}`);
  return `Windows ${xs[0]} to ${xs.at(-1)}: ${ends.join("; ")}. The strip at the bottom shows the state of each window.`;
}

// Fills a panel, or explains why it is empty.
function show(panel, spec, why) {
  const empty = spec === null || spec.series.every(({ values }) => values.every((v) => v === null));
  panel.host.hidden = empty;
  panel.note.textContent = empty ? why : spec.note ?? "";
  if (!empty) plot(panel.host, spec);
}

function overWindows(history, y, series, extra = {}) {
  const xs = history.windows;
  const drawn = series.filter(({ values }) => values.some((v) => v !== null));
  const few = history.total > xs.length ? `${format(xs.length)} of ${count(history.total, "window")}: the worst of each stretch.` : "";
  return { desc: told(xs, drawn), x: { label: "window" }, y, xs, series: drawn, states: history.states.map(known), sync: "windows", rest: xs.length - 1, note: few, ...extra };
}

export function drawHistory(section, newest, shared) {
  const { history, panels, log } = section;
  if (history === null || history.windows.length === 0) return;
  const m = history.measures;
  const thresholds = newest.computed.thresholds ?? {};
  const limits = ["scaled_std_critical", "mean_cosine_critical"].filter((name) => name in thresholds);
  const rules = limits.map((name) => ({ y: thresholds[name], label: `${plain(name)} ${format(thresholds[name])}` }));

  // A share of the null is a different rank in every window, because the null depends on the rows.
  const share = thresholds.rank_share_line;
  const critical = m.entropy_rank_null.map((rank) => (rank === null || share === undefined ? null : 1 + share * (rank - 1)));
  const top = shared.rank?.[1] ?? 2;
  show(panels.rank, overWindows(history, { label: "rank", log: log.rank, min: log.rank ? 0.8 : 0, max: top * (log.rank ? 1.4 : 1.06) }, [
    { name: "entropy rank", kind: "first", values: m.entropy_rank },
    { name: "stable rank", kind: "second", values: m.stable_rank },
    { name: "null: isotropic noise", kind: "null", values: m.entropy_rank_null },
    { name: `critical: ${format(share)} of the null`, kind: "limit", values: critical },
  ]), "Undefined in every window so far.");
  const guessed = history.estimated.filter((names) => names?.includes("entropy_rank")).length;
  if (guessed > 0) panels.rank.note.textContent += ` Estimates, not exact, in ${count(guessed, "window")}: the spectrum was too large to solve.`;

  const [low, high] = shared.scale ?? [0, 1];
  show(panels.scale, overWindows(history, { label: "0 to 1", min: low * 1.05, max: high * 1.05 }, [
    { name: "scaled std", kind: "first", values: m.scaled_std },
    { name: "center norm", kind: "second", values: m.center_norm },
    { name: "mean cosine", kind: "third", values: m.mean_cosine },
  ], { rules }), "Undefined in every window so far.");

  const [worst, best] = shared.loss ?? [0, 1];
  const pad = (best - worst || Math.abs(best) || 1) * 0.08;
  const about = newest.methods?.loss;
  show(panels.loss, overWindows(history, { label: "loss", min: worst - pad, max: best + pad }, [
    { name: "loss", kind: "first", values: history.losses },
    { name: `constant of a collapse${/[a-z]/.test(about?.formula ?? "") ? ` (${about.formula})` : ""}`, kind: "limit", values: m["loss.constant"] },
  ]), "No loss was pushed (add loss= to your pushes).");
  if (about?.meaning) panels.loss.note.textContent = about.meaning;
}

// The chosen window and a few before it; older ones are fainter.
function faded(spectra, picked) {
  const before = Math.min(FADED, picked);
  const step = Math.max(1, Math.floor(picked / FADED));
  return Array.from({ length: before }, (_, i) => picked - (before - i) * step).filter((i) => i >= 0);
}

export function drawSpectra(section, shared) {
  const { spectra, panels, log } = section;
  if (spectra === null || spectra.windows.length === 0) return;
  const picked = Math.min(section.pick ?? spectra.windows.length - 1, spectra.windows.length - 1);
  const window = spectra.windows[picked];
  const floor = spectra.noise_floors[picked];
  const values = spectra.eigenvalues[picked];
  const xs = spectra.components;
  const older = faded(spectra, picked);
  const blank = xs.map(() => null);
  const series = (columns) => [
    ...older.map((i, n) => ({ name: `window ${spectra.windows[i]}`, kind: `faded${n + FADED - older.length}`, values: columns[i] ?? blank })),
    { name: `window ${window}`, kind: "first", values: columns[picked] ?? blank },
  ];
  const above = (values ?? []).filter((v) => v !== null && v > (floor ?? 0)).length;
  const all = xs.length === spectra.dim;
  const cut = (values ?? []).some((v) => v === null);
  const say = values === null ? `No spectrum of window ${window}: the solver failed, or was skipped to keep up.`
    : `Window ${window}: ${all ? `${format(above)} of ${count(spectra.dim, "eigenvalue")} above the noise floor of ${format(floor)}` : `${xs.length} of ${count(spectra.dim, "component")} drawn; noise floor ${format(floor)}`}${cut ? "; only the first ones are known, the rest is estimated" : ""}.`;
  const [low, high] = decade(shared.spectrum ?? [1e-3, 1]);
  show(panels.spectrum, {
    desc: say, x: { label: "component", log: log.component }, y: { label: "eigenvalue", log: true, min: low, max: high }, xs,
    series: series(spectra.eigenvalues), rules: floor > 0 ? [{ y: floor, label: `noise floor ${format(floor)}${floor < low ? ", below" : ""}` }] : [],
    sync: "components", rest: 0, note: say,
  }, say);
  show(panels.cumulative, {
    desc: `Share of the variance that the first components hold, window ${window}.`,
    x: { label: "component", log: log.component }, y: { label: "share of the variance", min: 0, max: 1.04 }, xs,
    series: series(spectra.cumulative), rules: [{ y: 0.9, label: "90 %" }], sync: "components", rest: 0,
  }, say);
  const drawn = spectra.eigenvalues.some((row) => row !== null);
  panels.heat.host.hidden = !drawn;
  panels.heat.note.textContent = drawn ? "Colour: log eigenvalue. Grey: below the noise floor. The frame marks the window shown above; click, or move the slider." : say;
  if (drawn) {
    heat(panels.heat.host, {
      desc: `Log eigenvalue by window and component, windows ${spectra.windows[0]} to ${spectra.windows.at(-1)}.`,
      windows: spectra.windows, components: xs, eigenvalues: spectra.eigenvalues, floors: spectra.noise_floors, picked, pick: section.choose,
    });
  }
}
