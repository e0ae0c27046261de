"""``udvla eval monitor``: how well the foresight monitor tells failures, over disturbed episodes in simulation."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from udvla_ros.cli.data import positive


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``eval monitor``."""
    parser = subparsers.add_parser(
        "monitor",
        help="how well the foresight monitor tells failures",
        description="Run episodes in simulation in which something goes wrong, score them as on an arm, and report "
        "AUROC per score and kind, false alarms, lead time, and what a helper who is called at an alarm is worth.",
    )
    add_watching(parser)
    parser.add_argument("--seed", type=int, default=60_000, help="first scene (default: %(default)s)")
    parser.add_argument("--plain", type=positive, default=300, help="undisturbed episodes (default: %(default)s)")
    parser.add_argument("--each", type=positive, default=50, help="episodes of each disturbance (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="KINDS", help="disturbances, separated by commas (default: all)")
    parser.add_argument("--helped", type=int, default=20, help="of each, again with a helper (default: %(default)s)")
    parser.add_argument("--episodes", type=Path, nargs="*", metavar="FILE", help="episodes.jsonl in place of new ones")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: runs/eval_monitor/<time>; one that was begun goes on"
    )
    parser.set_defaults(run=run)


def add_watching(parser: argparse.ArgumentParser) -> None:
    """Add what concerns the episodes themselves."""
    parser.add_argument("--bundle", default="models/udvla-nano-ur5e", help="folder (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--workers", type=positive, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads of each (default: %(default)s)")


def collect(
    args: argparse.Namespace, counts: dict[str, int], kept: Path, of: str, watch: Any = None, helps: bool = False
) -> list[Any]:
    """Run watched episodes with a progress bar and return them; those that ``kept`` holds already are not run again."""
    from tqdm import tqdm

    from udvla_ros.evaluation.cases import Trial, trained_kinds, trained_sentences
    from udvla_ros.evaluation.closed_loop import LoopOptions
    from udvla_ros.evaluation.suite import SuiteOptions
    from udvla_ros.evaluation.watch.proof import watched_cases
    from udvla_ros.evaluation.watch.runs import Watching, watch_parallel
    from udvla_ros.monitor.episode import begun

    trial = Trial(sentences=trained_sentences(args.bundle))
    cases = watched_cases(counts, args.seed, trained_kinds(args.bundle), trial)
    found = {episode.key: episode for episode in begun(kept, of)}
    left = [case for case in cases if case.key not in found]
    # A chunk comes one control step late, as on an arm.
    suite = SuiteOptions(args.bundle, args.device, args.threads, loop=LoopOptions(execute=4, latency=1))
    with (
        tqdm(total=len(cases), initial=len(cases) - len(left), unit="episode", smoothing=0.05) as bar,
        kept.open("a", encoding="utf-8") as file,
    ):

        def done(episode: Any) -> None:
            episode.of = of
            found[episode.key] = episode
            file.write(episode.line())
            file.flush()
            bar.update()

        if left:
            watch_parallel(Watching(suite, watch, helps), left, args.workers, done)
    return [found[case.key] for case in cases]


def run(args: argparse.Namespace) -> int:
    """Measure, print the table, and write ``report.json``, ``episodes.jsonl`` and a picture."""
    from udvla_ros.evaluation.report import command_line, run_folder, write_report
    from udvla_ros.evaluation.watch import proof
    from udvla_ros.evaluation.watch.disturbances import KINDS
    from udvla_ros.monitor.calibration import Calibration
    from udvla_ros.monitor.episode import read_episodes
    from udvla_ros.monitor.watch import Watch
    from udvla_ros.policy.policy import Policy
    from udvla_ros.resources import find

    calibration = Calibration.load(find(args.bundle), Policy.load(args.bundle).hash)
    kinds = [kind for kind in args.only.split(",") if kind] or [kind for kind in KINDS if kind != "plain"]
    counts = {"plain": args.plain, **dict.fromkeys(kinds, args.each)}
    folder = run_folder("eval_monitor", args.out)
    of = f"bundle {calibration.bundle[:12]}"
    if args.episodes:
        episodes = [episode for path in args.episodes for episode in read_episodes(path)]
    else:
        episodes = collect(args, counts, folder / "episodes.jsonl", of)
    report = proof.prove(episodes, calibration)
    if args.helped:
        few, watch = {kind: min(args.helped, n) for kind, n in counts.items()}, Watch(calibration)
        of += f", helped at {watch.threshold:.4f}"
        helped = collect(args, few, folder / "helped.jsonl", of, watch, True)
        report["help"] = proof.help_report(episodes, helped)
    report = {"command": command_line(), "bundle": {"hash": calibration.bundle}, **report}
    write_report(folder / "report.json", report)
    proof.picture(report, episodes, folder / "auroc.png")
    (folder / "table.md").write_text(proof.text(report) + "\n", encoding="utf-8")
    print(proof.text(report))
    print(f"wrote {folder}/report.json, table.md, auroc.png, episodes.jsonl")
    return 0
