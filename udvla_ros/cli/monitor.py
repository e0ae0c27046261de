"""``udvla monitor fit``: calibrate the foresight monitor of a bundle."""

from __future__ import annotations

import argparse
from pathlib import Path

from udvla_ros.cli.eval_monitor import add_watching, collect

DISTURBED = 16  # episodes of each disturbance per 100 undisturbed ones: they weigh the scores


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``monitor``."""
    parser = subparsers.add_parser(
        "monitor",
        help="calibrate the foresight monitor",
        description="The monitor holds what was foreseen against what comes. How far apart they are where things go "
        "well is learnt from successful episodes.",
    )
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    fit = kinds.add_parser(
        "fit",
        help="give a bundle's monitor its threshold",
        description="Calibrate by split conformal prediction on successful episodes and write monitor.json into the "
        "bundle: episodes like those raise a false alarm at most as often as was chosen. Failures among them weigh the "
        "scores against each other.",
    )
    fit.add_argument("episodes", type=Path, nargs="*", help="recorded episodes (folders of bags), or episodes.jsonl")
    fit.add_argument("--simulate", type=int, default=0, metavar="N", help="N undisturbed episodes in simulation")
    fit.add_argument("--seed", type=int, default=40_000, help="first simulated scene (default: %(default)s)")
    fit.add_argument("--false-alarms", type=float, default=0.05, help="share of successes (default: %(default)s)")
    fit.add_argument("--patience", type=int, default=1, help="chunks in a row above the threshold (default: 1)")
    fit.add_argument(
        "--keep", type=Path, metavar="FILE", help="of simulated episodes, one that was begun goes on "
        "(default: runs/monitor/<time>/episodes.jsonl)"
    )  # fmt: skip
    add_watching(fit)
    fit.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fit, write the file and say what it means."""
    from udvla_ros.errors import ConfigError
    from udvla_ros.evaluation.report import command_line, run_folder
    from udvla_ros.evaluation.watch.disturbances import KINDS
    from udvla_ros.monitor.calibration import PATIENCE, fit
    from udvla_ros.monitor.episode import read_episodes
    from udvla_ros.policy.policy import Policy
    from udvla_ros.resources import find
    from udvla_ros.rollouts.bags.scores import episodes_of

    if not 1 <= args.patience <= PATIENCE:
        raise ConfigError(f"--patience {args.patience} must lie between 1 and {PATIENCE}")
    if not args.episodes and not args.simulate:
        raise ConfigError("name recorded episodes (folders of bags), or give --simulate 300")
    if args.keep and not args.simulate:
        raise ConfigError("--keep is for simulated episodes: give --simulate 300")
    bundle = Policy.load(args.bundle).hash
    episodes = [
        episode
        for path in args.episodes
        for episode in (read_episodes(path) if path.is_file() else episodes_of(path, bundle))
    ]
    if args.simulate:
        share = max(1, args.simulate * DISTURBED // 100)
        counts = {kind: args.simulate if kind == "plain" else share for kind in KINDS}
        kept = args.keep or run_folder("monitor") / "episodes.jsonl"
        episodes += collect(args, counts, kept, f"bundle {bundle[:12]}")
        print(f"the episodes are in {kept}: --keep {kept} goes on with them")
    made = fit(episodes, bundle, args.false_alarms, args.patience, command_line())
    path = made.save(find(args.bundle))
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in made.weights.items() if weight)
    print(f"{made.successes} successes, {made.failures} failures; weights: {weights}")
    print(f"threshold {made.threshold():.2f} for {made.patience} chunks in a row: at most {made.rate:.0%} false alarms")
    print(f"wrote {path}")
    return 0
