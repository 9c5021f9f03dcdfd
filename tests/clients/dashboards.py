"""Convert each given Grafana dashboard to grafana-foundation-sdk's models and back: nothing may be lost or changed.

The models drop what they do not know, so an option that the panel does not have, or a misspelt key, is missing
afterwards. What the models add (their defaults) does not matter.
"""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

# Keys of an annotation's query that only Grafana's Prometheus data source reads. The models do not know them.
OF_PROMETHEUS = {"titleFormat", "textFormat", "tagKeys"}


def lost(before, after, path):
    """Yield the paths of values in `before` that are missing or different in `after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if path.startswith("annotations.list.") and key in OF_PROMETHEUS:
                continue
            if key not in after:
                yield f"{path}{key} is lost"
            else:
                yield from lost(value, after[key], f"{path}{key}.")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after)):
            yield from lost(one, other, f"{path}{index}.")
    elif before != after or isinstance(before, bool) != isinstance(after, bool):
        yield f"{path[:-1]} was {before!r} and is {after!r}"


def main(paths):
    register_default_plugins()
    wrong = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            before = json.load(file)
        after = json.loads(JSONEncoder().encode(Dashboard.from_json(json.loads(json.dumps(before)))))
        found = [f"{path}: {line}" for line in lost(before, after, "")]
        wrong += found
        # Check this check: an option that no panel has must be reported for each panel.
        for panel in [p for row in before["panels"] for p in [row, *row.get("panels", [])] if p["type"] != "row"]:
            panel["options"]["colour"] = "red"
        after = json.loads(JSONEncoder().encode(Dashboard.from_json(json.loads(json.dumps(before)))))
        strange = [line for line in lost(before, after, "") if line.endswith("options.colour is lost")]
        panels = sum(1 for row in before["panels"] for p in [row, *row.get("panels", [])] if p["type"] != "row")
        if len(strange) != panels:
            wrong.append(f"{path}: an unknown option goes unnoticed in {panels - len(strange)} of {panels} panels")
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
