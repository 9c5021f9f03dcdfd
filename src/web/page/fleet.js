// fleet.js: every run with its state, its cause and its reasons, the worst first.
// Guarantees: of very many runs only the first are drawn, and the rest is counted; the focus does not move.
// Must not: request data, or judge.

import { count, el, patch, plain } from "./dom.js";
import { clock } from "./live.js";
import { CAUSES, STATES, pill, rank, sentence } from "./words.js";

const DRAWN = 200;
const $ = (id) => document.getElementById(id);
const items = new Map();
let before = null; // earlier states, to announce changes

export function ago(time) {
  const seconds = Math.round(Math.max(0, Date.now() + clock.skew - Date.parse(time)) / 1000);
  if (Number.isNaN(seconds)) return "never";
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"], [5, "s"]].find(([least]) => seconds >= least) ?? [0, ""];
  return size === 0 ? "just now" : `${Math.floor(seconds / (unit === "s" ? 1 : size))} ${unit} ago`;
}

export const when = (time) => el("time", { dateTime: time ?? "", title: time ?? "" }, ago(time));

export const sorted = (runs) =>
  [...runs.values()].sort((a, b) => rank(a.state) - rank(b.state) || a.finished - b.finished || (a.run < b.run ? -1 : 1));

// `shown`: the names on the screen; the first is the chosen one.
export function renderFleet(runs, shown, linkTo) {
  const all = sorted(runs);
  const wanted = $("filter").value.trim().toLowerCase();
  const found = all.filter(({ run }) => run.toLowerCase().includes(wanted));
  const rows = found.slice(0, DRAWN).map((run) => item(run, shown, linkTo));
  const list = $("runs");
  if (rows.length !== list.children.length || rows.some((row, i) => row !== list.children[i])) {
    const focused = document.activeElement;
    list.replaceChildren(...rows);
    if (list.contains(focused)) focused.focus({ preventScroll: true });
  }
  for (const name of items.keys()) if (!runs.has(name)) items.delete(name);
  const rest = found.length - rows.length;
  $("more").textContent = rest > 0 ? `${count(rest, "run")} more: filter by name.` : found.length === 0 && all.length > 0 ? "No run of that name." : "";
  const tally = STATES.map((state) => [all.filter((run) => run.state === state).length, plain(state)]).filter(([n]) => n > 0);
  $("counts").textContent = `${count(all.length, "run")}: ${tally.map(([n, state]) => `${n} ${state}`).join(", ")}`;
  $("filter").hidden = all.length <= 6 && wanted === "";
  $("empty").hidden = all.length > 0 || shown.length > 0;
  $("fleet").hidden = all.length === 0;
  $("main").classList.toggle("chosen", shown.length > 0);
  $("main").classList.toggle("two", shown.length > 1);
  const bad = all.filter(({ state, finished }) => state === "collapsed" && !finished).length;
  document.title = `${bad > 0 ? `(${bad} collapsed) ` : ""}${shown.length > 0 ? `${shown.join(" and ")} · ` : ""}fullrank`;
  announce(all);
}

function item(run, shown, linkTo) {
  if (!items.has(run.run)) items.set(run.run, el("li", {}, el("a")));
  const li = items.get(run.run);
  const link = li.firstChild;
  link.href = linkTo(run.run);
  link.dataset.run = run.run;
  if (shown[0] === run.run) link.setAttribute("aria-current", "true");
  else link.removeAttribute("aria-current");
  link.classList.toggle("second", shown[1] === run.run);
  patch(link, run, () => card(run));
  return li;
}

function card(run) {
  const { layers, interrupted_windows: lost = [], reasons } = run;
  const more = layers.length > 3 ? ` +${layers.length - 3}` : "";
  const where = run.since_window === null ? "" : ` · since window ${run.since_window}`;
  const facts = [run.method === null ? "no method named" : plain(run.method), run.window === null ? null : `window ${run.window}`, run.finished ? "finished" : null];
  return [
    el("span", { className: "row" }, el("span", { className: "name", title: run.run }, run.run), pill(run.state)),
    CAUSES[run.cause] && run.cause !== "none" ? el("span", { className: "cause" }, CAUSES[run.cause]) : null,
    ...(reasons ?? []).slice(0, 2).map((reason) => el("span", { className: "reason" }, ...sentence(reason, true))),
    el("span", { className: "quiet" }, `${layers.slice(0, 3).join(", ")}${more}${where}${run.latched ? " · latched" : ""}`),
    el("span", { className: "quiet" }, `${facts.filter((fact) => fact !== null).join(" · ")} · last push `, when(run.last_push_at)),
    lost.length > 0 ? el("span", { className: "warn" }, `${count(lost.length, "window")} interrupted`) : null,
  ];
}

// Announces changes of state to screen readers.
function announce(runs) {
  const states = new Map(runs.map(({ run, state }) => [run, state]));
  const changed = runs.filter(({ run, state }) => before?.has(run) && before.get(run) !== state).slice(0, 5);
  if (changed.length > 0) $("announce").textContent = changed.map(({ run, state }) => `${run} is now ${plain(state)}.`).join(" ");
  before = states;
}

// The cards that the keyboard moves through.
export const links = () => [...$("runs").querySelectorAll("a")];
