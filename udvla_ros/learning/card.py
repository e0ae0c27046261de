"""What a child says of itself: a card with data, robot, parent and command, and a picture of the judgement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def text(trained: str, report: Mapping[str, Any]) -> str:
    """Return the card: where the child comes from and how it was judged, before what the training says."""
    data, parent = report["data"], report["parent"]
    robots = ", ".join(f"{name} ({count} episodes)" for name, count in data.get("robots", {}).items()) or "unknown"
    steps = ", ".join(f"{count} {who}" for who, count in data.get("steps_by", {}).items())
    action = data.get("action", {})
    head, _, rest = trained.partition("\n")
    lines = [
        head, "", f"Learnt from {data['episodes']} recorded episodes, starting from `{parent['name']}` "
        f"({parent['hash'][:12]}).", "", "## Where it comes from", "", f"- robot: {robots}",
        f"- cameras: {', '.join(f'{n} {w}x{h}' for n, (h, w) in data['cameras'].items())}",
        f"- actions: {action.get('space')} at {data['control_hz']:g} Hz, chunks of {action.get('chunk')}",
        f"- steps: {steps}", f"- outcomes: {data.get('outcomes')}", f"- command: `{report['command']}`", "",
        "## Judged before it was released", "", report["why"], "", "| | parent | child |", "|---|---|---|",
    ]  # fmt: skip
    child, before = report.get("child") or {}, report.get("parent_errors") or {}
    lines += [f"| {key} | {before.get(key, '-')} | {value} |" for key, value in child.items()]
    return "\n".join(lines) + "\n" + rest


def picture(path: Path, verdict: Mapping[str, Any], log: Path) -> None:
    """Draw the losses over the training, and parent against child, to a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    for name in ("visual", "action"):
        points = [(row["step"], row[name]) for row in rows if row.get(name)]
        if points:
            left.plot(*zip(*points, strict=True), label=name)
    left.set(xlabel="step", ylabel="loss (nats per token)", title="training")
    if left.lines:
        left.legend()
    bars = {
        (who, key): told[key]
        for who in ("parent_errors", "child") if (told := verdict.get(who))
        for key in told if key.endswith("_median") and told[key] is not None
    }  # fmt: skip
    right.bar([f"{who.split('_')[0]}\n{key.removesuffix('_median')}" for who, key in bars], list(bars.values()))
    right.set(title="held-out episodes, open loop: median error")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)
