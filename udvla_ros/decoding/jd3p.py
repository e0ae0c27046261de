"""JD3P: joint discrete denoising of future images and actions (arXiv 2511.01718, section 3.3).

The loop: prefix once into the cache; every free suffix slot MASK, markers pre-filled; then in each step one
forward, one restricted sample per open slot, and the most confident are committed. What is spared is exact:

* only rows of the slot's own codebook, only at open slots, and no other row in the last layer;
* under `hybrid` the images never look at the action, so action slots are run only in the steps that
  denoise them, and once the images are final their keys and values stay in the cache and only the action
  is run.

Beyond the paper: FAST codes have known expanded lengths, so in each step the most probable sequence that
fills the chunk exactly is found, and only its codes are committed. Every chunk then decodes.

On a GPU nothing waits for the device but what has to: action scores, whose sequence is found on the CPU.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch import Tensor

from udvla_ros.decoding.canvas import NONE_COMMITTED, OPEN, Canvas, CanvasDecoder, Committed
from udvla_ros.decoding.interface import DecodeOptions, Guess
from udvla_ros.decoding.sampling import gumbel, least_confident, likely, most_confident, sample_rows
from udvla_ros.decoding.schedule import early_exit, masked_shares
from udvla_ros.tokens.layout import Prefix

LIKELY = 64  # codes per image slot whose probability is kept for those who hold the future against what comes


class Denoising(Canvas):
    """State of one call; a code that is committed stays, unless ``remask`` opens it again.

    ``fixed`` ``[B, A]`` is the action once more, on the host, where its sequences are found.
    """

    def __init__(
        self, decoder: CanvasDecoder, prefix: Prefix, options: DecodeOptions, seed: int, guess: Guess | None = None
    ) -> None:
        super().__init__(decoder, prefix, options, seed, guess)
        self.split = self.cached and self.model.kind.future_exact
        self.images_cached = False
        steps, action_steps = options.steps, options.action_steps or options.steps
        self.action_shares = early_exit(masked_shares(options.schedule, action_steps), options.iterations)
        shares = masked_shares(options.schedule, steps)
        if options.foresight == "sketch":
            self.visual_shares = shares[: math.ceil(steps / 2)][: options.iterations]
        else:
            self.visual_shares = early_exit(shares, options.iterations) if self.foresight else []
        self.total, self.first_action = self.plan()
        self.fixed = np.full(tuple(self.action.shape), OPEN, np.int64)
        self.visual_left = self.visual.shape[1]  # no sample has more open image slots than that
        self.visual_confidence = torch.zeros(self.visual.shape, device=self.visual.device)
        self.action_confidence = np.zeros(self.fixed.shape, np.float32)

    def plan(self) -> tuple[int, int]:
        """Return the number of steps and the first one that denoises the action: it takes the last ones."""
        total = max(len(self.visual_shares), len(self.action_shares))
        return total, total - len(self.action_shares)

    def temperature(self, step: int) -> float:
        """Return the temperature of a step; it anneals to zero."""
        return self.options.temperature * (1 - step / self.total)

    def run(self) -> None:
        """Denoise."""
        for step in range(self.begin(), self.total):
            self.step(step)
            if self.ready is None and not self.actions_open():
                self.ready = time.perf_counter()
            if self.ready is not None and self.options.stop_when_ready:
                break

    def span(self, images_open: bool, actions_due: bool) -> tuple[int, int]:
        """Return the suffix positions whose states this step needs."""
        end = self.ids.shape[1]
        if not self.split:
            return 0, end
        boundary = self.model.layout.template.action_start
        if not actions_due:
            return 0, boundary
        if self.foresight and (images_open or not self.images_cached):
            # The step that runs final images for the first time leaves them in the cache.
            self.images_cached = not images_open
            return 0, end
        return boundary, end

    # -- one step ----------------------------------------------------------------------------------

    def step(self, step: int) -> None:
        """One forward, one sample per open slot, one commitment."""
        images_open = step < len(self.visual_shares) and self.images_open()
        actions_due = step >= self.first_action and self.actions_open()
        if not images_open and not actions_due:
            return
        first, last = self.span(images_open, actions_due)
        slots, outputs = self.outputs(images_open, actions_due)
        states, tokens = self.forward(first, last, outputs), self.forward_tokens(first, last)
        temperature = self.temperature(step)
        count = slots.shape[1]
        visual = action = NONE_COMMITTED
        if images_open:
            visual = self.commit_visual(states[:, :count], slots, step, temperature)
        if actions_due:
            action = self.commit_action(states[:, count:], step - self.first_action, temperature)
        self.note(tokens, visual, action)

    def outputs(self, images_open: bool, actions_due: bool) -> tuple[Tensor, Tensor]:
        """Return the open image slots ``[B, k]`` (of fewer, others fill up) and the positions to be read."""
        none = torch.zeros(self.batch, 0, dtype=torch.long, device=self.ids.device)
        slots, parts = none, []
        if images_open:
            open_slots = self.visual == OPEN
            count = self.visual_left if self.ids.device.type == "cuda" else int(open_slots.sum(1).max())
            slots = open_slots.int().argsort(dim=1, descending=True, stable=True)[:, :count]
            parts.append(self.model.visual_slots[slots] - 1)
        if actions_due:
            parts.append((self.model.action_slots - 1).expand(self.batch, -1))
        return slots, torch.cat(parts, 1)

    def commit_visual(self, states: Tensor, slots: Tensor, step: int, temperature: float) -> Committed:
        """Commit image tokens; return how many and the sum of their confidences."""
        if self.foreseen is None and slots.shape[1] == self.visual.shape[1]:  # nothing is drawn yet
            self.foreseen = likely(states, self.model.visual_head(), LIKELY)
        tokens, confidence = sample_rows(states, self.model.visual_head(), temperature, self.generator)
        before = self.visual.gather(1, slots)
        keep = int(self.visual_shares[step] * self.visual.shape[1])
        left = torch.full((self.batch,), keep, device=slots.device)
        chosen = most_confident(confidence, before == OPEN, left, self.options.confidence_threshold)
        visual = self.visual.scatter(1, slots, torch.where(chosen, tokens, before))
        self.visual_left = min(self.visual_left, keep)
        if self.options.remask and step + 1 < len(self.visual_shares):
            certain = torch.where(chosen, confidence, self.visual_confidence.gather(1, slots))
            self.visual_confidence.scatter_(1, slots, certain)
            again = least_confident(self.visual_confidence, visual != OPEN, self.options.remask)
            visual = visual.masked_fill(again, OPEN)
            self.visual_left += int(self.options.remask * self.visual.shape[1]) + 1
            self.visual_left = min(self.visual_left, self.visual.shape[1])
        self.write_visual(visual)
        return chosen.sum(), (confidence * chosen).sum()

    def commit_action(self, states: Tensor, step: int, temperature: float) -> Committed:
        """Commit action codes and EOA; return how many and the sum of their confidences."""
        log_probs = self.action_logits(states).log_softmax(-1)
        noisy = log_probs
        if temperature > 0:
            noisy = gumbel(log_probs.shape, self.generator, log_probs.device).mul_(temperature).add_(log_probs)
        scores = noisy.cpu().numpy()
        certain = scores if noisy is log_probs else log_probs.cpu().numpy()
        best = self.best_sequences(scores)
        inside = best != OPEN
        confidence = np.exp(np.take_along_axis(certain, best.clip(0)[..., None], -1)[..., 0])
        open_slots = inside & (self.fixed == OPEN)
        keep = np.floor(self.action_shares[step] * inside.sum(1)).astype(np.int64)
        given = (torch.as_tensor(confidence), torch.as_tensor(open_slots), torch.as_tensor(keep))
        chosen = most_confident(*given, self.options.confidence_threshold).numpy()
        self.action_confidence = np.where(chosen, confidence, self.action_confidence)
        fixed = np.where(chosen, best, self.fixed)
        if self.options.remask and step + 1 < len(self.action_shares):
            held = torch.as_tensor(fixed != OPEN)
            again = least_confident(torch.as_tensor(self.action_confidence), held, self.options.remask)
            fixed = np.where(again.numpy(), OPEN, fixed)
        self.fix(fixed)
        return float(chosen.sum()), float(confidence[chosen].sum())

    def fix(self, codes: np.ndarray) -> None:
        """Make ``codes`` ``[B, A]`` the action, here and on the device."""
        self.fixed = codes
        self.write_action(torch.as_tensor(codes, device=self.ids.device))

    def best_sequences(self, scores: np.ndarray) -> np.ndarray:
        """Return ``[B, A]`` codes (EOA is ``action_size``), OPEN behind EOA, around what is committed.

        Raises:
            TokenError: no sequence of the given slots fills the chunk (well-formed decoding only).
        """
        best = np.full(self.fixed.shape, OPEN, np.int64)
        fixed = self.fixed
        if self.options.well_formed:
            for row in range(self.batch):
                codes = self.lattice.best(scores[row], fixed[row])
                best[row, : len(codes) + 1] = [*codes, self.eoa]
        else:
            last = scores.shape[1] - 1 - (fixed[:, ::-1] != OPEN).argmax(1)
            last[(fixed == OPEN).all(1)] = 0
            # What is committed stays, so EOA can no longer come before it.
            before = np.arange(scores.shape[1]) < last[:, None]
            scores = scores.copy()
            scores[before, self.eoa] = -np.inf
            free = np.where(fixed == OPEN, scores.argmax(-1), fixed)
            for row in range(self.batch):
                ends = np.flatnonzero(free[row] == self.eoa)
                length = int(ends[0]) + 1 if len(ends) else free.shape[1]
                best[row, :length] = free[row, :length]
        return best

    def actions_open(self) -> bool:
        """Whether any sample still lacks its EOA or a code before it."""
        ended = (self.fixed == self.eoa).cumsum(1) > 0
        return bool(((self.fixed == OPEN) & ~ended).any())

    def images_open(self) -> bool:
        """Whether any image slot may still be open; a threshold makes it worth asking the device."""
        if self.ids.device.type == "cuda" and self.options.confidence_threshold is None:
            return self.visual_left > 0
        return bool((self.visual == OPEN).any())

    # -- warm start --------------------------------------------------------------------------------

    def begin(self) -> int:
        """Return the first step; under a warm start the guess fills what would be committed by then."""
        if self.expected is None or not self.options.warm_start:
            return 0
        begin = min(int(self.options.warm_start * self.total), self.total - 1)
        step = min(begin, len(self.visual_shares))
        if step and self.visual_shares:
            self.guess_visual(self.visual_shares[step - 1])
        step = begin - self.first_action
        if step > 0 and self.expected.actions is not None:
            self.guess_action(self.expected.actions, self.action_shares[step - 1])
        return begin

    def guess_visual(self, share: float) -> None:
        """Take over guessed image tokens so that ``share`` of all slots stays open."""
        assert self.expected is not None
        guess = torch.as_tensor(self.expected.visual, dtype=torch.long, device=self.ids.device)
        size = self.visual.shape[1]
        drawn = torch.rand(guess.shape, generator=self.generator, device=self.generator.device)
        left = torch.full((self.batch,), int(share * size), device=guess.device)
        known = guess != OPEN
        # Of the slots without a guess nothing can be taken: they count among those that stay open.
        taken = most_confident(drawn, known, (left - (~known).sum(1)).clamp_min(0), None)
        self.write_visual(torch.where(taken, guess, OPEN))
        self.visual_left = size if bool((~known).any()) else int(share * size)

    def guess_action(self, sequences: list[list[int]], share: float) -> None:
        """Take over guessed action codes (and EOA) so that ``share`` of each sequence stays open."""
        drawn = torch.rand(self.fixed.shape, generator=self.generator, device=self.generator.device).cpu()
        guess = np.full(self.fixed.shape, OPEN, np.int64)
        for row, codes in enumerate(sequences):
            guess[row, : len(codes) + 1] = [*codes, self.eoa]
        inside = guess != OPEN
        left = torch.as_tensor(np.floor(share * inside.sum(1)).astype(np.int64))
        taken = most_confident(drawn, torch.as_tensor(inside), left, None).numpy()
        self.fix(np.where(taken, guess, OPEN))


class JD3P(CanvasDecoder):
    """Joint denoising of future images and action."""

    name = "jd3p"
    canvas = Denoising
