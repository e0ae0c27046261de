"""``udvla eval table``: trained bundles and ways of decoding against each other, on the same episodes."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from udvla_ros.cli.data import positive
from udvla_ros.errors import ConfigError

if TYPE_CHECKING:
    from udvla_ros.evaluation.store import Store
    from udvla_ros.evaluation.tables.table_run import Identity
    from udvla_ros.evaluation.tables.table_spec import TableSpec

TIMED = 40  # chunks per row


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``eval table``."""
    parser = subparsers.add_parser(
        "table",
        help="compare bundles and decoders row by row, on the same episodes",
        description="Run every row of a table in closed loop over the same scenes, and time single chunks of all rows "
        "in turn. Writes table.json, a Markdown table and a picture. What was measured is kept in --out: run again "
        "with the same values, it goes on where it was.",
    )
    parser.add_argument("file", metavar="FILE", help="of a table, or its name in config/evaluation, such as decoders")
    parser.add_argument("--episodes", type=positive, default=100, help="per task and training seed (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="first scene, counted from 1000000 (default: 0)")
    parser.add_argument("--workers", type=positive, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--batch", type=positive, default=8, help="worlds in one process (default: %(default)s)")
    parser.add_argument("--execute", type=positive, default=4, help="control steps between observations (default: 4)")
    parser.add_argument("--latency-steps", type=int, default=0, help="control steps a chunk is late (default: 0)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--threads", type=positive, help="CPU threads of inference (default: torch's choice)")
    parser.add_argument(
        "--chunks", type=int, default=TIMED, help="timed per row, after the episodes; 0: none (default: %(default)s)"
    )
    parser.add_argument("--only", metavar="ROW", help="run only these (commas between); others join as far as they are "
                        "on disk")  # fmt: skip
    parser.add_argument("--skip-missing", action="store_true", help="leave out what has no bundle, and say so")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/tables/<name of the table>")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure what is not on disk, and write the table, its picture and its JSON."""
    from tqdm import tqdm

    from udvla_ros.evaluation import report
    from udvla_ros.evaluation.cases import scene_seeds
    from udvla_ros.evaluation.closed_loop import LoopOptions
    from udvla_ros.evaluation.store import Store
    from udvla_ros.evaluation.tables import table, table_bundles, table_claims, table_plot, table_run, table_spec
    from udvla_ros.evaluation.tables import table_text as words

    spec = table_spec.load(args.file)
    table_claims.check(spec)
    scene_seeds(args.episodes, args.seed)
    LoopOptions(args.execute, args.latency_steps)
    only = table_bundles.chosen(spec, args.only)
    folder = args.out or Path("runs/tables") / spec.name
    there, missing = table_bundles.present(spec)
    if not args.skip_missing:
        table_bundles.demand([each for each in missing if each.row in only], spec.source)
    if not there.rows:
        raise ConfigError(f"{spec.source}: none of its bundles is there; {missing[0].text()}")
    left_out = [each.text() for each in missing]
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    tasks = table_bundles.common_tasks(there)
    protocol = table_run.Protocol(
        args.episodes, args.seed, args.execute, args.latency_steps, args.batch, args.workers, args.device, args.threads
    )
    identities, store = table_run.examine(there, args.device), Store(folder / "measured.jsonl")
    runs = sum(len(row.bundles) for row in there.rows if row.name in only)
    with tqdm(total=runs * len(tasks) * args.episodes, unit="ep", mininterval=0.5) as bar:
        measured = table_run.measure(there, tasks, identities, protocol, store, only, bar)
    if not measured:
        raise ConfigError(f"none of the rows {', '.join(only)} could be run: {'; '.join(left_out)}")
    gone = {each.row for each in missing}
    left_out += [
        f"row '{row.name}' has not been run yet: run again with --only {row.name}, or without --only"
        for row in there.rows if row.name not in measured and row.name not in gone
    ]  # fmt: skip
    timing = _timing(there, measured, identities, tasks, args, store) if args.chunks > 0 else None
    result = table.summarise(spec, tasks, identities, measured, protocol, timing, left_out)
    result["claims"] = table_claims.answer(spec, measured, result)
    result["command"] = _command(bool(set(measured) - set(only)))
    written = report.write_report(folder / "table.json", result)
    if args.json:
        report.write_report(args.json, result)
    picture = table_plot.draw(result, folder / f"{spec.name}.png")
    text = folder / f"{spec.name}.md"
    text.write_text(f"# {spec.title}\n\n{words.page(result, picture.name)}\n", encoding="utf-8")
    print(words.markdown(result))
    print("\n".join([*words.claims(result), *(f"- {note}" for note in result["notes"])]))
    print(f"table: {text}\npicture: {picture}\nreport: {args.json or written}")
    return 0


def _command(whole: bool) -> str:
    """Return the command that measures this table; ``whole``: it has rows that an earlier command ran."""
    words = sys.argv[1:]
    if whole:  # without --only, in either way of writing it
        words = [
            word for index, word in enumerate(words)
            if not word.startswith("--only") and (not index or words[index - 1] != "--only")
        ]  # fmt: skip
    return shlex.join(["udvla", *words])


def _timing(
    spec: TableSpec, measured: dict[str, Any], identities: dict[str, dict[int, Identity]], tasks: tuple[str, ...],
    args: argparse.Namespace, store: Store,
) -> dict[str, Any]:  # fmt: skip
    """Return the times of the measured rows, all of one run: those on disk, where they are of these rows."""
    from tqdm import tqdm

    from udvla_ros.evaluation.tables import table_timing

    timed = {row.name: next(iter(identities[row.name].values())) for row in spec.rows if row.name in measured}
    name = table_timing.name_of(timed, args.chunks, args.device, args.threads)
    if known := store.get(name):
        return known
    total = (args.chunks + 2) * table_timing.ways_of(timed)
    with tqdm(total=total, desc="timing", unit="chunk", mininterval=0.5) as bar:
        seen = table_timing.views(tasks)
        timing = table_timing.measure(timed, seen, args.chunks, args.device, args.threads, bar.update)
    return store.put(name, timing)
