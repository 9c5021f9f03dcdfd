// app.js: the page. It asks the service every two seconds, keeps what it has read, and shows it. In reading order:
// asking, what is kept of a run, the frame, the fleet, one run (layer.js: one layer; plot.js: the charts).
// Guarantees: one request at a time, none while the tab is hidden; of a layer's reports only what is new is read again; while
// the service is silent, what was read stays on the screen and says how old it is; text from the service is put in as text.
// Must not: change anything in the service, judge a run itself, build markup from strings, or set styles (classes only).

import { STATES, count, layerSection, patch, pill, plain, rank, renderLayer } from "./layer.js";
import { el } from "./plot.js";

const PERIOD_MS = 2000;
const SLOWEST_MS = 16000; // between tries, while the service is silent
const PATIENCE_MS = 10000; // for one answer
const PAGE = 500; // reports in one answer
const PAGES = 4; // answers for one layer in one round: a long history arrives over several rounds
const OPEN = 2; // layers unfolded at first, the worst ones
const KEPT = 5000; // windows of one layer's history

const $ = (id) => document.getElementById(id);
const shown = () => new URLSearchParams(location.hash.slice(1)).get("run");
const keyOf = (report) => (report ? `${report.window}/${report.revision}/${report.closed_at}` : "none");

// ---- asking

let polling = false, again = false, failures = 0, timer = 0, trouble = null;
let readAt = 0, skew = 0; // when the last round ended; how far the service's clock is ahead of ours [ms]

async function get(path) {
  const options = { headers: { accept: "application/json" }, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) };
  const answer = await fetch(path, options).catch((error) => {
    throw Object.assign(new Error("The service does not answer"), { cause: error, status: 0 });
  });
  skew = Date.parse(answer.headers.get("date")) - Date.now() || 0;
  if (!answer.ok) {
    const retry = Number(answer.headers.get("retry-after")) * 1000 || 0;
    throw Object.assign(new Error(`The service answered ${answer.status}`), { status: answer.status, retry });
  }
  return answer.json().catch((error) => {
    throw Object.assign(new Error("The service's answer cannot be read"), { cause: error, status: answer.status });
  });
}

async function poll() {
  clearTimeout(timer);
  again = polling;
  if (polling || document.hidden) return;
  polling = true;
  let wait = PERIOD_MS;
  try {
    await round();
    [failures, trouble, readAt] = [0, null, Date.now()];
  } catch (error) {
    failures += 1;
    trouble = error;
    wait = Math.max(error.retry ?? 0, Math.min(SLOWEST_MS, PERIOD_MS * 2 ** (failures - 1)));
    if (error.status === undefined) console.error(error);
  }
  polling = false;
  // The browser has asked for the token already; asking again by itself would open its dialog every two seconds.
  if (trouble?.status !== 401) timer = setTimeout(poll, again ? 0 : wait);
  render();
}

async function round() {
  fleet.runs = (await get("/v1/runs")).runs;
  render();
  const name = shown();
  if (name !== null) await readRun(name);
}

// ---- what is kept of a run

const fleet = { runs: null, items: new Map(), states: null };
let view = null; // the run on the screen: its name, what was read of it, its elements, and a section for each layer

const pathOf = (name, layer, leaf) => `/v1/runs/${[name, "layers", layer, leaf].map(encodeURIComponent).join("/")}`;

async function readRun(name) {
  const mine = open(name);
  const path = `/v1/runs/${encodeURIComponent(name)}`;
  try {
    mine.run = await get(path);
    mine.verdict = mine.run.layers.some((layer) => layer.latched) ? await get(`${path}/verdict`) : null;
    mine.gone = false;
  } catch (error) {
    if (error.status !== 404) throw error;
    mine.gone = true;
    mine.layers.clear(); // a run of this name that comes later is another one
  }
  if (mine.gone || mine !== view) return;
  render();
  for (const { layer, newest } of mine.run.layers) {
    const section = mine.layers.get(layer);
    if (mine !== view || !newest || !section?.box.open) continue;
    await readHistory(name, layer, newest, section.history);
    await readSpectrum(name, layer, newest, section);
    render();
  }
}

