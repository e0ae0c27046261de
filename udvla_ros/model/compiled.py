"""Whether the compiler helps: decided by the clock, on this machine, at warm-up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from udvla_ros.model.engine import Engine, Sequence, Span

if TYPE_CHECKING:
    from udvla_ros.model.backbone import StaticCache

log = logging.getLogger(__name__)

TRIALS = 5  # timed runs each, with and without the compiler


def choose(engine: Engine, sequence: Sequence, cache: StaticCache, spans: list[tuple[int, int]]) -> None:
    """Decide per span of one sequence whether the compiled forward is taken: ``auto`` by the clock, ``on`` always.

    For single samples, which is what a policy at work decodes; compiling takes up to a minute per span. A
    compiled forward that fails, or says something else than the plain one, is not taken, with a word.
    """
    if engine.runtime.compile == "off" or cache.batch != 1:
        return
    for first, last in spans:
        key = (first, last, cache.batch)
        if key in engine.compiled or first == last:
            continue
        span = sequence.span(first, last)
        ids = torch.zeros(cache.batch, last - first, dtype=torch.long, device=cache.buffer.device)
        try:
            made = _compile(engine, span, ids, cache)
            plain, fast = engine.run(ids, span, cache.buffer, None), None
            for _ in range(3):  # the first runs compile and record
                fast = made(ids, span.cos, span.sin, span.bias, cache.buffer)
            tolerance = 1e-3 if plain.dtype == torch.float32 else 5e-2
            if fast is None or not torch.allclose(plain, fast, rtol=tolerance, atol=tolerance * 10):
                raise RuntimeError("its result differs")
            slow = _seconds(partial(engine.run, ids, span, cache.buffer, None), plain.device)
            quick = _seconds(partial(made, ids, span.cos, span.sin, span.bias, cache.buffer), plain.device)
        except Exception as error:  # whatever the compiler lacks: a C++ compiler, an operator, memory
            _say(engine, f"rows {first} to {last} run without the compiler: {' '.join(str(error).split())[:200]}")
            continue
        word = f"rows {first} to {last}: {1e3 * quick:.2f} ms compiled, {1e3 * slow:.2f} ms plain"
        if quick < slow or engine.runtime.compile == "on":
            engine.compiled[key] = made
            _say(engine, f"{word}; compiled is taken")
        else:
            _say(engine, f"{word}; plain is taken")


def _compile(engine: Engine, span: Span, ids: Tensor, cache: StaticCache) -> Callable[..., Tensor]:
    first, last = span.first, span.last

    def forward(ids: Tensor, cos: Tensor, sin: Tensor, bias: Tensor | None, buffer: Tensor) -> Tensor:
        return engine.run(ids, Span(first, last, cos, sin, bias), buffer, None)

    made = torch.compile(forward, dynamic=False)
    if ids.device.type != "cuda":
        return made
    return _Graph(made, ids, span, cache)


def _say(engine: Engine, word: str) -> None:
    engine.said.append(word)
    log.info(word)


class _Graph:
    """A CUDA graph of one span: inputs are copied to fixed places, then all kernels start at once."""

    def __init__(self, forward: Callable[..., Tensor], ids: Tensor, span: Span, cache: StaticCache) -> None:
        self.buffer = cache.buffer
        self.inputs = [
            part.clone() if isinstance(part, Tensor) else None for part in (ids, span.cos, span.sin, span.bias)
        ]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                forward(*self.inputs, self.buffer)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.out = forward(*self.inputs, self.buffer)
        self.forward = forward

    def __call__(self, ids: Tensor, cos: Tensor, sin: Tensor, bias: Tensor | None, buffer: Tensor) -> Tensor:
        given = (ids, cos, sin, bias)
        alike = all((a is None) == (b is None) for a, b in zip(given, self.inputs, strict=True))
        if buffer is not self.buffer or not alike:
            return self.forward(*given, buffer)
        for fixed, new in zip(self.inputs, given, strict=True):
            if fixed is not None and new is not None:
                fixed.copy_(new)
        self.graph.replay()
        return self.out.clone()


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Return the fastest of some runs."""
    best = float("inf")
    for _ in range(TRIALS):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return best
