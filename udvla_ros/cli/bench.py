"""``udvla bench decode``: what a chunk costs, decoder against decoder in one run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from udvla_ros.cli.data import positive

if TYPE_CHECKING:
    from udvla_ros.evaluation.decode_bench import Report


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``bench`` with its subcommands."""
    parser = subparsers.add_parser("bench", help="measure latency and throughput")
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    decode = kinds.add_parser(
        "decode",
        help="time decoders against each other",
        description="Time one chunk, image encoding and prefill included, decoder against decoder in turn. "
        "Exit code 1 where two decoders that must give the same tokens do not.",
    )
    source = decode.add_mutually_exclusive_group(required=True)
    source.add_argument("--bundle", help="folder of a bundle")
    source.add_argument("--backbone", choices=["nano", "small"], help="random weights of a size, instead of a bundle")
    decode.add_argument("--steps", type=positive, default=8, help="denoising steps (default: %(default)s)")
    decode.add_argument("--repeat", type=positive, default=30, help="chunks per decoder (default: %(default)s)")
    decode.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    decode.add_argument("--threads", type=positive, help="CPU threads (default: torch's choice)")
    decode.add_argument("--json", type=Path, metavar="FILE", help="also write the report there")
    decode.set_defaults(run=run_decode)


def run_decode(args: argparse.Namespace) -> int:
    """Measure, print a table, and say whether the tokens agreed."""
    from dataclasses import asdict

    import torch
    from tqdm import tqdm

    from udvla_ros.evaluation import decode_bench, report
    from udvla_ros.evaluation.random_bundle import random_bundle
    from udvla_ros.model.checkpoint import checked_device
    from udvla_ros.policy import Policy

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.bundle:
        policy = Policy.load(args.bundle, args.device)
    else:
        device = checked_device(args.device)
        bundle = random_bundle(args.backbone)
        bundle.backbone.to(device)
        bundle.vision.model.to(device)
        policy = Policy(bundle)
    contenders, comparisons = decode_bench.jd3p_contenders(args.steps)
    with tqdm(total=args.repeat * len(contenders), desc="bench", unit="chunk") as bar:
        result = decode_bench.measure(
            policy, contenders, comparisons, args.repeat, random_weights=not args.bundle, progress=bar.update
        )
    print(table(result))
    if args.json:
        written = report.write_report(args.json, {**asdict(result), "command": report.command_line()})
        print(f"report: {written}")
    return 1 if any(ratio.same_tokens is False for ratio in result.ratios.values()) else 0


def table(result: Report) -> str:
    """Return what people read of a report."""
    weights = " (RANDOM WEIGHTS: times only)" if result.weights == "random" else f" ({result.hash[:12]})"
    lines = [
        f"{result.bundle}{weights}, {result.parameters:,} parameters, attention {result.attention}, "
        f"{result.prefix_tokens} + {result.suffix_tokens} tokens",
        f"{result.device}, {result.threads} threads, {result.machine}, torch {result.torch}, "
        f"{result.repeat} chunks each, ms per chunk",
    ]
    stages = list(result.rows[0].timings_ms)
    names = max(len(row.name) for row in result.rows)
    lines.append(" " * names + "      " + "".join(f"{stage:>14}" for stage in stages))
    for row in result.rows:
        for percentile in ("p50", "p95", "p99"):
            values = "".join(f"{row.timings_ms[stage][percentile]:14.1f}" for stage in stages)
            lines.append(f"{row.name if percentile == 'p50' else '':{names}}  {percentile} {values}")
        lines.append(
            f"{'':{names}}  {row.steps} steps, {row.forwards} forwards, {row.forward_tokens} tokens run, "
            f"{row.slots_per_second:g} slots/s of denoising, {row.chunks_per_second:g} chunks/s, "
            f"cold {row.cold_ms:.0f} ms"
        )
    for name, ratio in result.ratios.items():
        said = {True: ", same tokens", False: ", TOKENS DIFFER", None: ""}[ratio.same_tokens]
        lines.append(f"{name}: {ratio.decode:.2f}x decoding, {ratio.chunk:.2f}x per chunk{said}")
    return "\n".join(lines)
