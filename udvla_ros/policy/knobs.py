"""The knobs of decoding, one row each: what the node's parameters, the command line and ``udvla tune`` share.

A row ties a parameter to the field of :class:`~udvla_ros.decoding.interface.DecodeOptions` that it sets. ROS
parameters know no ``None``, so that a row may name the value that stands for it. No torch in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Knob:
    """One knob.

    Attributes:
        name: of the parameter, and with dashes of the option.
        field: of ``DecodeOptions``.
        default: of the parameter before a bundle is loaded; its type is the parameter's.
        description: for people.
        low, high: bounds of numbers.
        choices: of words.
        none: the parameter's value that means ``None``.
    """

    name: str
    field: str
    default: bool | int | float | str
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    none: int | float | None = None


KNOBS = (
    Knob("denoise_steps", "steps", 8, "denoising steps of the future images", 1, 256),
    Knob("action_steps", "action_steps", 0, "denoising steps of the actions; 0: as many as denoise_steps", 0, 256,
         none=0),
    Knob("temperature", "temperature", 0.0, "of the tokens drawn; 0: the most likely tokens", 0.0, 5.0),
    Knob("sampler", "sampler", "annealed",
         "exact: draws of the model at that temperature; annealed: ever colder; published: the released law",
         choices=("exact", "annealed", "published")),
    Knob("confidence_threshold", "confidence_threshold", 0.0,
         "commit every token above this probability at once; 0: off", 0.0, 1.0, none=0.0),
    Knob("entropy_bound", "entropy_bound", 0.0,
         "nats: each step commits as many sure tokens as this allows, and the steps are caps; 0: by the schedule",
         0.0, 1000.0, none=0.0),
    Knob("decoder", "decoder", "jd3p", "how tokens are decoded: jd3p, independent, autoregressive or jacobi"),
    Knob("foresight", "foresight", "full", "decode the future images with the actions, half of their tokens, or none",
         choices=("full", "sketch", "off")),
    Knob("schedule", "schedule", "public", "how many tokens each step commits: the released code's, or the paper's",
         choices=("public", "paper")),
    Knob("iterations", "iterations", 0, "early exit: at most that many forwards per modality; 0: no limit", 0, 256,
         none=0),
    Knob("stop_when_ready", "stop_when_ready", False, "end when the action is there, with image tokens left open"),
    Knob("remask", "remask", 0.0, "approximate: share of committed tokens opened again after a step; 0: off",
         0.0, 0.95),
    Knob("masked_frames", "masked_frames", False,
         "of the sampler published: size headers, IMG and EOF of the images begin masked, as in the released code"),
    Knob("drawn_behind", "drawn_behind", False,
         "of the sampler published: slots behind the action's end are drawn too, as in the released code"),
    Knob("samples", "samples", 1,
         "chunks drawn of each observation, at the cost of each; the one nearest to the plan in force is taken",
         1, 16),
    Knob("jacobi_start", "start", "mask", "first guess of the decoder jacobi", choices=("mask", "random", "current")),
)  # fmt: skip


def options_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of ``DecodeOptions`` that these parameters set; other names are left out."""
    return {
        knob.field: None if knob.none is not None and value == knob.none else value
        for knob in KNOBS
        if (value := parameters.get(knob.name)) is not None
    }


def parameters_of(options: Any) -> dict[str, Any]:
    """Return the parameters that say what decoding options say; a field that the options lack is left out."""
    values = {}
    for knob in KNOBS:
        if hasattr(options, knob.field):
            value: Any = getattr(options, knob.field)
            none: Any = knob.none
            values[knob.name] = type(knob.default)(none if value is None else value)
    return values


def differences(old: Any, new: Any) -> str:
    """Return in words which knobs differ between two sets of decoding options; empty where none does."""
    before, after = parameters_of(old), parameters_of(new)
    names = [name for name in after if before.get(name) != after[name]]
    return ", ".join(f"{name} {before.get(name)} -> {after[name]}" for name in names)
