// live.js: data from the service: its event stream, and polling without one.
// Guarantees: nothing is open while the tab is hidden (a browser allows six connections per host); a silent service is
// asked again, later each time; without a stream the page polls. Must not: show anything.

const SOON_MS = 2000;
const SLOWEST_MS = 16000; // between attempts, while the service is silent
const PATIENCE_MS = 10000; // for one answer

export const clock = { skew: 0 }; // how far the service's clock is ahead of ours [ms]

export async function get(path) {
  const options = { headers: { accept: "application/json" }, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) };
  const answer = await fetch(path, options).catch((error) => {
    throw Object.assign(new Error("The service does not answer"), { cause: error, status: 0 });
  });
  clock.skew = Date.parse(answer.headers.get("date")) - Date.now() || 0;
  if (!answer.ok) {
    const retry = Number(answer.headers.get("retry-after")) * 1000 || 0;
    throw Object.assign(new Error(`The service answered ${answer.status}`), { status: answer.status, retry });
  }
  return answer.json().catch((error) => {
    throw Object.assign(new Error("The service's answer is not readable"), { cause: error, status: answer.status });
  });
}

let source = null, timer = 0, failures = 0, told = null, reading = false;

// `hear(lines, whole)` gets runs as in /v1/runs, all of them if `whole`; `status(trouble, live)` is called after every
// change.
export function live(hear, status) {
  told = { hear, status };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : begin()));
  begin();
}

function close() {
  clearTimeout(timer);
  source?.close();
  source = null;
}

function begin() {
  close();
  if (document.hidden) return;
  ask();
  source = new EventSource("/v1/events");
  source.addEventListener("change", ({ data }) => {
    const { runs, whole } = JSON.parse(data);
    if (runs === null) ask();
    else told.hear(runs, whole);
  });
  source.addEventListener("open", () => {
    failures = 0;
    told.status(null, true);
  });
  source.addEventListener("error", () => {
    // Refused (the limit, the token), or gone: polling shows which.
    close();
    ask();
    later(0);
  });
}

async function ask() {
  if (reading) return;
  reading = true;
  try {
    const { runs } = await get("/v1/runs");
    if (!document.hidden) {
      told.hear(runs, true);
      told.status(null, source?.readyState === EventSource.OPEN);
    }
  } catch (error) {
    told.status(error, false);
    // The browser has already asked for the token; polling would open its dialog again and again.
    if (error.status === 401) close();
    else later(error.retry);
  } finally {
    reading = false;
  }
}

function later(retry) {
  failures += 1;
  clearTimeout(timer);
  timer = setTimeout(begin, Math.max(retry ?? 0, Math.min(SLOWEST_MS, SOON_MS * 2 ** (failures - 1))));
}
