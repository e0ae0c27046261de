"""``udvla train vision | actions | policy``: the three trainings, in the order they are run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from udvla_ros.cli import train_vision


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``train`` with its three subcommands."""
    parser = subparsers.add_parser("train", help="train the vision tokeniser, the action tokeniser or the policy")
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    train_vision.register(kinds)
    _register_actions(kinds)
    _register_policy(kinds)


def _register_actions(kinds: argparse._SubParsersAction) -> None:
    parser = kinds.add_parser("actions", help="fit the normaliser and the FAST tokeniser")
    parser.add_argument("--data", type=Path, required=True, help="folder of episode shards")
    parser.add_argument("--output", type=Path, required=True, help="folder to write (a bundle's action/)")
    parser.add_argument("--vocabulary", type=int, default=512, help="FAST codes (default %(default)s)")
    parser.add_argument("--scale", type=float, default=8, help="quantiser steps per unit (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=run_actions)


def _register_policy(kinds: argparse._SubParsersAction) -> None:
    parser = kinds.add_parser(
        "policy",
        help="train the policy: stage (i) future images, stage (ii) JD3P",
        description="Writes --output: tokens/, log.jsonl, predictions.png, checkpoint.pt and bundle/. "
        "Run it again with the same values to go on after a kill.",
    )
    parser.add_argument("--data", type=Path, required=True, nargs="+", help="folders of episodes")
    parser.add_argument("--vision", type=Path, help="vision/ of `udvla train vision`; not with keep_layout")
    parser.add_argument("--actions", type=Path, help="folder of `udvla train actions`; not with keep_layout")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--start", type=Path, metavar="BUNDLE", help="begin from this bundle's weights (fine-tuning)")
    parser.add_argument("--config", type=Path, help="training file (default config/training/nano.yaml)")
    parser.add_argument("--tokens", type=Path, help="tokens/ of another run on the same data and tokenisers")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="change a value of the training file, such as attention=causal or training.omega=0.3",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, help="optimiser steps, stage (i) included")
    parser.add_argument("--minutes", type=float, help="time budget; the learning rate falls over it")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--compile", action="store_true", default=None, help="torch.compile the decoder")
    parser.add_argument("--export", action="store_true", help="write bundle/ from the last checkpoint and stop")
    parser.set_defaults(run=run_policy)


def run_actions(args: argparse.Namespace) -> int:
    """Fit and save, and print the round trip's scores."""
    from udvla_ros.training.tokenize import fit_actions

    fast, normalizer, scores = fit_actions(args.data, args.vocabulary, args.scale, seed=args.seed)
    fast.save(args.output)
    normalizer.save(args.output, "udvla")
    print(json.dumps(scores))
    return 0


def run_policy(args: argparse.Namespace) -> int:
    """Train to the end and write the bundle."""
    from udvla_ros.training.memory import keep_freed_memory

    keep_freed_memory()  # before torch allocates anything
    import torch

    from udvla_ros.resources import find
    from udvla_ros.training.policy import PolicyRun, Recipe

    if args.threads:
        torch.set_num_threads(args.threads)
    config = args.config or find("config/training/nano.yaml")
    changes = {key: getattr(args, key) for key in ("steps", "minutes", "batch", "seed", "compile")}
    recipe = Recipe.load(config, args.settings, **changes)
    run = PolicyRun(recipe, args.data, args.vision, args.actions, args.output, args.tokens, args.start)
    if args.export:
        run.trainer.resume()
        path = run.export()
    else:
        path = run.run()
    print(f"wrote {path}")
    return 0
