"""``udvla train vision``: train the vision tokeniser on recorded episodes."""

from __future__ import annotations

import argparse
from pathlib import Path


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``vision`` and its options."""
    parser = subparsers.add_parser(
        "vision",
        help="train the vision tokeniser",
        description="Train a small Emu3 vision tokeniser on the frames of recorded episodes. Writes vision/ "
        "(config.json, model.safetensors), report.json, metrics.jsonl and pictures of held-out frames.",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of episode shards (udvla data generate)")
    parser.add_argument("--output", type=Path, help="default: runs/train-vision/<time>")
    parser.add_argument("--minutes", type=float, help="time budget; the learning rate falls over it (default 24)")
    parser.add_argument("--steps", type=int, help="step budget, beside or instead of --minutes")
    parser.add_argument("--episodes", type=int, help="read at most so many episodes (default: all)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --output")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="begin from the tokeniser in this vision/ folder")
    parser.add_argument("--codes", type=int, default=512, help="size of the codebook (default %(default)s)")
    parser.add_argument("--base", type=int, default=32, help="channels at full resolution, a multiple of 32")
    parser.add_argument(
        "--multipliers",
        type=lambda text: tuple(int(part) for part in text.split(",")),
        default=(1, 1, 2, 2),
        help="channels per level in units of --base; each further level halves the sides (default 1,1,2,2)",
    )
    parser.add_argument("--batch", type=int, default=48, help="crops in a step (default %(default)s)")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate at its highest (default %(default)s)")
    parser.add_argument(
        "--stability",
        type=float,
        default=0.0,
        metavar="WEIGHT",
        help="ask unchanged patches to keep their latents from frame to frame (try 2; default: do not)",
    )
    parser.add_argument(
        "--merge-every",
        type=int,
        default=0,
        metavar="STEPS",
        help="merge codes that mean the same every so many steps (try 25; default: never)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, and print one line of scores."""
    from udvla_ros.training.memory import keep_freed_memory

    keep_freed_memory()  # before torch allocates anything
    import json
    import time

    import torch

    from udvla_ros.tokens.vision import VisionTokenizer
    from udvla_ros.training.vq import VqOptions, VqTrainer
    from udvla_ros.training.vq_data import load_data
    from udvla_ros.training.vq_metrics import headline

    if args.threads:
        torch.set_num_threads(args.threads)
    options = VqOptions(
        minutes=args.minutes if args.minutes or args.steps else 24.0,
        steps=args.steps,
        batch=args.batch,
        rate=args.rate,
        seed=args.seed,
        base=args.base,
        multipliers=args.multipliers,
        codes=args.codes,
        stability=args.stability,
        merge_every=args.merge_every,
    )
    data = load_data(args.data, args.episodes)
    for name, images in data.train.items():
        print(
            f"{name}: {len(images)} frames of {images.shape[1]}x{images.shape[2]}, {len(data.held_out[name])} held out",
            flush=True,
        )
    output = args.output or Path("runs/train-vision") / time.strftime("%Y-%m-%d_%H-%M-%S")
    start = VisionTokenizer.load(args.start) if args.start else None
    trainer = VqTrainer(data, options, output, resume=args.resume, start=start)
    _link_latest(output)
    report = trainer.run()
    print(f"{headline(report)}\nwrote {output / 'vision'}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _link_latest(output: Path) -> None:
    """Point ``latest`` beside the run at it; a real folder of that name is left alone."""
    link = output.parent / "latest"
    if link.is_symlink() or not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(output.name)
