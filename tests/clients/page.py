#!/usr/bin/env python3
"""Test the page in a real browser (Debian's Chromium, through Playwright).

    python page.py http://127.0.0.1:8417 [FOLDER]

The service must have the demo's three runs, a run `live` with open windows, a run `estimated`, 100 runs whose names are
markup (written into the history by hand), and a run `long` of 10,000 windows. With FOLDER, screenshots are saved there.
Exit code 0: all checks passed. Measured figures are printed.
"""

import json
import sys
import urllib.request
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright
from safetensors.numpy import save

BASE = sys.argv[1].rstrip("/")
FOLDER = Path(sys.argv[2]) if len(sys.argv) > 2 else None
PATIENCE_MS = 30_000  # only a failing test waits this long

complaints: list[str] = []

# Runs before any script of the page: records violations of the policy, and whether a name ran as markup.
WATCH = """
window.refused = [];
document.addEventListener("securitypolicyviolation", (e) => window.refused.push(`${e.violatedDirective} ${e.blockedURI}`));
window.alert = window.prompt = window.confirm = () => { window.ran = true; };
"""


def push(run: str, window: int, tensors: dict, **query) -> None:
    fields = "&".join(f"{name}={value}" for name, value in query.items())
    url = f"{BASE}/v1/runs/{run}/layers/projector/batches?window={window}&last=true&wait=true&{fields}"
    request = urllib.request.Request(url, save(tensors), {"Content-Type": "application/x-safetensors"})
    urllib.request.urlopen(request).read()


def look(browser, path="/", width=1280, height=800, scheme="light") -> Page:
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.on("console", lambda said: complaints.append(f"{path}: {said.type}: {said.text}"))
    page.on("pageerror", lambda error: complaints.append(f"{path}: {error}"))
    page.add_init_script(WATCH)
    page.goto(BASE + path)
    page.wait_for_selector("#runs a", state="attached")
    return page


def leave(page: Page, name: str, **how) -> None:
    """Check what must hold on every page, and close it."""
    assert page.evaluate("window.refused") == [], page.evaluate("window.refused")
    assert page.evaluate("window.ran") is None, f"{name}: a name ran"
    wide, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= room, f"{name}: {wide} pixels in {room}"
    if FOLDER:
        page.screenshot(path=FOLDER / f"{name}.png", **how)
    page.context.close()


def charts(page: Page, least: int) -> None:
    # A function, not an expression, because the page's policy forbids evaluating a string.
    page.wait_for_function(f"() => document.querySelectorAll('.chart canvas').length >= {least}")


def fleet(browser) -> None:
    page = look(browser)
    states = page.locator("#runs .pill").all_inner_texts()
    order = ["collapsed", "degrading", "healthy", "insufficient rows", "warming up"]
    assert [order.index(state) for state in states] == sorted(order.index(state) for state in states), "worst first"
    card = page.locator("#runs a", has_text="simsiam-no-predictor").inner_text()
    for part in ["collapsed", "Every input is mapped to nearly the same point", "Scaled std", "threshold"]:
        assert part in card, f"{part}: {card}"
    assert page.locator("#pulse").inner_text() == "live"
    # Each name appears unchanged, as text.
    names = page.locator("#runs .name").all_inner_texts()
    assert sum("<" in name or "'" in name for name in names) == 100, names
    assert page.locator("#runs .name *").count() == 0
    leave(page, "fleet")


def hostile(browser) -> None:
    """A run whose name is markup: on the screen, in the address and next to another run."""
    page = look(browser)
    for link in page.locator("#runs a", has_text="onerror").all()[:3]:
        name = link.get_attribute("data-run")
        link.click()
        page.wait_for_function("name => document.querySelector('.run-title')?.textContent === name", arg=name)
        page.wait_for_selector(".run .pill, .run p")
        assert name in page.title(), page.title()
    page.evaluate("name => { location.hash = '#run=simsiam-healthy&with=' + encodeURIComponent(name) }", name)
    page.wait_for_function("() => document.querySelectorAll('.run-title').length === 2")
    leave(page, "hostile")


def collapse(browser) -> None:
    page = look(browser, "/#run=simsiam-no-predictor", 1440, 1080)
    charts(page, 6)
    text = page.locator("#shown").inner_text()
    for part in [
        "Every input is mapped to nearly the same point", "Latched since window 4", "Scaled std", "RankMe", "noise floor",
        "Cumulative variance", "Loss against its constant", "Log eigenvalue by window", "Diagnostics of the method",
        "null: isotropic noise", "critical: 0.02 of the null", "window 17",
    ]:
        assert part in text, f"{part} is not on the page:\n{text}"
    # Select another window by keyboard: the spectrum follows.
    page.keyboard.press("[")
    page.wait_for_function("() => document.querySelector('.slider output').textContent === '16'")
    assert "Window 16:" in page.locator("#shown").inner_text()
    page.keyboard.press("]")
    leave(page, "run", full_page=True)


def estimates(browser) -> None:
    page = look(browser, "/#run=estimated")
    charts(page, 3)
    table = page.locator("table", has_text="Measures of window").inner_text()
    assert "estimate" in table, table
    assert "Estimates, not exact, in 1 window" in page.locator("#shown").inner_text()
    leave(page, "estimated")


