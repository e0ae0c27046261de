"""The parameters of ``policy_node`` and what it makes of them: the policy, its options, its observations.

torch is imported inside the functions: the node declares and refuses its parameters without it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.nodes import foresight
from udvla_ros.nodes.parameters import Entry
from udvla_ros.policy.knobs import KNOBS, options_of
from udvla_ros.resources import find

RUNTIME = ("threads", "dtype", "weights", "compile")  # how inference runs here: chosen at start, for good
TABLE = (
    Entry("bundle", "models/udvla-nano-ur5e", "checkpoint bundle", read_only=True),
    Entry("robot", "config/robots/ur5e_sim.yaml", "robot file", read_only=True),
    Entry("server", "", "ws://host:port of `udvla serve`, where the policy runs; empty: here", read_only=True),
    Entry("server_timeout", 1.0, "seconds for one of its answers; later ones end in HOLD", 0.05, 60.0, read_only=True),
    Entry("device", "cpu", "where inference runs: cpu, cuda, cuda:0", read_only=True),
    Entry("threads", 0, "CPU threads of inference; 0: all cores but one", 0, 256, read_only=True),
    Entry(
        "dtype", "auto", "number type of the decoder; auto: bfloat16 on a GPU, float32 on a CPU", read_only=True,
        choices=("auto", "float32", "bfloat16", "float16"),
    ),
    Entry(
        "weights", "float", "the decoder's weights: as stored, or rounded to 8 bits", read_only=True,
        choices=("float", "int8", "fp8"),
    ),
    Entry(
        "compile", "off", "compile the decoder at configure, which takes minutes; auto: if that makes it faster",
        read_only=True, choices=("off", "auto", "on"),
    ),
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
    # The knobs of decoding start as the bundle says, unless they are given.
    *(Entry(k.name, k.default, k.description, k.low, k.high, k.choices) for k in KNOBS),
    Entry("execute_steps", 0, "steps played before the next observation; 0: half a chunk", 0, 64),
    Entry(
        "cut_unreachable", False, "play a chunk up to its first unreachable step that is still to come, "
        "instead of refusing it whole",
    ),
    Entry("base_seed", 0, "seed from which each inference's seed is drawn", 0, 2**31 - 1),
    *foresight.TABLE,
)  # fmt: skip


def load_policy(bundle: str, device: str, runtime: Mapping[str, Any]) -> Any:
    """Load a bundle; torch is imported here and not before.

    Args:
        bundle, device: as :meth:`udvla_ros.policy.Policy.load` takes them.
        runtime: the parameters of :data:`RUNTIME`.
    """
    from udvla_ros.model.runtime import RuntimeOptions
    from udvla_ros.policy import Policy

    # One core stays free for the arbiter and the driver: a late command is a step in the arm's motion.
    threads = runtime["threads"] or max(1, (os.cpu_count() or 2) - 1)
    return Policy.load(bundle, device, runtime=RuntimeOptions(**{**runtime, "threads": threads}))


def remote_policy(server: str, timeout: float) -> Any:
    """Return the policy of another process or computer.

    Raises:
        ServerLost: nobody is there.
    """
    from udvla_ros.serving.remote import RemotePolicy

    return RemotePolicy(server, timeout)


def folder_of(bundle: str) -> Path | None:
    """Return where a bundle lies; None where the policy is none that lies here."""
    try:
        return find(bundle)
    except ConfigError:
        return None


def decode_options(policy: Any, values: dict[str, Any]) -> Any:
    """Return the decoder's options of these parameter values; the rest is as the bundle says.

    Raises:
        UdvlaError: a value that the decoder does not know, or a decoder that the bundle does not allow.
    """
    return policy.check(policy.options(**options_of(values)))


def make_observation(pictures: dict[str, np.ndarray], instruction: str, stamp: float) -> Any:
    """Return the policy's observation."""
    from udvla_ros.policy import Observation

    return Observation(images=pictures, instruction=instruction, stamp=stamp)
