"""Writes README.md's tables from the results, and compares new results with the committed ones."""

import json
import pathlib
import statistics

from methods import METHODS, configurations
from training import WINDOWS_PER_EPOCH

BEGIN, END = "<!-- table: begin (written by `run --table`) -->", "<!-- table: end -->"

# Thresholds for the wording of the column "truth"; nothing else uses them. Coordinates that are random mixtures of k
# independent directions have a mean |correlation| of 1, 0.64, 0.5, 0.42 for k = 1, 2, 3, 4.
POINT = 0.3  # spread below it; healthy runs are above 0.65
LINE = 0.82  # correlation above it: closer to one direction than to two
FEW = 0.5  # correlation of three directions; healthy runs are below 0.47, except L_Simple's

# The expected cause of a broken run, where it does not follow from how its embedding ends.
CAUSES = {
    "batchnorm-strong-decay": ["masked_by_batch_norm"],
    "dino-no-centering": ["one_prototype"],
    "dino-no-sharpening": ["uniform_prototypes"],
    "moco-stale-keys": ["stale_queue"],
    "swav-no-sinkhorn": ["one_prototype", "uniform_prototypes"],
}
ENDINGS = {"a point": ["constant"], "a line": ["line"], "few directions": ["low_rank", "line"], "spread out": ["-"]}

REPORTED = 2  # the seed that was not used to choose thresholds
KNN_POINTS = 0.02

HEADER = (
    "| method | taken away | kNN before | kNN backbone | kNN projector | spread | correlation | truth | "
    "first window called | cause named |\n|---|---|---|---|---|---|---|---|---|---|"
)


def result_text(record):
    """A result as text, one epoch per line for readable diffs."""
    truth = ",\n".join(f"  {json.dumps(epoch)}" for epoch in record["truth"])
    head = json.dumps({key: value for key, value in record.items() if key != "truth"})
    return f'{head[:-1]}, "truth": [\n{truth}\n]}}\n'


def results(folder):
    """{configuration: its results, by seed}."""
    found = {}
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        record = json.loads(path.read_text())
        found.setdefault(record["configuration"], []).append(record)
    return {name: sorted(records, key=lambda record: record["seed"]) for name, records in found.items()}


def ending(last):
    """How a run's embedding ends, by the truth of its last epoch."""
    if last["spread"] < POINT:
        return "a point"
    if last.get("pre_bn_spread", 1.0) < POINT:
        return "a point before the batch norm"
    if last["correlation"] > LINE:
        return "a line"
    if last["correlation"] > FEW:
        return "few directions"
    return "spread out"


def each(values):
    """One value if the seeds agree, else all of them."""
    values = [str(value) for value in values]
    return values[0] if len(set(values)) == 1 else ", ".join(values)


def row(name, method, variant, records):
    first, last = [r["truth"][0] for r in records], [r["truth"][-1] for r in records]

    def mean(epochs, key):
        return f"{statistics.fmean(epoch[key] for epoch in epochs):.3f}"

    if all(r.get("service") for r in records):
        called, cause = each(map(first_called, records)), each(map(cause_named, records))
    else:
        called = cause = "not measured"
    taken = METHODS[method].variants[variant] if variant else "nothing"
    cells = [
        method, taken, mean(first, "knn_backbone"), mean(last, "knn_backbone"), mean(last, "knn_projector"),
        mean(last, "spread"), mean(last, "correlation"), each(ending(epoch) for epoch in last), called, cause,
    ]
    return f"| {' | '.join(cells)} |"


def cause_named(record):
    """The cause in the latched verdict; `-` for a healthy run."""
    return "-" if record["service"]["state"] == "healthy" else record["service"]["cause"]


def first_called(record):
    """The first window of any layer with the state collapsed; if there is none, the start of its degrading."""
    layers = record["service"]["layers"].values()
    collapsed = [layer["first_window"]["collapsed"] for layer in layers if "collapsed" in layer["first_window"]]
    if collapsed:
        return str(min(collapsed))
    since = [layer["degrading_since"] for layer in layers if layer["degrading_since"] is not None]
    return f"{min(since)} degrading" if since and record["service"]["state"] == "degrading" else "-"


