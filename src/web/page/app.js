// app.js: the page. It listens to the service's events, shows the list of runs, and one run or two side by side. In
// reading order: the address (which runs are shown), the data, the frame, the keyboard, the start.
// Guarantees: while the service does not answer, the last data stays on the screen with its age.
// Must not: change anything in the service, judge a run itself, build markup from strings, or set styles (classes
// only).

import { el } from "./dom.js";
import { ago, links, renderFleet, sorted } from "./fleet.js";
import { live } from "./live.js";
import { drawAll, runView } from "./run.js";

const $ = (id) => document.getElementById(id);

// ---- the address: #run=A, #run=A&with=B

function shown() {
  const at = new URLSearchParams(location.hash.slice(1));
  const names = [at.get("run"), at.get("with")].filter((name) => name !== null && name !== "");
  return names[0] === names[1] ? names.slice(0, 1) : names;
}

const linkTo = (run, beside) =>
  `#run=${encodeURIComponent(run)}${beside === undefined || beside === null ? "" : `&with=${encodeURIComponent(beside)}`}`;

// ---- the data

const runs = new Map();
let known = false, views = [], trouble = null, streaming = false, readAt = 0, frame = 0, marked = null;

function hear(lines, whole) {
  if (whole) {
    for (const name of runs.keys()) if (!lines.some(({ run }) => run === name)) runs.delete(name);
    views.forEach((view) => view.changed());
  }
  for (const line of lines) {
    runs.set(line.run, line);
    if (!whole) views.find(({ name }) => name === line.run)?.changed();
  }
  [known, readAt] = [true, Date.now()];
  later();
}

function status(error, isLive) {
  [trouble, streaming] = [error, isLive];
  if (error === null) readAt = Date.now();
  later();
}

// Many changes, one redraw.
function later() {
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(render);
}

// ---- the frame

function render() {
  const words = {
    401: "The service needs its token: reload the page to sign in.",
    403: "The service refuses this address or this token (403).",
  };
  const old = readAt ? ` This data is from ${new Date(readAt).toLocaleTimeString()}.` : "";
  $("banner").textContent = trouble ? words[trouble.status] ?? `${trouble.message}.${old} Trying again.` : "";
  $("banner").hidden = trouble === null;
  document.body.classList.toggle("stale", trouble !== null);
  $("pulse").textContent = trouble ? "not connected" : streaming ? "live" : known ? "polling every few seconds" : "connecting";
  if (known) renderFleet(runs, shown(), (name) => linkTo(name));
  if (known && !marked) marked = performance.mark("runs"); // for measuring load times
  for (const node of document.querySelectorAll("time")) node.textContent = ago(node.dateTime);
  for (const select of document.querySelectorAll("select.beside")) fill(select);
}

function show() {
  const names = shown();
  for (const view of views.filter(({ name }) => !names.includes(name))) view.ended();
  views = names.map((name) => views.find((view) => view.name === name && !view.over) ?? runView(name, {
    trouble: (error) => (error === null ? null : console.warn(`${error.message}: ${name}`)),
    drawn: () => drawAll(views),
    tools: tools(name),
  }));
  $("shown").replaceChildren(...views.map(({ root }) => root));
  $("shown").hidden = views.length === 0;
  drawAll(views);
  render();
}

// Next to a run's title: choose a run to compare with, or go back to one run.
function tools(name) {
  const select = el("select", { className: "beside" });
  select.dataset.of = name;
  select.addEventListener("change", () => (location.hash = linkTo(name, select.value)));
  const label = el("label", { className: "compare" }, "compare with", select);
  const alone = el("a", { className: "alone", href: linkTo(name) }, "only this run");
  return el("span", { className: "tools" }, label, alone, el("a", { className: "back", href: "#" }, "all runs"));
}

function fill(select) {
  if (document.activeElement === select) return;
  const mine = select.dataset.of;
  const other = shown().find((name) => name !== mine) ?? "";
  // The first hundred runs, and the chosen one: longer lists are of no use.
  const names = sorted(runs).map(({ run }) => run).filter((run) => run !== mine).slice(0, 100);
  if (other !== "" && !names.includes(other)) names.unshift(other);
  const key = JSON.stringify([names, other]);
  select.closest("label").hidden = names.length === 0 || (other !== "" && shown()[0] !== mine);
  if (select.filled === key) return;
  select.filled = key;
  select.replaceChildren(el("option", { value: "" }, "no other run"), ...names.map((run) => el("option", { value: run }, run)));
  select.value = other;
}

// ---- the keyboard

function step(by) {
  const all = links();
  const at = all.findIndex((link) => link === document.activeElement);
  const from = at >= 0 ? at : all.findIndex((link) => link.hasAttribute("aria-current"));
  const next = all[Math.min(all.length - 1, Math.max(0, from + by))];
  next?.focus();
  return next?.dataset.run;
}

const KEYS = {
  j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
  "/": () => { $("filter").hidden = false; $("filter").focus(); },
  c: () => {
    const [first] = shown();
    const focused = document.activeElement?.dataset?.run;
    if (first !== undefined && focused !== undefined && focused !== first) location.hash = linkTo(first, focused);
  },
  x: () => { const [a, b] = shown(); if (b !== undefined) location.hash = linkTo(b, a); },
  Escape: () => { const [a, b] = shown(); location.hash = b === undefined ? "" : linkTo(a); },
  "?": () => { $("keys").open = !$("keys").open; },
  "[": () => move(-1), "]": () => move(1),
};

// Moves the chosen window of every open layer, one forward or back.
function move(by) {
  for (const section of views.flatMap((view) => [...view.sections.values()])) {
    const last = (section.spectra?.windows.length ?? 0) - 1;
    if (section.box.open && last >= 0) section.choose(Math.min(last, Math.max(0, (section.pick ?? last) + by)));
  }
}

document.addEventListener("keydown", (event) => {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (target.matches("input, select, textarea, pre, .scroll")) {
    if (key === "Escape") target.blur();
    return;
  }
  const inFleet = target.closest?.("#fleet") || target === document.body;
  if (!(key in KEYS) || (key.startsWith("Arrow") && !inFleet) || (key.startsWith("Arrow") && $("fleet").offsetParent === null)) return;
  event.preventDefault();
  KEYS[key]();
});

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
window.addEventListener("hashchange", () => {
  const fleetHadFocus = $("fleet").contains(document.activeElement);
  show();
  // On narrow screens choosing a run hides the list: move the focus along.
  if (views.length > 0 && (!fleetHadFocus || $("fleet").offsetParent === null)) views[0].root.querySelector(".run-title")?.focus({ preventScroll: true });
  window.scrollTo(0, 0);
});
setInterval(() => { if (!document.hidden) later(); }, 10000); // keeps "5 s ago" current
show();
live(hear, status);
