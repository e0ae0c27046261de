"""What a decoder would take on a GPU that is not here: a model from counted operations and data-sheet numbers.

Each forward takes the longer of its operations and its bytes, at a share of the data sheet's peak that large
products and copies usually reach; starting a forward costs a fixed time on top. Nothing is measured: read it as
an order of magnitude and as ratios.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.model.attention import attention_kind
from udvla_ros.proving.bench.cost import Forward, Geometry, cost, forwards
from udvla_ros.tokens.layout import Layout

PRODUCTS, COPIES = 0.6, 0.8  # shares of the peaks that are taken as reached
LAUNCH = 1e-3  # seconds per forward with CUDA graphs, or with a loop that starts kernels far ahead


@dataclass(frozen=True)
class Gpu:
    """Data-sheet numbers: dense 16-bit tensor operations with 32-bit sums, memory bandwidth, memory."""

    name: str
    flops: float
    bandwidth: float
    memory_gb: float
    source: str


GPUS = (
    Gpu("RTX 4090", 165.2e12, 1008e9, 24, "NVIDIA Ada GPU architecture whitepaper, appendix A"),
    Gpu("A100 80GB SXM", 312e12, 2039e9, 80, "NVIDIA A100 data sheet"),
    Gpu("H100 SXM", 989.4e12, 3350e9, 80, "NVIDIA H100 data sheet, without sparsity"),
    Gpu("Jetson AGX Orin 64GB", 42.5e12, 204.8e9, 64, "Jetson AGX Orin technical brief: half of 85 dense int8 TOPS"),
)


@dataclass(frozen=True)
class Planned:
    """One loop on one GPU; ``fits`` whether weights, cache and logits go into its memory."""

    gpu: str
    decoder: str
    steps: int
    forwards: int
    tflops: float
    gbytes: float
    chunk_ms: float
    tokens_per_second: float
    fits: bool


def plan(geometry: Geometry, layout: Layout, steps: tuple[int, ...] = (72, 24, 8)) -> list[Planned]:
    """Return the published loop, ours, and autoregressive decoding on every GPU, weights in 16 bits."""
    hybrid, causal = attention_kind("hybrid"), attention_kind("causal")
    loops: list[tuple[str, int, list[Forward]]] = []
    for count in steps:
        for name in ("public_loop", "jd3p"):
            found = forwards(layout, hybrid, DecodeOptions(decoder=name, steps=count))
            assert found is not None
            loops.append((name, count, found))
    found = forwards(layout, causal, DecodeOptions(decoder="autoregressive"))
    assert found is not None
    loops.append(("autoregressive", 0, found))
    return [_planned(gpu, name, count, every, geometry, layout) for gpu in GPUS for name, count, every in loops]


def _planned(gpu: Gpu, name: str, steps: int, every: list[Forward], geometry: Geometry, layout: Layout) -> Planned:
    seconds, total = 0.0, cost(geometry, every, 2, 2)
    for one in every:
        part = cost(geometry, [one], 2, 2)
        seconds += max(part.flops / (PRODUCTS * gpu.flops), part.bytes / (COPIES * gpu.bandwidth)) + LAUNCH
    length = layout.prefix_length + layout.suffix_length
    kept = 2 * geometry.parameters + 2 * 2 * geometry.layers * geometry.kv_heads * geometry.width * length
    logits = max(4 * rows * codes * (2 if one.passes else 1) for one in every for rows, codes in one.head)
    slots = layout.suffix_length
    return Planned(
        gpu.name,
        name,
        steps,
        total.forwards,
        round(total.flops / 1e12, 2),
        round(total.bytes / 1e9, 1),
        round(1e3 * seconds, 1),
        round(slots / seconds, 1),
        kept + logits < 0.95 * gpu.memory_gb * 1e9,
    )


def report(name: str, layout_name: str, geometry: Geometry, layout: Layout) -> dict[str, Any]:
    """Return the plan with everything it rests on."""
    rows = plan(geometry, layout)
    by = {(row.gpu, row.decoder, row.steps): row for row in rows}

    def ratio(gpu: str, slower: tuple[str, int]) -> float:
        return round(by[(gpu, *slower)].chunk_ms / by[gpu, "jd3p", 24].chunk_ms, 2)

    against = {"jd3p_vs_public_loop": ("public_loop", 24), "jd3p_vs_ar": ("autoregressive", 0)}
    ratios = {gpu.name: {key: ratio(gpu.name, slower) for key, slower in against.items()} for gpu in GPUS}
    return {
        "kind": "MODEL, NOT MEASURED",
        "backbone": name,
        "layout": layout_name,
        "parameters": geometry.parameters,
        "assumptions": {
            "share_of_peak_products": PRODUCTS,
            "share_of_peak_copies": COPIES,
            "seconds_per_forward": LAUNCH,
            "bits": 16,
        },
        "gpus": [asdict(gpu) for gpu in GPUS],
        "rows": [asdict(row) for row in rows],
        "ratios": ratios,
    }


def table(values: dict[str, Any]) -> str:
    """Return what people read of a plan."""
    given = values["assumptions"]
    lines = [
        f"MODEL, NOT MEASURED: {values['backbone']} ({values['parameters']:,} parameters, 16 bits), layout "
        f"{values['layout']}, at {given['share_of_peak_products']:.0%} of the data sheets' products and "
        f"{given['share_of_peak_copies']:.0%} of their bandwidth; image encoding not included",
        f"{'':22}{'loop':>16}{'steps':>7}{'forwards':>10}{'TFLOP':>10}{'GB':>9}{'ms/chunk':>11}{'tokens/s':>10}",
    ]
    for row in values["rows"]:
        lines.append(
            f"{row['gpu']:22}{row['decoder']:>16}{row['steps'] or '':>7}{row['forwards']:>10}{row['tflops']:>10.1f}"
            f"{row['gbytes']:>9.0f}{row['chunk_ms']:>11.0f}{row['tokens_per_second']:>10.0f}"
            + ("" if row["fits"] else "  does not fit its memory")
        )
    for gpu in values["gpus"]:
        ratios = values["ratios"][gpu["name"]]
        lines.append(
            f"{gpu['name']}: {ratios['jd3p_vs_public_loop']:.1f}x the public loop at 24 steps, "
            f"{ratios['jd3p_vs_ar']:.1f}x autoregressive ({gpu['source']})"
        )
    return "\n".join(lines)
