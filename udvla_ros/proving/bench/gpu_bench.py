"""Everything worth knowing of a GPU in one run of some minutes: is it right, what waits, how fast is what.

Sections run one after the other, the most telling first, until the time is used up; one that fails says why in a line
and leaves the others their turn. Each also runs on a CPU with a small model, which is how they are tested.
"""

from __future__ import annotations

import dataclasses
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.evaluation.intervals import stage_percentiles
from udvla_ros.evaluation.timer import Way, device_name, in_turn
from udvla_ros.model.backbone import Backbone
from udvla_ros.model.checkpoint import Bundle
from udvla_ros.model.products import Rounded
from udvla_ros.model.replay import fastest
from udvla_ros.model.runtime import DTYPES, RuntimeOptions
from udvla_ros.policy.policy import Policy
from udvla_ros.proving.bench import machine
from udvla_ros.proving.bench.decode_bench import Contender, _decoded, _equal, _policy, observations
from udvla_ros.proving.bench.random_bundle import random_bundle
from udvla_ros.training.corruption import corrupt
from udvla_ros.training.objective import JD3PObjective
from udvla_ros.training.optimizer import build_optimizers

STEPS = (8, 24)
TRAINED = "base"  # the size whose training step is timed: the optimiser of 8 B does not fit one GPU


@dataclass
class Bench:
    """What a run works with.

    Attributes:
        device: where.
        bundle: folder of a trained bundle, for tokens that mean something.
        backbone, layout: names of the random bundle whose speed is measured.
        repeat: chunks per row.
        minutes: after which no section is begun.
    """

    device: torch.device
    bundle: str
    backbone: str = "emu3-8b"
    layout: str = "calvin"
    repeat: int = 10
    minutes: float = 8.0
    began: float = field(default_factory=time.monotonic)
    _large: Bundle | None = None

    def left(self) -> float:
        """Seconds until no section is begun."""
        return 60 * self.minutes - (time.monotonic() - self.began)

    def large(self, runtime: RuntimeOptions, fresh: bool = False) -> Policy:
        """Return the random bundle, run as told; ``fresh``: with weights of its own, which may be rounded."""
        runtime = runtime.on(self.device)
        if self._large is None:
            self._large = random_bundle(self.backbone, self.layout, dtype=runtime.dtype, device=self.device)
        bundle = self._large
        if fresh:
            self._large = None  # one at a time in memory
            config = bundle.config
            del bundle.backbone
            made = Backbone(config.backbone, config.layout, config.attention, False, self.device, DTYPES[runtime.dtype])
            bundle.backbone = made.eval()
        bundle.backbone.run_as(runtime)
        return Policy(bundle)


def tokens(bench: Bench) -> dict[str, Any]:
    """Whether greedy tokens of the trained bundle in float32 are the CPU's; draws are another generator's there."""
    there, here = (
        Policy.load(bench.bundle, device, runtime=RuntimeOptions(dtype="float32")) for device in (bench.device, "cpu")
    )
    found: dict[str, Any] = {}
    every: dict[str, dict[str, Any]] = {
        "jd3p": {},
        "foresight off": {"foresight": "off"},
        "independent": {"decoder": "independent"},
    }
    for name, changes in every.items():
        options = there.options(temperature=0.0, **changes)
        seen = observations(there.bundle, bench.repeat)
        same = sum(_equal(_decoded(there, one, options), _decoded(here, one, options)) for one in seen)
        found[name] = {"chunks": len(seen), "same": same}
    return found


def waits(bench: Bench) -> dict[str, Any]:
    """Where one chunk makes the host wait for the device: lines of our code, and how often."""
    policy = Policy.load(bench.bundle, bench.device)
    seen = observations(policy.bundle, 1)[0]
    policy.warm_up()
    counted: Counter[str] = Counter()

    def note(*_: Any, **__: Any) -> None:
        ours = [frame for frame in traceback.extract_stack() if "/udvla_ros/" in frame.filename][:-1]
        ours = [frame for frame in ours if "gpu_bench" not in frame.filename]
        if ours:
            counted[f"udvla_ros/{ours[-1].filename.split('/udvla_ros/')[-1]}:{ours[-1].lineno} {ours[-1].line}"] += 1

    if bench.device.type != "cuda":
        return {"skipped": "a CPU waits for nobody"}
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            chunk = policy.infer(seen)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return {"steps": len(chunk.statistics["steps"]), "waits": dict(counted.most_common())}


