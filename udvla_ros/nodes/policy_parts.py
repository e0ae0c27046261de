"""The parameters of ``policy_node`` and what it makes of them: the policy, its options, its observations.

torch is imported inside the functions: the node declares and refuses its parameters without it.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.nodes.parameters import Entry

TABLE = (
    Entry("bundle", "models/udvla-nano-ur5e", "checkpoint bundle", read_only=True),
    Entry("robot", "config/robots/ur5e_sim.yaml", "robot file", read_only=True),
    Entry("device", "cpu", "where inference runs: cpu, cuda, cuda:0", read_only=True),
    Entry("threads", 0, "CPU threads of inference; 0: all cores but one", 0, 256, read_only=True),
    Entry("autostart", False, "configure and activate at start, without a lifecycle manager", read_only=True),
    Entry(
        "camera_reliability", "best_effort", "reliability asked of the cameras", read_only=True,
        choices=("best_effort", "reliable"),
    ),
    Entry(
        "only_when_engaged", True,
        "rest while arbiter/mode says that something else has the arm; without an arbiter, always run",
    ),
    Entry("instruction", "", "what to do, in words; a later message on instruction replaces it"),
    # These start as the bundle says, unless they are given.
    Entry("denoise_steps", 8, "denoising steps of the future images", 1, 256),
    Entry("action_steps", 0, "denoising steps of the actions; 0: as many as denoise_steps", 0, 256),
    Entry("temperature", 0.0, "of sampling; 0: the most likely tokens", 0.0, 5.0),
    Entry("confidence_threshold", 0.0, "commit every token above this probability at once; 0: off", 0.0, 1.0),
    Entry("decoder", "jd3p", "how tokens are decoded"),
    Entry(
        "foresight", "full", "decode the future images with the actions, half of their tokens, or none",
        choices=("full", "sketch", "off"),
    ),
    Entry("execute_steps", 0, "steps played before the next observation; 0: half a chunk", 0, 64),
    Entry("base_seed", 0, "seed from which each inference's seed is drawn", 0, 2**31 - 1),
)  # fmt: skip


def load_policy(bundle: str, device: str, threads: int) -> Any:
    """Load a bundle; torch is imported here and not before."""
    from udvla_ros.policy import Policy

    # One core stays free for the arbiter and the driver: a late command is a step in the arm's motion.
    return Policy.load(bundle, device=device, threads=threads or max(1, (os.cpu_count() or 2) - 1))


def decode_options(policy: Any, values: dict[str, Any]) -> Any:
    """Return the decoder's options of these parameter values; the rest is as the bundle says.

    Raises:
        UdvlaError: a value that the decoder does not know.
    """
    from udvla_ros.decoding.registry import DECODERS

    if values["decoder"] not in DECODERS:
        raise ConfigError(f"decoder is '{values['decoder']}'; known: {', '.join(DECODERS)}")
    return policy.options(
        steps=values["denoise_steps"],
        action_steps=values["action_steps"] or None,
        temperature=values["temperature"],
        confidence_threshold=values["confidence_threshold"] or None,
        decoder=values["decoder"],
        foresight=values["foresight"],
    )


def bundle_defaults(options: Any) -> dict[str, Any]:
    """Return the parameter values that say what the bundle's own decoding options say."""
    return {
        "denoise_steps": options.steps,
        "action_steps": options.action_steps or 0,
        "temperature": float(options.temperature),
        "confidence_threshold": float(options.confidence_threshold or 0.0),
        "decoder": options.decoder,
        "foresight": options.foresight,
    }


def make_observation(pictures: dict[str, np.ndarray], instruction: str, stamp: float) -> Any:
    """Return the policy's observation."""
    from udvla_ros.policy import Observation

    return Observation(images=pictures, instruction=instruction, stamp=stamp)
