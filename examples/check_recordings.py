#!/usr/bin/env python3
"""Check the recordings without fullrank: the core measures of each window in float64, and the verdict they lead to.

Written from the definitions alone, with numpy and an eigensolver, so that it can disagree with the service. Prints one
table per file, applies the verdict's rules to the windows, and exits with 1 unless the healthy run ends `healthy` with
no alarm in its last five windows and every other run ends `collapsed`.

Columns: s2 mean off-diagonal cosine, C4 scaled std of unit rows (1 isotropic, 0 collapsed), v share of the variance in
the raw second moment, D1 entropy rank, e = (D1 - 1)/(null - 1), rel D1/null over the run's baseline, tail
log10(l1/l_median), up the tail's rise over the run's baseline in decades.
"""

import argparse
import json
import math
import pathlib
import sys

import numpy as np
from safetensors import safe_open

CLEAR = 0.10  # an alarm ends only beyond its threshold by this margin ...
CLEAR_WINDOWS = 5  # ... in this many windows in a row
HALF_UNIT = 2.0**-11  # relative rounding error of f16


def measures(views):
    """The measures of one window, from the pooled rows of all its views."""
    count, samples = len(views), len(views[0])
    z = np.concatenate([view.astype(np.float64) for view in views])
    rows, dim = z.shape
    mean, centred = z.mean(axis=0), z - z.mean(axis=0)
    eigenvalues = np.linalg.svd(centred, compute_uv=False)[:dim] ** 2 / rows
    trace = eigenvalues.sum()
    floor = HALF_UNIT**2 / 3 * (z**2).mean(axis=0).max() * (1 + math.sqrt(dim / rows)) ** 2

    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    s = np.linalg.norm(unit.mean(axis=0))

    # Two views of a sample are not independent rows, so the null uses an effective number of rows.
    rho = 0.0
    if trace > floor and count == 2:
        first, second = (view.astype(np.float64) - view.astype(np.float64).mean(axis=0) for view in views)
        rho = (first * second).sum() / rows * count / trace
    effective = count * (samples - 1) / (1 + (count - 1) * rho**2)
    low, high = min(effective, dim), max(effective, dim)
    null = low * math.exp(-low / (2 * high))

    p = eigenvalues[eigenvalues > 0] / trace if trace > 0 else np.ones(1)
    entropy_rank = math.exp(-(p * np.log(p)).sum())
    median = max(np.median(eigenvalues), 1e-300)
    return {
        "s2": (rows * s * s - 1) / (rows - 1),
        "C4": math.sqrt(dim) * unit.std(axis=0).mean(),
        "v": trace / (trace + mean @ mean),
        "D1": entropy_rank,
        "e": (entropy_rank - 1) / (null - 1),
        "relative": entropy_rank / null,
        "tail": math.log10(max(eigenvalues[0], 1e-300) / median),
        "noise": trace <= floor,
    }


def alarms(m, baseline, tail_baseline, margin=0.0):
    """Names of a window's alarms. Those that count towards `collapsed` end in an exclamation mark."""
    up, down = 1 + margin, 1 - margin  # a margin makes every threshold easier to cross
    found = []
    if m["noise"] or (m["C4"] < 0.3 * up and (m["s2"] > 0.9 * down or m["v"] < 0.05 * up)):
        found.append("scale!")
    elif m["C4"] < 0.5 * up and m["s2"] > 0.5 * down:
        found.append("scale")
    if m["e"] < 0.02 * up:
        found.append("line!")
    elif m["e"] < 0.05 * up:
        found.append("dimension")
    if baseline is not None:
        if m["relative"] < 0.4 * up * baseline:
            found.append("relative!")
        elif m["relative"] < 0.7 * up * baseline:
            found.append("relative")
    if tail_baseline is not None and m["tail"] > tail_baseline + 1.0 * down:
        found.append("tail")
    return found


def rolling_medians(values):
    return [float(np.median(values[i - 4:i + 1])) for i in range(4, len(values))]


def replay(windows):
    """Apply the rules to the windows; return (state, alarms, relative, tail rise, clear) for each."""
    state, warming, outside, critical, clear = "warming_up", True, 0, 0, 0
    history, rows = [], []
    for index, m in enumerate(windows):
        if warming:
            outside += m["s2"] <= 0.75
            warming = not (outside >= 2 or (index + 1 >= 5 and m["step"] >= 500))
        if not warming:
            history.append(m)
        medians = rolling_medians([h["relative"] for h in history])
        tails = rolling_medians([h["tail"] for h in history])
        baseline, tail_baseline = (max(medians), min(tails)) if medians else (None, None)
        found = alarms(m, baseline, tail_baseline)
        is_clear = not alarms(m, baseline, tail_baseline, margin=CLEAR)
        critical = critical + 1 if any(name.endswith("!") for name in found) else 0
        clear = clear + 1 if is_clear else 0
        if warming:
            state = "warming_up"
        elif critical >= 3:
            state = "collapsed"
        elif state in ("degrading", "collapsed"):
            state = "healthy" if clear >= CLEAR_WINDOWS else state
        else:
            state = "degrading" if found else "healthy"
        relative = m["relative"] / baseline if baseline else math.nan
        rise = m["tail"] - tail_baseline if tail_baseline is not None else math.nan
        rows.append((state, found, relative, rise, clear))
    return rows


def check(path):
    """Print one recording's table; return whether it ends as expected of its variant."""
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
        truth = json.loads(metadata["windows"])
        windows = [
            measures([file.get_tensor(f"{t['window']:03}.z{view}") for view in (1, 2)]) | {"step": t["step"]}
            for t in truth
        ]
    rows = replay(windows)
    print(f"\n{metadata['run']}: {metadata['variant']}, {path.stat().st_size:,} bytes")
    print("window  step     loss    knn      s2     C4       v     D1       e    rel   tail     up  state       alarms")
    for t, m, (state, found, relative, rise, _) in zip(truth, windows, rows):
        print(
            f"{t['window']:6} {t['step']:5} {t['loss']:8.4f} {t['knn_accuracy']:6.3f} {m['s2']:7.4f} {m['C4']:6.3f} "
            f"{m['v']:7.4f} {m['D1']:6.2f} {m['e']:7.4f} {relative:6.3f} {m['tail']:6.2f} {rise:6.2f}  "
            f"{state:11} {' '.join(found)}"
        )
    state, _, _, _, clear = rows[-1]
    good = state == "healthy" and clear >= CLEAR_WINDOWS if metadata["variant"] == "healthy" else state == "collapsed"
    print(f"ends {state}: {'as expected' if good else 'NOT as expected'}")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = sorted((pathlib.Path(__file__).parent / "recordings").glob("*.safetensors"))
    parser.add_argument("files", nargs="*", type=pathlib.Path, default=default)
    results = [check(path) for path in parser.parse_args().files]
    sys.exit(0 if results and all(results) else 1)


if __name__ == "__main__":
    main()