def _row(bench: Bench, policy: Policy, options: DecodeOptions, repeat: int | None = None) -> dict[str, Any]:
    """Time chunks of a policy: by stage, with memory and what the warm-up took."""
    counter = machine.PeakMemory(bench.device)
    counter.reset()
    began = time.perf_counter()
    seen = observations(policy.bundle, 2)
    for one in seen:
        policy.infer(one, options)
    cold = time.perf_counter() - began
    (chunks,) = in_turn({"": Way(policy, options)}, seen, repeat or bench.repeat).values()
    slots = policy.config.layout.suffix_length
    times = stage_percentiles([chunk.timings_ms for chunk in chunks])
    return {
        "ms": times,
        "warm_up_s": round(cold, 2),
        "memory_mib": counter.mebibytes(),
        "slots_per_second": round(1e3 * slots / times["denoise"]["p50"], 1),
        "said": policy.bundle.backbone.replay.said,
    }


WAYS = {
    "eager": RuntimeOptions(graphs=False),
    "graphs": RuntimeOptions(),
    "compiled": RuntimeOptions(compile="on"),
}


def decoding(bench: Bench) -> dict[str, Any]:
    """The model's chunk at each number of steps: eager, as graphs, compiled."""
    found: dict[str, Any] = {}
    for name, runtime in WAYS.items():
        policy = bench.large(runtime)
        for steps in STEPS:
            if bench.left() > 0:
                found[f"{name}, {steps} steps"] = _row(bench, policy, DecodeOptions(steps=steps, temperature=1.0))
    return found


def rivals(bench: Bench) -> dict[str, Any]:
    """The published loop and one token at a time, at the same size, against ours in the same section."""
    policy = bench.large(WAYS["graphs"])
    found: dict[str, Any] = {}
    for name in ("jd3p", "public_loop", "autoregressive"):
        options = DecodeOptions(name, steps=STEPS[0], temperature=1.0)
        if bench.left() > 0:
            found[name] = _row(bench, _policy(policy, Contender(name, options)), options, 3)
    ours = found["jd3p"]["slots_per_second"]
    return found | {f"times {n}": round(ours / r["slots_per_second"], 2) for n, r in found.items() if n != "jd3p"}


def rounded(bench: Bench) -> dict[str, Any]:
    """The model with weights of 8 bits."""
    found = {}
    for kind in ("int8", "fp8"):
        if bench.left() > 0:
            policy = bench.large(RuntimeOptions(weights=kind), fresh=True)
            found[kind] = _row(bench, policy, DecodeOptions(steps=STEPS[0], temperature=1.0))
    return found


def products(bench: Bench) -> dict[str, Any]:
    """Products of one layer's largest matrix with the rows of a suffix, in TFLOP/s by number type."""
    policy = bench.large(WAYS["graphs"])
    shape, rows = policy.bundle.backbone.shape, policy.config.layout.suffix_length
    width, out = shape.hidden_size, 2 * shape.intermediate_size
    x, weight = (torch.randn(n, width, device=bench.device) for n in (rows, out))
    runs: dict[str, Callable[[], object]] = {}
    for name, dtype in DTYPES.items():
        runs[name] = partial(torch.mm, x.to(dtype), weight.to(dtype).t())
    for kind in ("int8", "fp8"):
        runs[kind] = partial(Rounded(weight.bfloat16(), kind).product, x.bfloat16())
    if bench.device.type == "cuda":
        runs["tf32"] = runs["float32"]
    found = {}
    with torch.inference_mode():
        for name, run in runs.items():
            torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
            seconds = fastest(run, bench.device, 10)
            found[name] = round(2e-12 * rows * width * out / seconds, 3)
    torch.backends.cuda.matmul.allow_tf32 = False
    return {"rows": rows, "width": width, "out": out, "tflops": found}


def images(bench: Bench) -> dict[str, Any]:
    """Image encoding of one observation, in ms."""
    policy = bench.large(WAYS["graphs"])
    seen = observations(policy.bundle, 1)
    took = []
    for _ in range(bench.repeat + 2):
        began = time.perf_counter()
        policy._encode(seen)
        took.append(1e3 * (time.perf_counter() - began))
    return {"p50": round(float(np.percentile(took[2:], 50)), 3), "p99": round(float(np.percentile(took[2:], 99)), 3)}


