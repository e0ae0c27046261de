"""One run of ``udvla tune``: every candidate against the observations, those at the front in simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from udvla_ros.errors import UdvlaError
from udvla_ros.evaluation.cases import demo_cases, demonstrated
from udvla_ros.evaluation.closed_loop import LoopOptions
from udvla_ros.evaluation.intervals import rate_with_interval
from udvla_ros.evaluation.paired import pair
from udvla_ros.evaluation.store import Store, key, machine
from udvla_ros.evaluation.suite import Session, SuiteOptions, episode
from udvla_ros.evaluation.tuning import tune, tune_observations
from udvla_ros.evaluation.tuning.tune import Candidate, Drawn
from udvla_ros.evaluation.tuning.tune_front import front
from udvla_ros.policy.policy import Policy

# Scenes for tuning: what is reported of a policy should come from others (``udvla eval --seed 0``).
LOOKED_AT, PLAYED = 10_000, 20_000


@dataclass(frozen=True)
class Protocol:
    """How is measured.

    Attributes:
        source: of the observations, see :func:`udvla_ros.evaluation.tuning.tune_observations.collect`.
        moments, seeds: observations, and chunks of each.
        episodes: simulated for each candidate at the front; 0 for none.
        execute: control steps between two looks.
        seed: shifts the scenes.
        batch: worlds at once.
    """

    source: str = tune_observations.SIMULATED
    moments: int = 24
    seeds: int = 4
    episodes: int = 0
    execute: int = 4
    seed: int = 0
    batch: int = 8


class Run:
    """Measures what is not in the store.

    Args:
        policy: loaded, with its threads set.
        found: candidates; the first one is the reference.
        protocol: how.
        store: what has been measured.
        bar: makes a progress bar of (total, description), a context manager with ``update(n)``.
    """

    def __init__(
        self,
        policy: Policy,
        found: Sequence[Candidate],
        protocol: Protocol,
        store: Store,
        bar: Callable[[int, str], Any],
    ) -> None:
        self.policy, self.candidates, self.protocol, self.store, self.bar = policy, found, protocol, store, bar
        self.reference = found[0]
        how = {"bundle": policy.hash, "runtime": asdict(policy.runtime), "device": str(policy.device)}
        self._common = {**how, **machine()}

    @cached_property
    def _moments(self) -> list[tune_observations.Moment]:
        p = self.protocol
        return tune_observations.collect(self.policy, p.source, p.moments, p.execute, LOOKED_AT + p.seed)

    @cached_property
    def _drawn(self) -> Drawn:
        return tune.draw(self.policy, self.reference, self.reference, self._moments, self.protocol.seeds)

    # -- against the observations ----------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per candidate; one that cannot decode has an ``error`` and nothing else."""
        p = self.protocol
        looked = {"source": p.source, "moments": p.moments, "seeds": p.seeds, "execute": p.execute, "seed": p.seed}
        looked = {"stage": "look", **looked, **self._common}
        names = {c.name: key(options=asdict(c.options), **looked) for c in self.candidates}
        rows = []
        with self.bar(len(self.candidates), "decoding") as bar:
            for candidate in self.candidates:
                row = self.store.get(names[candidate.name])
                if row is None:
                    row = self.store.put(names[candidate.name], self._look(candidate))
                rows.append({**row, "name": candidate.name})
                bar.update(1)
        return rows

    def _look(self, candidate: Candidate) -> dict[str, Any]:
        space = self.policy.config.action_space
        reference = self._drawn
        if candidate is self.reference:
            return tune.row(candidate, reference, reference, space)
        try:
            drawn = tune.draw(self.policy, candidate, self.reference, self._moments, self.protocol.seeds)
        except UdvlaError as error:
            return {"name": candidate.name, "options": asdict(candidate.options), "error": str(error)}
        return tune.row(candidate, drawn, reference, space)

    # -- in simulation ---------------------------------------------------------------------------------

    def simulate(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add ``success`` to the rows at the front, the reference's and the bundle's own, on the same scenes."""
        if self.protocol.episodes < 1:
            return
        own = self.policy.options()
        wanted = {row["name"] for row in front(rows)} | {self.reference.name}
        wanted |= {c.name for c in self.candidates if c.options == own}
        chosen = [c for c in self.candidates if c.name in wanted]
        played = {c.name: self._episodes(c, index, len(chosen)) for index, c in enumerate(chosen, 1)}
        for row in rows:
            if row["name"] not in played:
                continue
            episodes = played[row["name"]]
            good = sum(episode["success"] for episode in episodes)
            row["success"] = {
                "episodes": len(episodes),
                "successes": good,
                **rate_with_interval(good, len(episodes)),
                "against_reference": pair(played[self.reference.name], episodes).as_dict(),
            }

    def _episodes(self, candidate: Candidate, index: int, count: int) -> list[dict[str, Any]]:
        p = self.protocol
        name = key(
            stage="play",
            options=asdict(candidate.options),
            episodes=p.episodes,
            execute=p.execute,
            seed=p.seed,
            batch=p.batch,
            **self._common,
        )
        known = self.store.get(name)
        if known is None:
            with self.bar(p.episodes, f"{index}/{count} {candidate.name}") as bar:
                known = self.store.put(name, {"episodes": self._play(candidate, lambda outcome: bar.update(1))})
        return list(known["episodes"])

    def _play(self, candidate: Candidate, done: Callable[[Any], None]) -> list[dict[str, Any]]:
        p, policy = self.protocol, self.policy
        loop = LoopOptions(p.execute, seed=p.seed)
        options = SuiteOptions("", decode=asdict(candidate.options), loop=loop, batch=min(p.batch, p.episodes))
        cases = demo_cases(p.episodes, PLAYED + p.seed, *demonstrated(policy.config.tasks, policy.bundle.sentences))
        with Session(options, policy) as session:
            return [episode(str(o.case.task), o) for o in session.run("all", cases, done)]
