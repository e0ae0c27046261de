"""``udvla bench decode``: what a chunk costs, decoder against decoder in one run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from udvla_ros.cli import bench_console, bench_gpu, bench_recorder, bench_safety, bench_soak
from udvla_ros.cli.data import positive
from udvla_ros.errors import ConfigError

if TYPE_CHECKING:
    from udvla_ros.policy import Policy
    from udvla_ros.proving.bench.decode_rows import Report


DECODERS = ("jd3p", "jd3p_uncached", "independent", "autoregressive", "jacobi", "public_loop")
LIGHT = ("jd3p", "jd3p_uncached", "public_loop", "autoregressive", "jacobi")
HEAVY = ("jd3p", "jd3p_uncached", "public_loop")  # where one forward per token would take minutes
BACKBONES = ("nano", "small", "base", "emu3-8b")
LAYOUTS = ("nano", "calvin", "libero", "ur5e-256")


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``bench`` with its subcommands."""
    parser = subparsers.add_parser("bench", help="measure latency and throughput")
    _add_plan(parser)
    parser.set_defaults(run=run_plan, backbone=None, layout=None, json=None)
    kinds = parser.add_subparsers(dest="what", metavar="WHAT")
    decode = kinds.add_parser(
        "decode",
        help="time decoders against each other",
        description="Time one chunk, image encoding and prefill included, decoder against decoder in turn. "
        "Exit code 1 where two decoders that must give the same tokens do not.",
    )
    source = decode.add_mutually_exclusive_group()
    source.add_argument("--bundle", help="folder of a bundle")
    source.add_argument("--backbone", choices=BACKBONES, help="random weights of a size, instead of a bundle")
    decode.add_argument("--layout", choices=LAYOUTS, help="sequence for random weights (default: the size's own)")
    decode.add_argument("--steps", type=positive, default=8, help="denoising steps (default: %(default)s)")
    decode.add_argument("--temperature", type=float, default=0.0, help="of sampling (default: %(default)s)")
    decode.add_argument(
        "--decoders", metavar="NAMES",
        help=f"comma-separated, of {', '.join(DECODERS)} (default: {', '.join(LIGHT)}; from 100 M parameters on the "
        "first three)",
    )  # fmt: skip
    decode.add_argument(
        "--plain-steps", type=positive, metavar="N", help="one more row, plain: jd3p with N steps and nothing else"
    )
    decode.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE",
        help="one more row, options: jd3p with these decoding options (repeatable; steps=4, foresight=sketch, ...)",
    )  # fmt: skip
    decode.add_argument("--repeat", type=positive, default=30, help="chunks per decoder (default: %(default)s)")
    decode.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    decode.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")
    decode.add_argument("--weights", choices=["float", "int8", "fp8"], default="float")
    decode.add_argument("--compile", choices=["off", "auto", "on"], default="off", help="torch.compile, CUDA graphs")
    decode.add_argument("--threads", type=positive, help="CPU threads (default: torch's choice)")
    decode.add_argument("--json", type=Path, metavar="FILE", help="also write the report there")
    decode.add_argument("--plot", type=Path, metavar="FILE", help="also draw it (default: beside the JSON)")
    _add_plan(decode)
    decode.set_defaults(run=run_decode)
    bench_gpu.register(kinds)
    bench_console.register(kinds)
    bench_recorder.register(kinds)
    bench_safety.register(kinds)
    bench_soak.register(kinds)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plan", choices=["gpu"],
        help="measure nothing: compute from counted operations what the 8B model would take on named GPUs",
    )  # fmt: skip


def run_plan(args: argparse.Namespace) -> int:
    """Print the model of what GPUs would take."""
    from udvla_ros.evaluation import report
    from udvla_ros.proving.bench import plan, random_bundle

    if not args.plan:
        raise ConfigError("say what to measure (udvla bench --help lists it), or --plan gpu")
    name, layout = args.backbone or "emu3-8b", args.layout or "calvin"
    values = plan.report(name, layout, random_bundle.geometry(name), random_bundle.published_layout(layout))
    print(plan.table(values))
    if args.json:
        print(f"report: {report.write_report(args.json, {**values, 'command': report.command_line()})}")
    return 0


