"""Forwards that are recorded once and then started as one: CUDA graphs, compiled or not; and the compiler on a CPU.

A recording belongs to one span and one cache. ``compile: auto`` decides by the clock, on this machine, at warm-up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from udvla_ros.model.sequence import Part, Span

log = logging.getLogger(__name__)

Forward = Callable[[Tensor, Span, Tensor], Tensor]


class Replay:
    """Recorded forwards of one decoder; ``said`` tells what was chosen and why."""

    def __init__(self, graphs: bool = True, compile: str = "off") -> None:
        self.graphs, self.compile = graphs, compile
        self.forwards: dict[tuple, Forward] = {}
        self.said: list[str] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> Replay:
        """Return one without recordings: they belong to the weights that were recorded."""
        return Replay(self.graphs, self.compile)

    def find(self, span: Span, buffer: Tensor) -> Forward | None:
        """Return what was recorded for this span and cache."""
        return self.forwards.get(_key(span, buffer)) if self.forwards else None

    def record(self, decoder: Callable[..., Tensor], span: Span, buffer: Tensor) -> None:
        """Decide how the forward over a span is run.

        On a GPU it becomes a graph, unless ``graphs`` is off. The compiler is asked where ``compile`` says so, for
        single samples, which is what a policy at work decodes; it takes up to a minute. Whatever fails, or says
        something else than the plain forward, is not taken, with a word.
        """
        key, batch = _key(span, buffer), buffer.shape[2]
        compile = "off" if batch != 1 else self.compile
        graphs = self.graphs and buffer.device.type == "cuda"
        if key in self.forwards or (compile == "off" and not graphs):
            return
        ids = torch.zeros(batch, span.last - span.first, dtype=torch.long, device=buffer.device)
        word = f"rows {span.first} to {span.last}"
        ways: dict[str, Forward] = {"plain": decoder}
        try:
            if graphs:
                ways["graph"] = Graph(decoder, ids, span, buffer)
            if compile != "off":
                made = compiled(decoder, span)
                fast = Graph(made, ids, span, buffer) if graphs else made
                _check(decoder(ids, span, buffer), [fast(ids, span, buffer) for _ in range(3)][-1])
                ways["compiled"] = fast
        except Exception as error:  # whatever the compiler or the driver lacks: an operator, a compiler, memory
            self._say(
                f"{word} run without {'a graph' if len(ways) == 1 and graphs else 'the compiler'}: "
                f"{' '.join(str(error).split())[:200]}"
            )
        best = list(ways)[-1]
        if "compiled" in ways and compile == "auto":
            times = {name: fastest(partial(way, ids, span, buffer), buffer.device) for name, way in ways.items()}
            best = min(times, key=lambda name: times[name])
            each = ", ".join(f"{1e3 * seconds:.2f} ms {name}" for name, seconds in times.items())
            self._say(f"{word}: {each}; {best} is taken")
        if best != "plain":
            self.forwards[key] = ways[best]

    def _say(self, word: str) -> None:
        self.said.append(word)
        log.info(word)


class Graph:
    """A CUDA graph of one span: inputs are copied to fixed places, then all kernels start at once.

    What it returns is overwritten by the next start.
    """

    def __init__(self, forward: Forward, ids: Tensor, span: Span, buffer: Tensor) -> None:
        self.ids, self.given = ids.clone(), span
        self.span = Span(
            span.first,
            span.last,
            span.cos.clone(),
            span.sin.clone(),
            tuple(Part(p.rows, p.keys, None if p.bias is None else p.bias.clone()) for p in span.parts),
        )
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                forward(self.ids, self.span, buffer)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.out = forward(self.ids, self.span, buffer)

    def __call__(self, ids: Tensor, span: Span, buffer: Tensor) -> Tensor:
        """Run it on other ids, and on a span of the same plan."""
        self.ids.copy_(ids)
        if span is not self.given:  # another sentence of the same length, or images of another episode: rarely
            self.span.cos.copy_(span.cos)
            self.span.sin.copy_(span.sin)
            for fixed, new in zip(self.span.parts, span.parts, strict=True):
                if fixed.bias is not None and new.bias is not None:
                    fixed.bias.copy_(new.bias)
            self.given = span
        self.graph.replay()
        return self.out


def compiled(decoder: Callable[..., Tensor], span: Span) -> Forward:
    """Return the forward over spans of this plan as the compiler makes it."""
    first, last, parts = span.first, span.last, span.parts

    def flat(ids: Tensor, cos: Tensor, sin: Tensor, biases: tuple[Tensor | None, ...], buffer: Tensor) -> Tensor:
        given = tuple(Part(p.rows, p.keys, added) for p, added in zip(parts, biases, strict=True))
        return decoder(ids, Span(first, last, cos, sin, given), buffer)

    made = torch.compile(flat, dynamic=False)

    def forward(ids: Tensor, span: Span, buffer: Tensor) -> Tensor:
        return made(ids, span.cos, span.sin, tuple(p.bias for p in span.parts), buffer)

    return forward


def _key(span: Span, buffer: Tensor) -> tuple:
    return span.first, span.last, span.plan, buffer.data_ptr(), tuple(buffer.shape)


def _check(plain: Tensor, fast: Tensor) -> None:
    tolerance = 1e-3 if plain.dtype == torch.float32 else 5e-2
    if not torch.allclose(plain, fast, rtol=tolerance, atol=tolerance * 10):
        raise RuntimeError("its result differs")


def fastest(run: Callable[[], object], device: torch.device, repeat: int = 5) -> float:
    """Return the seconds of the fastest run after one that warms up."""
    best = float("inf")
    for number in range(repeat + 1):
        _wait(device)
        started = time.perf_counter()
        run()
        _wait(device)
        if number:
            best = min(best, time.perf_counter() - started)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