// Reads on from the newest window known. A newest window before that one means a new revision or a new run of the same name:
// then all is read again.
async function readHistory(name, layer, newest, history) {
  if (history.key === keyOf(newest)) return;
  if (history.cursor === null) {
    const last = history.windows.at(-1)?.window;
    history.from = last !== undefined && newest.window >= last ? last : 0;
    history.windows = history.windows.filter(({ window }) => window < history.from);
  }
  for (let page = 0; page < PAGES; page += 1) {
    const next = history.cursor === null ? "" : `&cursor=${encodeURIComponent(history.cursor)}`;
    const answer = await get(`${pathOf(name, layer, "reports")}?from=${history.from}&limit=${PAGE}${next}`);
    for (const { window, measures, verdict } of answer.reports) {
      const { entropy_rank, entropy_rank_null, stable_rank, center_norm, scaled_std } = measures;
      if (history.windows.at(-1)?.window === window) history.windows.pop(); // the later revision counts
      history.windows.push({ window, state: verdict.state, entropy_rank, entropy_rank_null, stable_rank, center_norm, scaled_std });
    }
    history.windows = history.windows.slice(-KEPT);
    history.cursor = answer.next ?? null;
    history.version += 1;
    if (history.cursor === null) {
      history.key = keyOf(newest);
      return;
    }
  }
}

async function readSpectrum(name, layer, newest, section) {
  if (section.spectrumKey === keyOf(newest)) return;
  try {
    section.spectrum = await get(pathOf(name, layer, "spectrum"));
  } catch (error) {
    if (error.status !== 404) throw error;
    section.spectrum = null;
  }
  section.spectrumKey = keyOf(newest);
}

// ---- the frame

function ago(time) {
  const seconds = Math.round(Math.max(0, Date.now() + skew - Date.parse(time)) / 1000);
  if (Number.isNaN(seconds)) return "never";
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"], [5, "s"]].find(([least]) => seconds >= least) ?? [0, ""];
  return size === 0 ? "just now" : `${Math.floor(seconds / (unit === "s" ? 1 : size))} ${unit} ago`;
}

const when = (time) => el("time", { dateTime: time ?? "", title: time ?? "" }, ago(time));

function render() {
  renderFrame();
  if (fleet.runs !== null) renderFleet();
  renderRun();
  for (const node of document.querySelectorAll("time")) node.textContent = ago(node.dateTime);
}

function renderFrame() {
  const words = {
    401: "The service wants its token: reload the page to sign in.",
    403: "The service refuses this address or this token (403).",
  };
  const old = readAt ? ` What you see is from ${new Date(readAt).toLocaleTimeString()}.` : "";
  const text = trouble && (words[trouble.status] ?? `${trouble.message}.${old} Trying again.`);
  patch($("banner"), text, () => [text]);
  $("banner").hidden = !trouble;
  document.body.classList.toggle("stale", trouble !== null);
  $("pulse").textContent = trouble ? "not connected" : readAt ? "live" : "connecting";
}

// ---- the fleet

function renderFleet() {
  const by = (a, b) => a.finished - b.finished || rank(a.state) - rank(b.state) || a.run.localeCompare(b.run);
  const runs = [...fleet.runs].sort(by);
  const name = shown();
  const wanted = $("filter").value.trim().toLowerCase();
  const rows = runs.filter(({ run }) => run.toLowerCase().includes(wanted)).map((run) => fleetItem(run, run.run === name));
  const list = $("runs");
  if (rows.length !== list.children.length || rows.some((row, i) => row !== list.children[i])) {
    const focused = document.activeElement;
    list.replaceChildren(...rows);
    if (list.contains(focused)) focused.focus({ preventScroll: true });
  }
  for (const key of fleet.items.keys()) if (!runs.some(({ run }) => run === key)) fleet.items.delete(key);
  const tally = STATES.map((state) => [runs.filter((run) => run.state === state).length, plain(state)]).filter(([n]) => n > 0);
  $("counts").textContent = `${count(runs.length, "run")}: ${tally.map(([n, state]) => `${n} ${state}`).join(", ")}`;
  $("filter").hidden = runs.length <= 8 && wanted === "";
  $("empty").hidden = runs.length > 0 || name !== null;
  $("fleet").hidden = runs.length === 0;
  $("main").classList.toggle("chosen", name !== null);
  const bad = runs.filter(({ state, finished }) => state === "collapsed" && !finished).length;
  document.title = `${bad > 0 ? `(${bad} collapsed) ` : ""}${name === null ? "" : `${name} · `}fullrank`;
  announce(runs);
}

function fleetItem(run, current) {
  if (!fleet.items.has(run.run)) {
    const link = el("a", { href: `#run=${encodeURIComponent(run.run)}` });
    fleet.items.set(run.run, el("li", {}, link));
  }
  const item = fleet.items.get(run.run);
  const link = item.firstChild;
  if (current) link.setAttribute("aria-current", "true");
  else link.removeAttribute("aria-current");
  const { layers, interrupted_windows: lost = [] } = run;
  const more = layers.length > 3 ? ` +${layers.length - 3}` : "";
  patch(link, run, () => [
    el("span", { className: "row" }, el("span", { className: "name", title: run.run }, run.run), pill(run.state)),
    el("span", { className: "quiet" }, `${plain(run.method)} · ${layers.slice(0, 3).join(", ")}${more}`),
    el("span", { className: "quiet" }, run.finished ? "finished · " : "", "last push ", when(run.last_push_at)),
    lost.length > 0 ? el("span", { className: "warn" }, `${count(lost.length, "window")} interrupted`) : null,
  ]);
  return item;
}

