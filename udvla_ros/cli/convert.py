"""``udvla convert``: downloaded UD-VLA weights, FAST and Emu3 vision tokeniser into a bundle."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``convert``."""
    parser = subparsers.add_parser(
        "convert",
        help="turn downloaded UD-VLA weights into a bundle",
        description="Read a released checkpoint (sharded safetensors or .bin, Emu3MoE or transformers' format) block "
        "by block, with its text, vision and action tokenisers, and write a bundle. Nothing downloaded is executed. "
        "Run it again to go on where it was cut short.",
    )
    parser.add_argument("released", type=Path, help="folder of the decoder: config.json, weights, emu3.tiktoken")
    parser.add_argument("--vision", type=Path, required=True, metavar="DIR", help="folder of the Emu3 vision tokeniser")
    parser.add_argument("--fast", type=Path, required=True, metavar="DIR", help="folder of the FAST tokeniser")
    parser.add_argument("--norm", type=Path, required=True, metavar="DIR", help="folder of norm_stats.json")
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    parser.add_argument("--setting", help="calvin, libero or bridge (default: what norm_stats.json names)")
    parser.add_argument(
        "--attention", default="merged", choices=("merged", "hybrid", "causal", "bidirectional"),
        help="under which the weights were trained; the released ones: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", default="stored", choices=("stored", "bfloat16", "float16", "float32"),
        help="number type of the decoder's weights (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--shard", type=float, default=5.0, metavar="GB", help="another file after so many GB (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, with a bar; print what it is and where."""
    from tqdm import tqdm

    from udvla_ros.model.runtime import DTYPES
    from udvla_ros.released.convert import Request, convert

    request = Request(
        args.released, args.vision, args.fast, args.norm, args.out, args.setting, args.attention,
        DTYPES.get(args.dtype), int(args.shard * 1e9),
    )  # fmt: skip
    bars: dict[str, Any] = {}

    def progress(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = tqdm(desc=what, total=total, unit="B", unit_scale=True, mininterval=0.5)
        bars[what].update(done - bars[what].n)

    try:
        bundle, said = convert(request, progress)
    finally:
        for bar in bars.values():
            bar.close()
    for line in said:
        print(line, file=sys.stderr)
    print(f"{bundle.name}: attention {bundle.attention}, {len(bundle.parts)} files in {args.out}")
    return 0
