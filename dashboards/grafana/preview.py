"""Draws some panels of run.json from Prometheus's answers: docs/img/dashboards.png. It is no screenshot of Grafana.

    python dashboards/grafana/preview.py http://127.0.0.1:8417 http://127.0.0.1:9090 docs/img/dashboards.png

Pushes the recorded trainings first, a window every two seconds, to a service that a Prometheus with a scrape_interval of
1 s watches. Needs matplotlib and safetensors.
"""

import json
import math
import pathlib
import sys
import time
import urllib.parse
import urllib.request

import matplotlib
from safetensors import safe_open
from safetensors.numpy import save

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUNS = ["simsiam-healthy", "simsiam-no-predictor", "simsiam-no-stop-gradient"]
COLOURS = dict(zip(RUNS, ["#2a9d5c", "#d1495b", "#edae49"]))
# (panel, runs)
PANELS = [
    ("Verdict", RUNS),
    ("Loss", RUNS),
    ("scaled_std", RUNS),
    ("Rank over its null", RUNS),
    ("Eigenvalues by component", RUNS[:1]),
    ("Eigenvalues by component", RUNS[1:2]),
]


def push(service):
    files = {run: safe_open(ROOT / f"examples/recordings/{run}.safetensors", "np") for run in RUNS}
    windows = {run: json.loads(file.metadata()["windows"]) for run, file in files.items()}
    for index in range(max(map(len, windows.values()))):
        for run, file in files.items():
            window = windows[run][index]
            views = {name: file.get_tensor(f"{window['window']:03}.{name}") for name in ["z1", "z2"]}
            query = {key: window[key] for key in ["window", "step", "loss"]} | {"last": "true", "method": "simsiam", "wait": "true"}
            url = f"{service}/v1/runs/{run}/layers/projector/batches?{urllib.parse.urlencode(query)}"
            urllib.request.urlopen(urllib.request.Request(url, save(views), {"Content-Type": "application/x-safetensors"}))
        time.sleep(2)


def answer(prometheus, expression, runs, start, end):
    for name, value in {"job": ".+", "instance": ".+", "layer": ".+", "run": "|".join(runs)}.items():
        expression = expression.replace(f"${{{name}:regex}}", value)
    query = urllib.parse.urlencode({"query": expression, "start": start, "end": end, "step": 1})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{query}") as response:
        return json.load(response)["data"]["result"]


def draw(axes, panel, runs, prometheus, start, end):
    defaults = panel["fieldConfig"]["defaults"]
    dashed = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
    for target in panel["targets"]:
        for one in answer(prometheus, target["expr"], runs, start, end):
            run = one["metric"]["run"]
            times = [float(at) - start for at, _ in one["values"]]
            values = [float(value) for _, value in one["values"]]
            if panel["type"] == "state-timeline":
                words = defaults["mappings"][0]["options"]
                colours = {"blue": "#5794f2", "text": "#999999", "green": "#73bf69", "orange": "#ff9830", "red": "#f2495c"}
                for at, value in zip(times, values):
                    word = words[str(int(value))]
                    axes.barh(runs.index(run), 1.05, left=at, color=colours[word["color"]], height=0.7)
                axes.text(times[-1], runs.index(run), words[str(int(values[-1]))]["text"] + " ", ha="right", va="center", fontsize=8)
                axes.set_yticks(range(len(runs)), runs)
                axes.set_ylim(len(runs) - 0.5, -0.5)
            elif target["refId"] in dashed:
                axes.plot(times, values, "--", color="#888888", lw=1)
            elif "component" in one["metric"]:
                shade = plt.cm.viridis(math.log(float(one["metric"]["component"])) / math.log(64))
                axes.plot(times, values, color=shade, lw=1)
            else:
                axes.plot(times, values, color=COLOURS[run], lw=1.5, label=run)
    if defaults["custom"].get("scaleDistribution"):
        axes.set_yscale("log")
    if "axisSoftMin" in defaults["custom"]:
        axes.set_ylim(min(defaults["custom"]["axisSoftMin"], axes.get_ylim()[0]), max(defaults["custom"]["axisSoftMax"], axes.get_ylim()[1]))
    if defaults["unit"] == "percentunit":
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_title(panel["title"] + (f" ({runs[0]})" if len(runs) == 1 else ""), loc="left", fontsize=10)
    if panel["type"] != "state-timeline":
        axes.grid(True, color="#e6e6e6")
    axes.set_xlim(0, end - start)
    axes.tick_params(labelsize=8)


def main(service, prometheus, out):
    start = time.time()
    push(service)
    end = time.time()
    with open(ROOT / "dashboards/grafana/run.json", encoding="utf-8") as file:
        panels = {panel["title"]: panel for panel in json.load(file)["panels"]}
    figure, grid = plt.subplots(3, 2, figsize=(11, 8.2), constrained_layout=True)
    for axes, (title, runs) in zip(grid.flat, PANELS):
        draw(axes, panels[title], runs, prometheus, start, end)
    lower = [grid[2, 0].get_ylim(), grid[2, 1].get_ylim()]
    for axes in grid[2]:
        axes.set_ylim(min(low for low, _ in lower), max(high for _, high in lower))
        axes.set_xlabel("seconds", fontsize=8)
    grid[0, 1].legend(fontsize=8, loc="upper right")
    figure.suptitle("Preview, not a screenshot of Grafana: panels of run.json, drawn from Prometheus's answers to their queries", fontsize=10)
    figure.savefig(out, dpi=85)


if __name__ == "__main__":
    main(*sys.argv[1:])