def gave_way(record):
    """The first epoch at whose end the embedding is a point by its spread; None if it never is."""
    return next((epoch["epoch"] for epoch in record["truth"] if epoch["spread"] < POINT), None)


def table(folder):
    found = results(folder)
    rows = [row(*c, found[c[0]]) for c in configurations() if c[0] in found]
    return "\n".join([HEADER, *rows, "", *counted(found)])


def counted(found):
    """Counts of right and wrong verdicts, on the seed that was not used to choose thresholds and on the other two."""
    if not all(record.get("service") for records in found.values() for record in records):
        return ["Not every run was pushed to a service."]
    lines = ["| | seed 2 | seeds 0 and 1 |", "|---|---|---|"]
    groups = [
        [r for records in found.values() for r in records if (r["seed"] == REPORTED) == reported]
        for reported in (True, False)
    ]

    def line(what, count):
        lines.append(f"| {what} | {' | '.join(count(group) for group in groups)} |")

    def share(part, whole):
        return f"{len(part)} of {len(whole)}"

    def unbroken(group):
        return [r for r in group if not r["without"]]

    def spread_out(group):
        return [r for r in unbroken(group) if ending(r["truth"][-1]) == "spread out"]

    def points(group):
        return [r for r in group if r["without"] and gave_way(r) is not None]

    def in_time(r):
        return first_called(r).isdigit() and int(first_called(r)) < WINDOWS_PER_EPOCH * (gave_way(r) + 1)

    def right(r):
        return cause_named(r) in CAUSES.get(r["configuration"], ENDINGS.get(ending(r["truth"][-1]), []))

    def broken(group):
        return [r for r in group if r["without"]]

    line("nothing taken away and spread out by the truth: called collapsed",
         lambda g: share([r for r in spread_out(g) if r["service"]["state"] == "collapsed"], spread_out(g)))
    line("the same: healthy at the end", lambda g: share(
        [r for r in spread_out(g) if r["service"]["state"] == "healthy"], spread_out(g)))
    line("nothing taken away, not spread out by the truth (L_Simple): cause right", lambda g: share(
        [r for r in unbroken(g) if r not in spread_out(g) and right(r)],
        [r for r in unbroken(g) if r not in spread_out(g)]))
    line("a safeguard taken away: cause right", lambda g: share([r for r in broken(g) if right(r)], broken(g)))
    line("on a point by the truth: called within an epoch of it",
         lambda g: share([r for r in points(g) if in_time(r)], points(g)))
    return lines


def summary(record):
    """What a repeated run must reproduce: the verdict, and kNN accuracy at the end."""
    last = record["truth"][-1]
    return {
        "state": record["service"]["state"], "cause": cause_named(record), "first_called": first_called(record),
        "knn_backbone": last["knn_backbone"], "knn_projector": last["knn_projector"],
    }


def commit(path, folder):
    """Write the summary of every run."""
    found = results(folder)
    lines = [f"{json.dumps(r['run'])}: {json.dumps(summary(r))}" for records in found.values() for r in records]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def differences(path, records, knn=True):
    """Differences from the committed runs: in verdict or cause, or in kNN accuracy by more than two points."""
    committed, found = json.loads(path.read_text()), []
    for record in records:
        want, got = committed.get(record["run"]), summary(record)
        if want is None:
            found.append(f"{record['run']}: missing from the committed runs")
            continue
        found += [
            f"{record['run']}: {key} is {got[key]}, expected {want[key]}"
            for key in ("state", "cause") if got[key] != want[key]
        ]
        for key in ("knn_backbone", "knn_projector") if knn else ():
            if abs(got[key] - want[key]) > KNN_POINTS:
                found.append(f"{record['run']}: {key} is {got[key]}, expected {want[key]} to within {KNN_POINTS}")
    return found


def write(readme, folder):
    """Replace the table between README's two marks."""
    text = readme.read_text()
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    readme.write_text(f"{before}{BEGIN}\n{table(folder)}\n{END}{after}")
