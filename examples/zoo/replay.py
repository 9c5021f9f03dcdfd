#!/usr/bin/env python3
"""Push recorded runs to a service and keep its conclusions, to calibrate thresholds without training again.

    replay.py RECORDINGS --url http://127.0.0.1:8417 [--only simclr-healthy ...] [--results DIR]

RECORDINGS is a folder of runs, as written by `run --record`, or the folder of one run. If the service has a run of the
same name, it is deleted first. With --results the conclusion is written to the run's result file, which `run --table`
reads.
"""

import argparse
import json
import pathlib

import table
from recorder import recorded
from service import Service


def replay(service, folder, prefix=""):
    """Push one recorded run; return the service's conclusion."""
    run = prefix + folder.name
    if any(known["run"] == run for known in service.request("GET", "/v1/runs")["runs"]):
        service.request("DELETE", f"/v1/runs/{run}")
    for method, parameters, tensors in recorded(folder):
        service.push(run, method, parameters, tensors)
    service.finish(run)
    return service.conclusion(run)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=pathlib.Path)
    parser.add_argument("--url", default="http://127.0.0.1:8417")
    parser.add_argument("--token")
    parser.add_argument("--only", nargs="+", default=[], metavar="CONFIGURATION")
    parser.add_argument("--prefix", default="", help="prefix for the runs' names on the service")
    parser.add_argument("--results", type=pathlib.Path, metavar="DIR", help="write the conclusion to DIR/<run>.json")
    args = parser.parse_args()

    service = Service(args.url, args.token)
    folders = sorted(path.parent for path in args.recordings.glob("**/window-00000.safetensors"))
    for folder in folders:
        run = folder.name
        if args.only and run.rsplit("-s", 1)[0] not in args.only:
            continue
        conclusion = replay(service, folder, args.prefix)
        state, cause, layer, window = (conclusion[key] for key in ("state", "cause", "layer", "first_collapsed"))
        print(f"{run:32} {state:12} {cause:24} {layer:24} {'-' if window is None else f'window {window}'}", flush=True)
        result = args.results / f"{run}.json" if args.results else None
        if result and result.is_file():
            result.write_text(table.result_text({**json.loads(result.read_text()), "service": conclusion}))


if __name__ == "__main__":
    main()
