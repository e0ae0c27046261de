"""What ``udvla serve`` answers to an arm's ``policy_node``: its contract, chunks in physical units, pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from udvla_ros.errors import ConfigError
from udvla_ros.policy import ActionChunk, DecodeOptions, Observation, Policy

KEPT = 4  # chunks of a session whose pictures may still be asked for


class Arm:
    """The side of one arm: one policy for all, and the chunks of this one that it may want to see painted."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._chunks: dict[int, ActionChunk] = {}
        self._count = 0

    def answer(self, request: Mapping[str, Any], observation: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to one question.

        Raises:
            UdvlaError: what the policy has against it.
        """
        answers = {
            "contract": self._contract, "check": self._check, "words": self._words, "warm_up": self._warm_up,
            "chunk": self._chunk, "paint": self._paint,
        }  # fmt: skip
        ask = str(request.get("ask"))
        if ask not in answers:
            raise ConfigError(f"'{ask}' is no question; known: {', '.join(answers)}")
        return answers[ask](request, observation)

    def _contract(self, request: Mapping[str, Any], observation: Mapping[str, Any]) -> dict[str, Any]:
        config = self.policy.config
        names = ("name", "cameras", "control_hz", "chunk", "action_space", "action_frame")
        told = {name: getattr(config, name) for name in names}
        told |= {"cameras": list(config.cameras), "dimensions": config.action.dimensions}
        options = dataclasses.asdict(self.policy.options())
        return {"contract": {"hash": self.policy.hash, "config": told, "options": options}}

    def _options(self, request: Mapping[str, Any]) -> DecodeOptions:
        try:
            return self.policy.check(DecodeOptions(**request["options"]))
        except (KeyError, TypeError) as error:
            raise ConfigError(f"decoding options that this server does not know ({error}): use one version") from None

    def _check(self, request: Mapping[str, Any], observation: Mapping[str, Any]) -> dict[str, Any]:
        self._options(request)
        return {"checked": True}

    def _words(self, request: Mapping[str, Any], observation: Mapping[str, Any]) -> dict[str, Any]:
        return {"words": self.policy.unknown_words(str(request["instruction"]))}

    def _warm_up(self, request: Mapping[str, Any], observation: Mapping[str, Any]) -> dict[str, Any]:
        return {"total": self.policy.warm_up(self._options(request), int(request["runs"]))}

    def _chunk(self, request: Mapping[str, Any], observation: Mapping[str, Any]) -> dict[str, Any]:
        seen = Observation(observation["images"], str(observation["task_description"]))
        chunk = self.policy.infer(seen, self._options(request), int(request["seed"]))
        self._count += 1
        self._chunks[self._count] = chunk
        self._chunks.pop(self._count - KEPT, None)
        return {
            "actions": chunk.actions, "timings_ms": dict(chunk.timings_ms), "statistics": chunk.statistics,
            "chunk": self._count,
        }  # fmt: skip

    def _paint(self, request: Mapping[str, Any], observation: Mapping[str, Any]) -> dict[str, Any]:
        chunk = self._chunks.get(int(request["chunk"]))
        images = {} if chunk is None else chunk.predicted
        return {"predicted": {name: {"shape": list(i.shape), "data": i.tobytes()} for name, i in images.items()}}