def run_decode(args: argparse.Namespace) -> int:
    """Measure, print a table, and say whether the tokens agreed."""
    from dataclasses import asdict

    from tqdm import tqdm

    from udvla_ros.decoding.interface import DecodeOptions
    from udvla_ros.evaluation import report
    from udvla_ros.proving.bench import decode_bench

    if args.plan:
        return run_plan(args)
    policy = _policy(args)
    light = policy.bundle.backbone.shape.parameters < 100e6
    names = args.decoders.split(",") if args.decoders else list(LIGHT if light else HEAVY)
    unknown = [name for name in names if name not in DECODERS]
    if unknown:
        raise ConfigError(f"unknown decoder {', '.join(unknown)}; known: {', '.join(DECODERS)}")
    common = DecodeOptions(steps=args.steps, temperature=args.temperature)
    chosen = decode_bench.contenders(names, common, args.plain_steps, _changes(args.option))
    with tqdm(total=(args.repeat + 1) * len(chosen[0]), desc="bench", unit="chunk") as bar:
        result = decode_bench.measure(
            policy, *chosen, args.repeat, random_weights=not args.bundle, progress=bar.update, peak=True
        )
    print(table(result))
    if args.json:
        written = report.write_report(args.json, {**asdict(result), "command": report.command_line()})
        print(f"report: {written}")
    picture = args.plot or (args.json.with_suffix(".png") if args.json else None)
    if picture:
        from udvla_ros.proving.bench import decode_plot

        print(f"plot: {decode_plot.draw(result, picture)}")
    return 1 if any(ratio.same_tokens is False for ratio in result.ratios.values()) else 0


def _policy(args: argparse.Namespace) -> Policy:
    """Load the bundle, or make the size, and set it up as it is to run."""
    from udvla_ros.model.checkpoint import checked_device
    from udvla_ros.model.runtime import RuntimeOptions
    from udvla_ros.policy import Policy
    from udvla_ros.proving.bench.random_bundle import random_bundle

    runtime = RuntimeOptions(args.dtype, args.weights, args.compile, threads=args.threads)
    if args.bundle:
        if args.layout:
            raise ConfigError("a bundle has its own layout; --layout goes with --backbone")
        return Policy.load(args.bundle, args.device, runtime=runtime)
    if not args.backbone:
        raise ConfigError("give --bundle FOLDER or --backbone SIZE")
    device = checked_device(args.device)
    bundle = random_bundle(args.backbone, args.layout, dtype=runtime.on(device).dtype, device=device)
    bundle.backbone.run_as(runtime.on(device))
    return Policy(bundle)


def _changes(pairs: list[str]) -> dict[str, Any]:
    """Read ``name=value`` as fields of the decoding options; values as YAML has them (4, 0.9, true, null, sketch)."""
    import dataclasses

    import yaml

    from udvla_ros.decoding.interface import DecodeOptions

    known = [field.name for field in dataclasses.fields(DecodeOptions) if field.name != "decoder"]
    changes = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name not in known:
            raise ConfigError(f"--option {pair}: give NAME=VALUE; names: {', '.join(known)}")
        # YAML reads a bare off as false, and foresight has an "off".
        changes[name] = value if value in ("off", "on") else yaml.safe_load(value)
    return changes


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
        counted = []
        if row.gflops is not None:
            counted.append(f"{row.gflops:.4g} GFLOP and {row.gbytes:.3g} GB per chunk")
        if row.flops_share is not None:
            counted.append(f"{row.flops_share:.0%} of the peak product, {row.bandwidth_share:.0%} of the peak copy")
        if row.peak_memory_mib is not None:
            counted.append(f"peak memory {row.peak_memory_mib:.0f} MiB")
        lines.append(f"{'':{names}}  {', '.join(counted)}")
    if result.peak_gflops is not None:
        lines.append(
            f"measured here: {result.peak_gflops:.0f} GFLOP/s of a square product, "
            f"{result.peak_gbytes_per_second:.0f} GB/s of a copy"
        )
    lines += result.words
    for name, ratio in result.ratios.items():
        if name == "matmul_share":
            lines.append(f"{name}: plain matrix products of the same shapes take {ratio.decode:.0%} of decoding")
            continue
        said = {True: ", same tokens", False: ", TOKENS DIFFER", None: ""}[ratio.same_tokens]
        tokens = "" if ratio.tokens is None else f", {ratio.tokens:.2f}x tokens per second"
        lines.append(f"{name}: {ratio.decode:.2f}x decoding, {ratio.chunk:.2f}x per chunk{tokens}{said}")
    return "\n".join(lines)
