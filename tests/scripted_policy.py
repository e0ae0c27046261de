"""A policy without a model, for tests of the graph: it sways the TCP and predicts what it sees.

``python -m scripted_policy`` is ``policy_node`` with this policy in it.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

from udvla_ros.errors import BundleError, ConfigError, TokenError
from udvla_ros.nodes import policy_node, runtime

DT, STEPS = 0.1, 10


class ScriptedPolicy:
    """Sways up and down; ``spoil`` makes what comes out wrong in one way."""

    def __init__(self, spoil: str = "") -> None:
        self.spoil = spoil
        self.seen: list[SimpleNamespace] = []
        self.warm = False
        self.denoise_ms = 3.0
        self.config = SimpleNamespace(
            name="scripted", cameras=["front", "wrist"], control_hz=1 / DT, chunk=STEPS,
            action_space="tcp_delta",
        )  # fmt: skip
        self.hash = "5c417"

    def options(self, **changes: Any) -> SimpleNamespace:
        """Return the bundle's options, with changes."""
        own = {"steps": 5, "action_steps": None, "temperature": 0.25, "confidence_threshold": None}
        return SimpleNamespace(**own | {"decoder": "jd3p", "foresight": "full"} | changes)

    def unknown_words(self, instruction: str) -> list[str]:
        """Return what it pretends never to have seen."""
        if not instruction.strip():
            raise TokenError("the instruction is empty")
        return [word for word in instruction.split() if word == "antidisestablishment"]

    def warm_up(self, options: Any = None, runs: int = 2) -> None:
        """Remember that it was asked to."""
        self.warm = True

    def infer(self, observation: Any, options: Any, seed: int, previous: Any = None) -> SimpleNamespace:
        """Return one chunk of the sway."""
        self.seen.append(SimpleNamespace(observation=observation, options=options, seed=seed))
        actions = np.zeros((STEPS, 7), np.float32)
        t = observation.stamp + DT * np.arange(1, STEPS + 1)
        actions[:, 2] = 0.012 * np.cos(2 * np.pi * t / 4.0)
        actions[:, 6] = np.sign(np.sin(2 * np.pi * t / 6.0))
        if self.spoil == "nan":
            actions[3, 1] = np.nan
        if self.spoil == "far":
            actions[:, 0] = 0.3
        if self.spoil == "crash":
            raise KeyError("no such layer")
        return SimpleNamespace(
            actions=actions, dt=DT, stamp=observation.stamp, predicted=dict(observation.images),
            statistics={"forwards": 5, "steps": []},
            timings_ms={
                "image_encode": 1.0, "prefill": 2.0, "denoise": self.denoise_ms, "detokenise": 0.5, "total": 6.5,
            },
        )  # fmt: skip


def parts(policy: ScriptedPolicy | None = None) -> dict[str, Any]:
    """Return what ``policy_node.make`` needs to run the scripted policy."""

    def load(bundle: str, device: str, threads: int) -> ScriptedPolicy:
        if not bundle.startswith("scripted"):
            raise BundleError(f"{bundle} has no model.safetensors; train it or name another bundle")
        return policy or ScriptedPolicy(bundle.partition(":")[2])

    def options(made: ScriptedPolicy, values: dict[str, Any]) -> SimpleNamespace:
        if values["decoder"] != "jd3p":
            raise ConfigError(f"decoder is '{values['decoder']}'; known: jd3p")
        return made.options(steps=values["denoise_steps"], temperature=values["temperature"])

    def observe(images: dict[str, np.ndarray], instruction: str, stamp: float) -> SimpleNamespace:
        return SimpleNamespace(images=images, instruction=instruction, stamp=stamp)

    return {"load": load, "options": options, "observe": observe}


def main() -> int:
    """Run the node."""
    return runtime.run(lambda: policy_node.make(**parts()))


if __name__ == "__main__":
    sys.exit(main())