def live(browser) -> None:
    """When a batch arrives, the page updates by itself, without a reload."""
    page = look(browser, "/#run=live")
    page.wait_for_selector(".layer")
    page.evaluate("window.same = true")
    rng = np.random.default_rng(1)
    push("live", 10, {"z": rng.standard_normal((64, 16)).astype("f4")})
    page.wait_for_function("() => document.querySelector('.layer summary').textContent.includes('window 10 ·')")
    push("another", 0, {"z": rng.standard_normal((64, 16)).astype("f4")})
    page.wait_for_function("() => [...document.querySelectorAll('#runs a')].some((a) => a.dataset.run === 'another')")
    for window in range(11, 17):
        push("live", window, {"z": np.ones((64, 16), "f4")})
    page.wait_for_function("() => document.querySelector('#shown .pill').textContent === 'collapsed'")
    page.wait_for_function("() => document.querySelector('#announce').textContent.includes('live is now collapsed')")
    request = urllib.request.Request(f"{BASE}/v1/runs/another", method="DELETE")
    urllib.request.urlopen(request).read()
    page.wait_for_function("() => ![...document.querySelectorAll('#runs a')].some((a) => a.dataset.run === 'another')")
    assert page.evaluate("window.same") is True
    leave(page, "live")


def two(browser) -> None:
    """By keyboard only: open a run, open another next to it, swap them, and go back."""
    page = look(browser, "/", 1440, 1000)
    page.keyboard.press("/")
    page.keyboard.type("simsiam")
    page.wait_for_function("() => document.querySelectorAll('#runs a').length === 3")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.dataset.run") == "simsiam-no-predictor"
    page.keyboard.press("Enter")
    charts(page, 6)
    page.locator("#runs a", has_text="simsiam-healthy").focus()
    page.keyboard.press("c")
    charts(page, 12)
    left, right = (page.locator(".run").nth(i).bounding_box() for i in range(2))
    assert left["x"] + left["width"] <= right["x"] and abs(left["y"] - right["y"]) < 2, "side by side"
    page.keyboard.press("x")
    page.wait_for_function("() => document.querySelector('.run-title').textContent === 'simsiam-healthy'")
    charts(page, 12)
    if FOLDER:
        page.screenshot(path=FOLDER / "two.png")
    page.keyboard.press("?")
    assert page.locator("#keys dl").is_visible()
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.querySelectorAll('.run').length === 1")
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.querySelectorAll('.run').length === 0")
    leave(page, "keyboard")


def narrow(browser) -> None:
    seen = {}
    for scheme in ["light", "dark"]:
        for name, path in [("list", "/"), ("run", "/#run=simsiam-no-predictor"), ("two", "/#run=simsiam-healthy&with=simsiam-no-predictor")]:
            page = look(browser, path, 360, 740, scheme)
            if path != "/":
                charts(page, 6)
            seen[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
            leave(page, f"narrow-{name}-{scheme}", full_page=name == "run")
    assert seen["light"] != seen["dark"], seen


def long(browser) -> None:
    """10,000 windows: the responses stay small. Prints the browser's longest task."""
    page = look(browser)
    page.evaluate("""() => {
      window.longest = 0;
      new PerformanceObserver((list) => list.getEntries().forEach((e) => { window.longest = Math.max(window.longest, e.duration); }))
        .observe({ type: "longtask" });
    }""")
    page.evaluate("location.hash = '#run=long'")
    charts(page, 5)
    assert "400 of 10,000 windows" in page.locator("#shown").inner_text()
    read = page.evaluate("""() => performance.getEntriesByType("resource").filter((e) => e.name.includes("run") || e.name.includes("/long/"))
      .map((e) => [new URL(e.name).pathname, Math.round(e.duration), e.transferSize])""")
    sent = [entry for entry in read if "/long/" in entry[0]]
    longest = page.evaluate("window.longest")
    print("10,000 windows:", json.dumps(sent), f"longest task {longest:.0f} ms")
    assert all(size < 100_000 for _, _, size in sent), sent
    leave(page, "long")


def first_paint(browser) -> None:
    """The cost of a first visit with an empty cache: the median of five."""
    visits = []
    for _ in range(5):
        page = look(browser)
        page.wait_for_function("() => performance.getEntriesByType('paint').length > 1")
        visits.append(page.evaluate("""() => {
          const sent = performance.getEntriesByType("resource").filter((e) => !e.name.endsWith("/events")).concat(performance.getEntriesByType("navigation"));
          return { paint: performance.getEntriesByName("first-contentful-paint")[0].startTime, runs: document.querySelectorAll("#runs a").length,
                   shown: performance.getEntriesByName("runs")[0].startTime, bytes: sent.reduce((sum, e) => sum + e.transferSize, 0) };
        }"""))
        page.context.close()
    middle = {name: sorted(visit[name] for visit in visits)[2] for name in visits[0]}
    print(f"first contentful paint {middle['paint']:.0f} ms, {middle['runs']} runs shown after {middle['shown']:.0f} ms, {middle['bytes']} bytes")
    # The goal is 300 ms. A machine that also runs builds gets three times as long.
    assert middle["paint"] < 900 and middle["bytes"] < 120_000, visits


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        for check in [first_paint, fleet, hostile, collapse, estimates, live, two, narrow, long]:
            check(browser)
        browser.close()
    assert complaints == [], "\n".join(complaints)


main()
