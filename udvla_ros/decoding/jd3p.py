"""JD3P: joint discrete denoising of future images and actions (arXiv 2511.01718, section 3.3).

All free slots are MASK. In each step one forward gives p(v0 | v_t, c) and p(a0 | v_t, a_t, c); tokens are drawn for
every open slot, the surest are committed and the rest stays MASK, until after the last step none is left. Images and
action each have a schedule of their own, and the action's steps are the last ones: it settles on images that have
taken shape. What is drawn is restricted to the slot's codebook, and an action to sequences that fill the chunk.

On a GPU nothing waits for the device but what has to: action scores, whose sequence is found on the CPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from udvla_ros.decoding.base import NONE_COMMITTED, OPEN, Call, Committed, TokenDecoder
from udvla_ros.decoding.ranking import choose_apart, choose_jointly, least_confident
from udvla_ros.decoding.samplers import Drawn, draw_action, draw_images, with_frames
from udvla_ros.decoding.sampling import likely
from udvla_ros.decoding.schedule import Schedule, schedules

LIKELY = 64  # codes per image slot whose probability is kept for those who hold the future against what comes


class State:
    """x_t of one call, as codes: OPEN is MASK. The suffix says the same to the model.

    ``visual`` ``[B, V]`` lives on the device, ``action`` ``[B, A]`` on the host where its sequences are found; beside
    each, how sure the model was of what is committed.
    """

    def __init__(self, call: Call) -> None:
        self.suffix, options = call.suffix, call.options
        self.visual, self.action = call.suffix.visual, call.suffix.action.cpu()
        self.visual_confidence = torch.zeros(self.visual.shape, device=self.visual.device)
        self.action_confidence = torch.zeros(self.action.shape)
        # Whether the schedule alone tells how many image slots are open; asking the device would wait for it.
        surest = options.confidence_threshold is None and options.entropy_bound is None
        scheduled = surest and not options.remask and options.sampler != "published"
        self._foretold = scheduled and self.visual.device.type == "cuda"
        as_released = options.sampler == "published"
        self.behind = as_released and options.drawn_behind
        self.frames = call.model.frame_slots[: None if as_released and options.masked_frames and call.foresight else 0]
        if len(self.frames):
            call.suffix.mask_frames()

    def open_images(self, schedule: Schedule, step: int) -> int:
        """Return how many image slots are open before a step, in the sample that has most."""
        if self._foretold:
            return int((schedule[step - 1].masked if step else 1.0) * self.visual.shape[1])
        return int((self.visual == OPEN).sum(1).max())

    def open_frames(self) -> Tensor:
        """Return which of size headers, IMG and EOF are MASK: ``[B, F]``, and F = 0 where they are given."""
        return self.suffix.ids[:, self.frames] == self.suffix.model.layout.vocabulary.mask

    def action_due(self) -> bool:
        """Whether an action slot is to be drawn."""
        return bool((self.action == OPEN).any()) if self.behind else self.action_open()

    def action_open(self) -> bool:
        """Whether any sample still lacks its EOA or a code before it."""
        ended = (self.action == self.suffix.eoa).cumsum(1) > 0
        return bool(((self.action == OPEN) & ~ended).any())

    def commit_images(self, drawn: Drawn, chosen: Tensor, slots: Tensor) -> Committed:
        """Write the chosen tokens of image ``slots`` ``[B, n]``; return how many, and the sum of their confidences.

        Behind the n there are those of the frames, where they are masked.
        """
        n = slots.shape[1]
        for kept, new in ((self.visual, drawn.tokens), (self.visual_confidence, drawn.confidence)):
            kept.scatter_(1, slots, torch.where(chosen[:, :n], new[:, :n], kept.gather(1, slots)))
        self.suffix.write_visual(self.visual)
        if chosen.shape[1] > n:
            self.suffix.write_frames(chosen[:, n:])
        return chosen.sum(), (drawn.confidence * chosen).sum()

    def commit_action(self, drawn: Drawn, chosen: Tensor) -> Committed:
        """As :meth:`commit_images`, of action codes and EOA."""
        self.action = torch.where(chosen, drawn.tokens, self.action)
        self.action_confidence = torch.where(chosen, drawn.confidence, self.action_confidence)
        self.suffix.write_action(self.action.to(self.visual.device))
        return float(chosen.sum()), float(drawn.confidence[chosen].sum())

    def reopen(self, share: float, images: bool, action: bool) -> None:
        """Mask that share of the committed tokens again, the least sure ones of each modality (remasking)."""
        if images:
            again = least_confident(self.visual_confidence, self.visual != OPEN, share)
            self.visual.masked_fill_(again, OPEN)
            self.suffix.write_visual(self.visual)
        if action:
            again = least_confident(self.action_confidence, self.action != OPEN, share)
            self.action = self.action.masked_fill(again, OPEN)
            self.suffix.write_action(self.action.to(self.visual.device))


class JD3P(TokenDecoder):
    """Joint denoising of future images and action."""

    name = "jd3p"
    apart: ClassVar[bool] = False  # whether the images are run without an action in their sequence

    def first_action_step(self, visual: Schedule, action: Schedule) -> int:
        """Return the step at which the action's schedule begins."""
        return max(0, len(visual) - len(action))

    def write(self, call: Call) -> None:
        """Denoise."""
        for _ in self.steps(call):
            pass

    def steps(self, call: Call) -> Iterator[int]:
        """Denoise; yield the number of each step that ran."""
        options, model, forwards, state = call.options, call.model, call.forwards, State(call)
        draws = call.generator, options.entropy_bound is not None
        choose = choose_jointly if options.sampler == "published" else choose_apart
        visual, action = schedules(options)
        first = self.first_action_step(visual, action)
        for step in range(max(len(visual), first + len(action))):
            own = step - first  # of the action's schedule
            count = state.open_images(visual, step) if step < len(visual) else 0
            action_due = own >= 0 and state.action_due()
            framed = state.open_frames()
            frames = state.frames[: None if framed.numel() and framed.any() else 0]
            images_due = count + len(frames) > 0
            if not images_due and not action_due:
                continue

            # One forward over what this step changes or reads; the state at position i - 1 predicts token i.
            masked = state.visual == OPEN
            slots = masked.int().argsort(dim=1, descending=True, stable=True)[:, :count]
            readers = torch.cat([frames, model.action_slots[: None if action_due else 0]]).expand(forwards.batch, -1)
            span = forwards.span(images_due, action_due, self.apart)
            states = forwards(call.suffix.ids, *span, torch.cat([model.visual_slots[slots], readers], 1) - 1)

            # A token for every open slot: v0 ~ p(v | v_t, c) and a0 ~ p(a | v_t, a_t, c).
            images = codes = None
            if call.foreseen is None and count == state.visual.shape[1]:  # nothing is drawn yet
                call.foreseen = likely(states[:, :count], model.visual_head(), LIKELY)
            first_code = count + len(frames)
            if images_due:
                size, waiting = state.visual.shape[1], masked.gather(1, slots)
                images = draw_images(states[:, :count], model.visual_head(), waiting, size, visual[step], *draws)
            if images is not None and len(frames):
                images = with_frames(images, states[:, count:first_code], model, framed)
            if action_due:
                logits = call.action_logits(states[:, first_code:])
                codes = draw_action(logits, state.action, call.lattice, action[own], *draws, state.behind)

            # The surest of them stay, the rest goes back to MASK.
            sure_images, sure_codes = choose(images, codes, call)
            written = [NONE_COMMITTED, NONE_COMMITTED]
            if images is not None:
                written[0] = state.commit_images(images, sure_images, slots)
            if codes is not None:
                written[1] = state.commit_action(codes, sure_codes)
            call.note(forwards.tokens(*span), *written)
            if options.remask:
                again = images is not None and step + 1 < len(visual), codes is not None and own + 1 < len(action)
                state.reopen(options.remask, *again)
            yield step
            if call.action_ready is None and not state.action_open():
                call.action_ready = time.perf_counter()
            if call.action_ready is not None and options.stop_when_ready:
                return
