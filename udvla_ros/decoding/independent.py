"""Independent denoising: the images by themselves, then the action (the ablation of arXiv 2511.01718).

While the images are denoised there is no action slot in the sequence, under whatever attention; the action then
watches images that are final.
"""

from __future__ import annotations

from udvla_ros.decoding.jd3p import JD3P
from udvla_ros.decoding.schedule import Schedule


class Independent(JD3P):
    """The joint loop with the action's steps behind the images' ones."""

    name = "independent"
    apart = True

    def first_action_step(self, visual: Schedule, action: Schedule) -> int:
        """Return the step behind the images' last one."""
        return len(visual)