def training(bench: Bench) -> dict[str, Any]:
    """One step of AdamW in bfloat16 autocast, one prefix with one suffix and one blind block, in ms."""
    bench._large = None
    size = TRAINED if bench.device.type == "cuda" else bench.backbone
    bundle = random_bundle(size, bench.layout if bench.device.type == "cuda" else None, device=bench.device)
    net, layout = bundle.backbone.train(), bundle.config.layout
    objective = JD3PObjective(net)
    (optimizer,) = build_optimizers(net, "adamw", 1e-5, 0.1)
    codes = {view.name: np.zeros((1, view.codes), np.int64) for view in layout.views}
    prefix = layout.prefix([[1]], codes)
    parts = [torch.as_tensor(p, device=bench.device) for p in (prefix.ids, prefix.positions, prefix.modality)]
    target = torch.as_tensor(layout.suffix(codes, [[1, 2]]))
    slots, mask = (net.visual_slots.cpu(), net.action_slots.cpu()), layout.vocabulary.mask
    hidden = corrupt(target, *slots, mask, copies=1, blind=1, generator=torch.Generator().manual_seed(0))
    hidden = hidden[:1].to(bench.device)

    def step() -> None:
        with torch.autocast(bench.device.type, torch.bfloat16):
            losses = objective(*parts, target.to(bench.device), hidden)
        losses.total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    counter = machine.PeakMemory(bench.device)
    counter.reset()
    seconds = fastest(step, bench.device, 3)
    return {"size": size, "ms": round(1e3 * seconds, 2), "memory_mib": counter.mebibytes()}


SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "tokens": tokens,
    "waits": waits,
    "decoding": decoding,
    "images": images,
    "products": products,
    "rivals": rivals,
    "rounded": rounded,
    "training": training,
}


def run(bench: Bench, say: Callable[[str], object] = print) -> dict[str, Any]:
    """Run the sections that there is time for; return the report."""
    cuda = bench.device.type == "cuda"
    report: dict[str, Any] = {
        "device": device_name(bench.device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "capability": ".".join(map(str, torch.cuda.get_device_capability(bench.device))) if cuda else None,
        "backbone": bench.backbone,
        "layout": bench.layout,
        "repeat": bench.repeat,
        "bundle": bench.bundle,
        "options": dataclasses.asdict(RuntimeOptions().on(bench.device)),
    }
    for name, section in SECTIONS.items():
        began = time.monotonic()
        if bench.left() <= 0:
            report[name] = {"skipped": f"the {bench.minutes:g} minutes were used up"}
        else:
            try:
                report[name] = section(bench)
            except Exception as error:  # the next section shall have its turn whatever the driver says to this one
                report[name] = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        why = "".join(f", {key}: {report[name][key]}" for key in ("skipped", "failed") if key in report[name])
        say(f"{name}: {time.monotonic() - began:.0f} s{why}")
    report["minutes"] = round((time.monotonic() - bench.began) / 60, 2)
    return report


def page(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = [
        f"# {report['device']}",
        "",
        f"torch {report['torch']}, CUDA {report['cuda']}, capability "
        f"{report['capability']}; {report['backbone']} with the layout {report['layout']}, random weights; "
        f"{report['minutes']} minutes.",
        "",
    ]
    for name in SECTIONS:
        values = report[name]
        lines += [f"## {(SECTIONS[name].__doc__ or name).splitlines()[0]}", ""]
        timed = {key: row for key, row in values.items() if isinstance(row, dict) and "ms" in row}
        if timed:
            stages = list(next(iter(timed.values()))["ms"])
            lines += ["| | " + " | ".join(f"{s} p50 / p99" for s in stages) + " | slots/s | MiB |"]
            lines += ["|---|" + "---:|" * (len(stages) + 2)]
            for key, row in timed.items():
                cells = " | ".join(f"{row['ms'][s]['p50']:.1f} / {row['ms'][s]['p99']:.1f}" for s in stages)
                lines.append(f"| {key} | {cells} | {row['slots_per_second']:g} | {row['memory_mib']:g} |")
            lines.append("")
        lines += [f"- {key}: {row}" for key, row in values.items() if key not in timed] + [""]
    return "\n".join(lines)