// Says a change of state to those who do not see the page.
function announce(runs) {
  const states = new Map(runs.map(({ run, state }) => [run, state]));
  const changed = runs.filter(({ run, state }) => fleet.states?.has(run) && fleet.states.get(run) !== state);
  if (changed.length > 0) $("announce").textContent = changed.map(({ run, state }) => `${run} is now ${plain(state)}.`).join(" ");
  fleet.states = states;
}

// ---- one run

function open(name) {
  if (view?.name === name) return view;
  const frame = { head: el("header"), body: el("div"), pushed: when(null) };
  view = { name, run: null, verdict: null, gone: false, layers: new Map(), ...frame };
  $("run").replaceChildren(view.head, view.body);
  return view;
}

function renderRun() {
  const name = shown();
  $("run").hidden = name === null;
  if (name === null) view = null;
  if (name === null || view?.name !== name) return;
  const { run, head, body, layers, gone, verdict, pushed } = view;
  const said = run && [run.state, run.method, run.finished, run.interrupted_windows, run.layers.some(({ latched }) => latched)];
  patch(head, [name, gone, said], () => runHead(name, run, gone, pushed));
  pushed.dateTime = pushed.title = run?.last_push_at ?? "";
  if (gone || run === null) return body.replaceChildren();
  const worst = [...run.layers].sort((a, b) => rank(a.state) - rank(b.state)).slice(0, OPEN);
  for (const [i, layer] of run.layers.entries()) {
    if (!layers.has(layer.layer)) layers.set(layer.layer, layerSection(worst.includes(layer), poll));
    const section = layers.get(layer.layer);
    if (body.children[i] !== section.box) body.insertBefore(section.box, body.children[i] ?? null);
    renderLayer(section, layer, verdict?.layer === layer.layer ? verdict : null);
  }
  while (body.children.length > run.layers.length) body.lastChild.remove();
}

function runHead(name, run, gone, pushed) {
  const title = el("h2", { id: "run-title", tabIndex: -1 }, name);
  const back = el("a", { href: "#", className: "back" }, "← all runs");
  if (gone) return [back, title, el("p", {}, "There is no run of this name: it was deleted, or it never pushed.")];
  if (run === null) return [back, title, el("p", { className: "quiet" }, "reading …")];
  const lost = (run.interrupted_windows ?? []).map(({ layer, window }) => `${layer} window ${window}`);
  const unlatch = `curl -X POST ${location.origin}/v1/runs/${encodeURIComponent(name)}/acknowledge`;
  return [
    back,
    el("div", { className: "row" }, title, pill(run.state)),
    el("p", { className: "quiet" }, `${plain(run.method)} · ${run.finished ? "finished · " : ""}last push `, pushed),
    lost.length === 0 ? null
      : el("p", { className: "warn" }, `Interrupted by a restart of the service, rows so far lost: ${lost.join(", ")}.`),
    !run.layers.some((layer) => layer.latched) ? null
      : el("details", { className: "aside" }, el("summary", {}, "This verdict is latched until somebody acknowledges it"),
          el("pre", { tabIndex: 0 }, el("code", {}, unlatch))),
  ];
}

// ---- the start

const AWK = String.raw`BEGIN { for (i = 0; i < 64; i++) printf "%s[%f, %f, %f, %f]",
  i ? ", " : "{\"z\": [", rand() - .5, rand() - .5, rand() - .5, rand() - .5; print "]}" }`;
$("curl").textContent = String.raw`awk '${AWK}' |
  curl -H 'content-type: application/json' --data-binary @- \
    '${location.origin}/v1/runs/first/layers/projector/batches?window=0&last=true'`;
$("python").textContent = `from fullrank import Monitor
monitor = Monitor("${location.origin}", run="first", method="simsiam")
monitor.push(layer="projector", z1=z1, z2=z2, window=epoch, step=step, loss=loss)`;
$("filter").addEventListener("input", render);
document.addEventListener("visibilitychange", poll);
window.addEventListener("hashchange", () => {
  const name = shown();
  if (name !== null) open(name);
  render();
  if (name !== null && $("fleet").offsetParent === null) $("run-title").focus(); // narrow: the list has gone, take the reader along
  window.scrollTo(0, 0);
  poll();
});
render();
poll();
