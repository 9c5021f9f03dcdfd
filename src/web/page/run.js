// run.js: one run on the screen: its requests and its frame. Two can be side by side.
// Guarantees: only what is on the screen is requested, at most once a second, in a size that does not grow with the
// history; a deleted run is labelled as such. Must not: judge, or change anything in the service.

import { ASKED, extents, union } from "./charts.js";
import { count, el, patch, plain } from "./dom.js";
import { ago, when } from "./fleet.js";
import { forgetHeat } from "./heat.js";
import { layerSection, redraw, renderLayer } from "./layer.js";
import { get } from "./live.js";
import { forget } from "./plot.js";
import { pill, rank } from "./words.js";

const OPEN = 2; // layers unfolded initially, the worst ones
const MOST = 40; // layers drawn
const PACE_MS = 1000; // between two requests
const POINTS = 400; // windows of a chart
const SPECTRA = 64; // windows of a heat map

const keyOf = (report) => `${report.window}/${report.revision}/${report.closed_at}`;
const pathOf = (name, layer, leaf) => `/v1/runs/${[name, "layers", layer, leaf].map(encodeURIComponent).join("/")}`;

// The view of run `name`: { root, changed(), ended(), sections }. `trouble(error)` gets errors, `drawn()` is called
// when axes may have changed, `others()` gives the runs to compare with.
export function runView(name, { trouble, drawn, tools }) {
  const view = { name, run: null, verdict: null, gone: false, sections: new Map(), over: false, tools };
  view.head = el("header");
  view.body = el("div");
  view.pushed = when(null);
  view.root = el("article", { className: "run" }, view.head, view.body);
  let busy = false, again = false, timer = 0, last = 0;
  view.changed = () => {
    again = true;
    if (busy || view.over) return;
    clearTimeout(timer);
    timer = setTimeout(work, Math.max(0, last + PACE_MS - Date.now()));
  };
  view.ended = () => {
    view.over = true;
    clearTimeout(timer);
    forget(view.root);
    forgetHeat(view.root);
  };
  async function work() {
    [busy, again, last] = [true, false, Date.now()];
    try {
      await read(view, drawn);
      trouble(null);
    } catch (error) {
      trouble(error);
    }
    busy = false;
    if (!view.over) render(view);
    if (again) view.changed();
  }
  render(view);
  view.changed();
  return view;
}

async function read(view, drawn) {
  const path = `/v1/runs/${encodeURIComponent(view.name)}`;
  try {
    view.run = await get(path);
    view.verdict = view.run.layers.some((layer) => layer.latched) ? await get(`${path}/verdict`) : null;
    view.gone = false;
  } catch (error) {
    if (error.status !== 404) throw error;
    view.gone = true;
    view.run = null;
    forget(view.root);
    forgetHeat(view.root);
    view.sections.clear(); // a later run of this name is another one
    return;
  }
  if (view.over) return;
  render(view);
  for (const { layer, newest } of view.run.layers) {
    const section = view.sections.get(layer);
    if (view.over || !newest || !section?.box.open || section.key === keyOf(newest)) continue;
    const history = await get(`${pathOf(view.name, layer, "history")}?points=${POINTS}&measures=${ASKED.join(",")}`);
    const spectra = await get(`${pathOf(view.name, layer, "spectra")}?points=${SPECTRA}`);
    // A chosen window stays chosen, wherever it has moved.
    const chosen = section.pick === null ? null : section.spectra.windows[section.pick];
    Object.assign(section, { history, spectra, key: keyOf(newest) });
    section.pick = chosen === null ? null : Math.max(0, spectra.windows.findLastIndex((window) => window <= chosen));
    if (!view.over) drawn();
  }
}

// Draws the charts of all views on shared axes.
export function drawAll(views) {
  const open = views.flatMap((view) => [...view.sections.values()]).filter(({ box, history }) => box.open && history !== null);
  const shared = views.length > 1 ? union(open.map(extents)) : null;
  for (const section of open) {
    section.shared = shared ?? extents(section);
    redraw(section);
  }
}

function render(view) {
  const { name, run, head, body, sections, gone, verdict, pushed } = view;
  const said = run && [run.state, run.method, run.finished, run.interrupted_windows, run.layers.some(({ latched }) => latched)];
  patch(head, [name, gone, said], () => runHead(view));
  pushed.dateTime = pushed.title = run?.last_push_at ?? "";
  pushed.textContent = ago(run?.last_push_at);
  if (gone || run === null) return body.replaceChildren();
  const layers = run.layers.slice(0, MOST);
  const worst = [...layers].sort((a, b) => rank(a.state) - rank(b.state)).slice(0, OPEN);
  for (const [i, layer] of layers.entries()) {
    if (!sections.has(layer.layer)) sections.set(layer.layer, layerSection(worst.includes(layer), view.changed));
    const section = sections.get(layer.layer);
    if (body.children[i] !== section.box) body.insertBefore(section.box, body.children[i] ?? null);
    renderLayer(section, layer, verdict?.layer === layer.layer ? verdict : null);
  }
  while (body.children.length > layers.length) body.lastChild.remove();
  if (run.layers.length > MOST) body.append(el("p", { className: "quiet" }, `${count(run.layers.length - MOST, "layer")} more: see /v1/runs/${name}`));
}

function runHead({ name, run, gone, pushed, tools }) {
  const title = el("h2", { className: "run-title", tabIndex: -1 }, name);
  if (gone) return [el("div", { className: "row" }, title, tools), el("p", {}, "There is no run with this name: it was deleted, or it never pushed.")];
  if (run === null) return [el("div", { className: "row" }, title, tools), el("p", { className: "quiet" }, "reading …")];
  const lost = (run.interrupted_windows ?? []).slice(0, 20).map(({ layer, window }) => `${layer} window ${window}`);
  const unlatch = `curl -X POST ${location.origin}/v1/runs/${encodeURIComponent(name)}/acknowledge`;
  const method = run.method === null ? "no method named" : plain(run.method);
  return [
    el("div", { className: "row" }, title, pill(run.state), tools),
    el("p", { className: "quiet" }, `${method} · ${run.finished ? "finished · " : ""}last push `, pushed),
    lost.length === 0 ? null
      : el("p", { className: "warn" }, `Interrupted by a restart of the service; earlier rows are lost: ${lost.join(", ")}.`),
    !run.layers.some((layer) => layer.latched) ? null
      : el("details", { className: "aside" }, el("summary", {}, "This verdict is latched: it stays until it is acknowledged"),
          el("pre", { tabIndex: 0 }, el("code", {}, unlatch))),
  ];
}
