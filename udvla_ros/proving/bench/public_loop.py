"""The baseline: JD3P as the published code runs it, in our words.

Every step runs text, current images and suffix from the first token to the last, computes float32 logits of the whole
vocabulary at every position, rules out other codebooks by adding a full-size mask of minus infinity to the suffix's,
takes the softmax over all ids, draws every slot from it (``torch.multinomial``), and commits by confidence with Gumbel
noise on the ranking. Size headers, IMG and EOF are generated, image slots may draw them, and slots behind EOA are drawn
like any other. A FAST code that does not decode becomes a chunk of zeros, as there; nothing here is meant for a robot.

Where it is not the published loop: temperature 0 (the arg-max, to compare tokens) is ours; an image slot that holds no
image code is told as open; the slot that stays masked there to the end, whose draw is taken all the same, is committed
in the last step; an EOA in the last slot ends the action and wipes nothing; and the seed is an argument.
"""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import torch

from udvla_ros.decoding.base import OPEN, Call, TokenDecoder
from udvla_ros.decoding.interface import Decoded, DecodeOptions
from udvla_ros.decoding.ranking import joint_count, jointly
from udvla_ros.decoding.schedule import schedule_of
from udvla_ros.errors import TokenError
from udvla_ros.model.checkpoint import Bundle
from udvla_ros.tokens.layout import Prefix

NAME = "public_loop"


class PublicLoop(TokenDecoder):
    """The published loop over one bundle. It ignores what it does not know: schedules, thresholds, the cache."""

    name = NAME

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.backbone, bundle.fast.lattice(bundle.config.layout.action_slots))
        self.fast = bundle.fast
        self.zeros = bundle.fast.encode(np.zeros((bundle.fast.chunk, bundle.fast.dimensions)), clip=True)
        self.malformed = 0

    def __call__(self, prefix: Prefix, options: DecodeOptions, seed: int) -> Decoded:
        """Decode without a cache; what does not decode becomes zeros and is counted."""
        decoded = super().__call__(prefix, dataclasses.replace(options, use_cache=False), seed)
        for row, codes in enumerate(decoded.actions):
            try:
                self.fast.decode(codes)
            except TokenError:
                decoded.actions[row] = self.zeros
                self.malformed += 1
        return decoded

    def write(self, call: Call) -> None:
        """Denoise by one schedule and one ranking over image and action slots, all of both in every forward."""
        call.suffix.mask_frames()
        for step in range(call.options.steps):
            self.step(call, step)
        call.action_ready = time.perf_counter()

    def step(self, call: Call, step: int) -> None:
        """One full forward, one softmax over the vocabulary, one commitment."""
        model, ids, steps = call.model, call.suffix.ids, call.options.steps
        n, v, boundary = call.forwards.length, model.layout.vocabulary, call.forwards.boundary
        logits = model.logits(call.forwards.whole(ids, len(model.suffix_ids)))[:, n - 1 : -1]
        others = torch.full_like(logits, -math.inf)
        others[:, :boundary, v.visual_first : v.visual_first + v.visual_size] = 0.0
        others[:, :boundary, model.suffix_ids[model.frame_slots]] = 0.0
        others[:, boundary:, model.action_rows] = 0.0
        logits += others
        del others
        probabilities = logits.softmax(-1)
        temperature = call.options.temperature
        drawn = probabilities.argmax(-1)
        if temperature > 0:
            flat = probabilities.view(-1, probabilities.shape[-1])
            drawn = torch.multinomial(flat, 1, generator=call.generator).view(drawn.shape)
        confidence = probabilities.gather(-1, drawn[..., None])[..., 0]
        del logits, probabilities
        now = schedule_of(dataclasses.replace(call.options, decoder="jd3p", sampler="published"), steps)[step]
        unknown = ids == v.mask
        keep = joint_count(unknown.sum(1), torch.full_like(ids[:, 0], ids.shape[1]), now.masked)
        taken = jointly(confidence, unknown, keep, now.ranking_temperature, call.generator)
        ids.copy_(torch.where(taken, drawn, ids))
        parts = (taken[:, :boundary], confidence[:, :boundary]), (taken[:, boundary:], confidence[:, boundary:])
        call.note(n + ids.shape[1], *((part.sum(), (part * sure).sum()) for part, sure in parts))
        # Say in codes what the ids are.
        images, action = ids[:, model.visual_slots], ids[:, model.action_slots]
        shown = images - v.visual_first
        call.suffix.visual = torch.where((shown >= 0) & (shown < v.visual_size), shown, OPEN)
        codes = torch.where(action == v.eoa, v.action_size, (action - v.action_first) * v.action_step)
        call.suffix.action = torch.where(action == v.mask, OPEN, codes)
