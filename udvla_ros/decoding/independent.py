"""Independent denoising: the images by themselves, then the action (the ablation of arXiv 2511.01718).

Each has its steps, its own schedule and an annealing of its own. While the images are denoised there is no
action slot in the sequence, under whatever attention; the action then watches images that are final.
"""

from __future__ import annotations

from udvla_ros.decoding import jd3p
from udvla_ros.decoding.canvas import CanvasDecoder


class _Run(jd3p.Denoising):
    """The joint loop with the action's steps behind the images' ones."""

    def plan(self) -> tuple[int, int]:
        images = len(self.visual_shares)
        return images + len(self.action_shares), images

    def temperature(self, step: int) -> float:
        shares, first = (self.visual_shares, 0), (self.action_shares, self.first_action)
        own, begin = shares if step < self.first_action else first
        return self.options.temperature * (1 - (step - begin) / len(own))

    def span(self, images_open: bool, actions_due: bool) -> tuple[int, int]:
        if not actions_due:
            return 0, self.model.layout.template.action_start
        return super().span(images_open, actions_due)


class Independent(CanvasDecoder):
    """Image first, then the action."""

    name = "independent"
    canvas = _Run
