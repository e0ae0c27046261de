"""``udvla bench gpu``: everything worth knowing of a GPU in one run."""

from __future__ import annotations

import argparse
from pathlib import Path

from udvla_ros.cli.data import positive


def register(kinds: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = kinds.add_parser(
        "gpu",
        help="what a GPU gives: right tokens, waits, speed by stage, memory",
        description="Compare tokens with the CPU's, list what makes the host wait, and time the published model's size "
        "with random weights in every way it can be run. Exit code 1 where a section failed or tokens differ.",
    )
    parser.add_argument("--bundle", default="udvla-nano-ur5e", help="trained bundle for tokens (default: %(default)s)")
    parser.add_argument("--backbone", default="emu3-8b", choices=["nano", "small", "base", "emu3-8b"])
    parser.add_argument("--layout", default="calvin", choices=["nano", "calvin", "libero", "ur5e-256"])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try the command itself")
    parser.add_argument("--repeat", type=positive, default=10, help="chunks per row (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=8.0, help="begin nothing after that (default: %(default)s)")
    parser.add_argument(
        "--json", type=Path, default=Path("runs/bench/gpu.json"), metavar="FILE",
        help="report; a page of the same name with .md lies beside it (default: %(default)s)",
    )  # fmt: skip
    parser.set_defaults(run=run_gpu)


def run_gpu(args: argparse.Namespace) -> int:
    """Measure, write report and page."""
    from udvla_ros.evaluation import report
    from udvla_ros.model.checkpoint import checked_device
    from udvla_ros.proving.bench import gpu_bench
    from udvla_ros.resources import find

    device = checked_device(args.device)
    bench = gpu_bench.Bench(device, str(find(args.bundle)), args.backbone, args.layout, args.repeat, args.minutes)
    values = gpu_bench.run(bench)
    print(f"report: {report.write_report(args.json, {**values, 'command': report.command_line()})}")
    page = args.json.with_suffix(".md")
    page.write_text(gpu_bench.page(values))
    print(f"page: {page}")
    failed = any("failed" in values[name] for name in gpu_bench.SECTIONS)
    differ = any(row["same"] < row["chunks"] for row in values["tokens"].values() if isinstance(row, dict))
    return 1 if failed or differ else 0
