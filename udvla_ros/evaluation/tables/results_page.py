"""The page of results: every table with its picture, its answers, its commands and its hashes, and nothing else.

Each line of it is made from the JSON of ``udvla eval table`` or ``udvla eval``; pictures are drawn from the same
JSON, and a copy of it lies beside the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from udvla_ros.errors import ConfigError
from udvla_ros.evaluation.report import write_report
from udvla_ros.evaluation.tables import table_plot, table_text
from udvla_ros.evaluation.tables.table_text import rate

Result = dict[str, Any]


def read(path: Path) -> Result:
    """Read one report and check that its rates are those of its episodes.

    Raises:
        ConfigError: it is no report of ``udvla eval table`` or ``udvla eval``, or its numbers were changed.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        wrong = _wrong_row(result) if "table" in result else _wrong_task(result)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} is no report of udvla eval table or udvla eval ({reason})") from None
    if wrong:
        raise ConfigError(f"{path}: the successes of {wrong} are not those of its episodes; measure again")
    return dict(result)


def _wrong_row(result: Result) -> str:
    for row in result["rows"]:
        for task in result["tasks"]:
            won = "".join(each[task] for each in row["won"].values())
            part = row["success"][task]
            if (part["successes"], part["episodes"]) != (won.count("1"), len(won)):
                return f"row '{row['name']}', {task}"
    return ""


def _wrong_task(result: Result) -> str:
    for task, part in result["tasks"].items():
        won = [episode["success"] for episode in result["episodes"] if episode["task"] == task]
        if (part["successes"], part["episodes"]) != (sum(won), len(won)):
            return task
    return ""


def write(reports: Mapping[Path, Result], out: Path, command: str) -> list[Path]:
    """Write the page, and beside it, in a folder of its name, each report's JSON and picture.

    Args:
        reports: by the file they came from; sections are in this order.
        out: the page.
        command: that writes it.

    Returns:
        All files written, the page first.
    """
    folder = out.with_suffix("")
    names = _names(reports)
    sections, written = [], []
    for name, result in zip(names, reports.values(), strict=True):
        raw = write_report(folder / f"{name}.json", result)
        written.append(raw)
        if "table" in result:
            picture = table_plot.draw(result, folder / f"{name}.png")
            written.append(picture)
            body = table_text.page(result, f"{folder.name}/{picture.name}")
            sections.append(f"## {result['title']}\n\n{body}\n\n[{raw.name}]({folder.name}/{raw.name})")
        else:
            sections.append(f"## {_title(result)}\n\n{_plain(result)}\n\n[{raw.name}]({folder.name}/{raw.name})")
    text = "\n\n".join(["# Results", f"Written by `{command}`.", *sections]) + "\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    return [out, *written]


def _names(reports: Mapping[Path, Result]) -> list[str]:
    """Return a file name per report: the table's own, else that of its file.

    Raises:
        ConfigError: two of them are the same.
    """
    names = [str(result.get("table") or path.stem) for path, result in reports.items()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ConfigError(f"two reports are called '{twice}'; rename one of the files")
    return names


def _title(result: Result) -> str:
    options = result["options"]
    held_out = ", held-out phrasings" if options.get("held_out") else ""
    condition = f", {options['condition']}" if options.get("condition", "plain") != "plain" else ""
    return f"{result['bundle']['name']}{held_out}{condition}"


def _plain(result: Result) -> str:
    """Return the section on one report of ``udvla eval``."""
    lines = ["| | success | |", "|---|---:|---|"]
    for task, part in result["tasks"].items():
        steps = f"{part['mean_steps']:g} steps a success" if part["mean_steps"] is not None else ""
        lines.append(f"| {task} | {rate(part)} | {steps} |")
    if "swap" in result:
        for what, part in (("words", result["swap"]["words"]), ("scenes", result["swap"]["scenes"])):
            good = part["right"] if what == "words" else part["followed"]
            told = {**part, "successes": good, "episodes": part["count"]}
            lines.append(f"| swap, {what} | {rate(told)} | |")
    times = result.get("latency_ms", {}).get("total")
    cost = [f"Chunk: p50 {times['p50']:g} ms, p95 {times['p95']:g} ms."] if times else []
    bundle = f"Bundle {result['bundle']['name']}, sha256 `{result['bundle']['hash'][:16]}`."
    return "\n\n".join(["\n".join(lines), *cost, bundle, f"```\n{result['command']}\n```"])


def load(paths: Sequence[Path]) -> dict[Path, Result]:
    """Read several reports, in their order. Raises as :func:`read`."""
    return {path: read(path) for path in paths}
