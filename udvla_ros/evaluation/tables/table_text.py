"""A table in words: Markdown of its rows, its claims, and where the numbers come from. All of it from the JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from udvla_ros.evaluation.tables.table import ALL

Result = Mapping[str, Any]


def markdown(result: Result) -> str:
    """Return the rows as a Markdown table: success by task and over all, the difference, and what a chunk costs."""
    timed = any(row["timing"] for row in result["rows"])
    seeds = any(len(row["by_training_seed"]) > 1 for row in result["rows"])
    compared = any(row["against"] for row in result["rows"])
    tasks = list(result["tasks"])
    reference = next((row["label"] for row in result["rows"] if row["name"] == result["reference"]), "")
    head = ["", *tasks]
    head += ["all tasks"] if len(tasks) > 1 else []
    head += ["by training seed"] if seeds else []
    head += [f"against {reference}, points"] if compared else []
    head += ["tokens/s", "chunk p50, ms", "p95, ms", "forwards"] if timed else []
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    for row in result["rows"]:
        parts = [*tasks, *([ALL] if len(tasks) > 1 else [])]
        cells = [row["label"], *(rate(row["success"][part]) for part in parts)]
        if seeds:
            cells.append(", ".join(percent(each[ALL]["rate"]) for each in row["by_training_seed"].values()) + "%")
        if compared:
            cells.append(points(row["against"][ALL]) if row["against"] else "")
        if timed:
            cells += _cost(row["timing"])
        lines.append(_line(cells))
    return "\n".join(lines)


def _cost(timing: Mapping[str, Any] | None) -> list[str]:
    if not timing:
        return [""] * 4
    times = timing["chunk_ms"]
    return [f"{timing['tokens_per_second']:,.0f}", short(times["p50"]), short(times["p95"]), f"{timing['forwards']:g}"]


def claims(result: Result) -> list[str]:
    """Return each claim with its answer and its numbers as a line of Markdown."""
    return [f"- {claim['claim']}: **{claim['holds']}**{_why(claim)}" for claim in result["claims"]]


def _why(claim: Mapping[str, Any]) -> str:
    if "pairs" in claim:
        apart = claim.get("by_training_seed") or {}
        seeds = f"; by training seed {', '.join(signed(value) for value in apart.values())}" if apart else ""
        return (
            f", difference {points(claim)}; {claim['pairs']} pairs, {claim['only_second']} won by the first alone and "
            f"{claim['only_first']} by the second alone{seeds}"
        )
    if "successes" in claim:
        return f", {rate(claim)}"
    if "ratio" in claim:
        return f", {claim['ratio']:g} times"
    return f", {claim['steps']}" if "steps" in claim else ""


def how(result: Result) -> list[str]:
    """Return how it was measured, a sentence a line."""
    p, timing = result["protocol"], result["timing"]
    first = 1_000_000 + p["seed"]
    late = f", chunks {p['latency']} late" if p["latency"] else ""
    lines = [
        f"Closed loop, {p['episodes']} episodes for each task and training seed, scenes {first} to "
        f"{first + p['episodes'] - 1}, the same for every row; {p['execute']} control steps per chunk{late}, on "
        f"{p['device']}. Rates with 95% Wilson intervals."
    ]
    if any(row["against"] for row in result["rows"]) or any("pairs" in claim for claim in result["claims"]):
        lines.append(
            "Differences over pairs of the same task, scene and training seed: 95% interval of paired rates "
            "(Newcombe 1998), p of the exact two-sided McNemar test."
        )
    if timing:
        lines.append(
            f"Times of {timing['chunks']} single chunks per row, images in to actions out, rows in turn on the same "
            f"{timing['views']} views: {timing['machine']}, device {timing['device']}, CPU threads: "
            f"{timing['threads']}, cores: {timing['cores']}, torch {timing['torch']}, load at the start: "
            f"{timing['load_at_start']:g}. Tokens per second: decoded slots of a chunk by the median denoising. "
            "Forwards: mean per chunk, prefill included."
        )
    return lines


def bundles(result: Result) -> str:
    """Return the bundles as a Markdown table, each once: folder, training seed, hash and rows."""
    users: dict[tuple[str, str, str], list[str]] = {}
    for row in result["rows"]:
        for seed, one in row["bundles"].items():
            users.setdefault((one["folder"], seed, one["hash"]), []).append(row["label"])
    lines = [_line(["bundle", "training seed", "sha256 of config.json", "rows"]), _line(["---"] * 4)]
    for (folder, seed, digest), labels in users.items():
        lines.append(_line([f"`{folder}`", seed, f"`{digest[:16]}`", "; ".join(labels)]))
    return "\n".join(lines)


def commands(result: Result) -> str:
    """Return the command that measured and, each once, those that the table's file names to make the bundles."""
    made = [one["made_by"] for row in result["rows"] for one in row["bundles"].values() if one["made_by"]]
    text = _code([result["command"]])
    if made:
        text += f"\n\nTo make the bundles, as the table's file has it:\n\n{_code([*dict.fromkeys(made)])}"
    return text


def _code(lines: Sequence[str]) -> str:
    return "\n".join(["```", *lines, "```"])


def page(result: Result, picture: str) -> str:
    """Return the whole section on a table, headings aside."""
    parts = [markdown(result), f"![{result['title']}]({picture})", "\n".join(claims(result))]
    parts += ["\n".join(how(result)), "\n".join(f"- {note}" for note in result["notes"])]
    parts += [bundles(result), commands(result)]
    return "\n\n".join(part for part in parts if part)


# -- numbers -------------------------------------------------------------------------------------------


def percent(value: float) -> str:
    """Return a rate in per cent, three digits at most: 97.5, 100."""
    return f"{100 * value:.3g}"


def rate(part: Mapping[str, Any]) -> str:
    """Return ``97.5% (195/200) [94.3, 98.9]``."""
    low, high = part["ci95"]
    return f"{percent(part['rate'])}% ({part['successes']}/{part['episodes']}) [{percent(low)}, {percent(high)}]"


def signed(value: float) -> str:
    """Return a difference of rates in points."""
    return f"{100 * value:+.1f}"


def points(told: Mapping[str, Any]) -> str:
    """Return ``+12.0 [5.1, 18.4], p = 0.002``."""
    low, high = told["ci95"]
    p = f"p = {told['p']:.2g}" if told["p"] >= 1e-4 else "p < 0.0001"
    return f"{signed(told['difference'])} [{signed(low)}, {signed(high)}], {p}"


def short(value: float) -> str:
    """Return milliseconds with three digits, and no fewer than the whole ones."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
