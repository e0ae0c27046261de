"""Tables whose episodes are made up: no world, no policy, and every outcome is known."""

from __future__ import annotations

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.evaluation.closed_loop import Outcome
from udvla_ros.evaluation.store import Store
from udvla_ros.evaluation.tables import table, table_claims, table_run, table_spec
from udvla_ros.evaluation.tables.table_run import Identity, Protocol

TASKS = ("touch", "pick")


def spec(names=("a", "b"), **changes):
    rows = [{"name": name, "bundle": f"runs/{name}-{{seed}}", "made_by": f"make {name}-{{seed}}"} for name in names]
    return table_spec.parse(
        {"title": "T", "seeds": [0, 1], "reference": names[0], "rows": rows, **changes}, "t", "t.yaml"
    )


def identities(made):
    return {
        row.name: {
            seed: Identity(folder, row.name, f"hash of {folder}", DecodeOptions(**row.decoding))
            for seed, folder in row.bundles.items()
        }
        for row in made.rows
    }


class Stage:
    """Plays cases without a world: ``wins(row, training seed, task, index)`` says which are won."""

    def __init__(self, wins):
        self.wins, self.played, self.killed_at = wins, [], None

    def __call__(self, row, seed, identity, protocol, stack):
        def play(task, cases, done):
            if self.killed_at == (row.name, seed, task):
                raise KeyboardInterrupt
            self.played.append((row.name, seed, task))
            outcomes = []
            for index, case in enumerate(cases):
                won = bool(self.wins(row.name, seed, task, index))
                outcomes.append(Outcome(case, won, "" if won else "out of time", 7))
                done(outcomes[-1])
            return outcomes

        return play


def measured(made, wins, folder, episodes=20, only=None):
    found = identities(made)
    store = Store(folder / "measured.jsonl")
    return table_run.measure(made, TASKS, found, Protocol(episodes), store, only, player=Stage(wins)), found


def result(made, wins, folder, timing=None, episodes=20, only=None):
    runs, found = measured(made, wins, folder, episodes, only)
    made_of = table.summarise(made, TASKS, found, runs, Protocol(episodes), timing)
    return {**made_of, "claims": table_claims.answer(made, runs, made_of), "command": "udvla eval table t.yaml"}


def timings(**per_second):
    rows = {
        name: {
            "chunk_ms": {"p50": 1e5 / value, "p95": 1.2e5 / value, "p99": 2e5 / value}, "tokens_per_second": value,
            "decode_ms": {}, "slots": 97, "forwards": 9.0, "attention": "hybrid", "cached": True,
        }
        for name, value in per_second.items()
    }  # fmt: skip
    how = {"chunks": 4, "views": 8, "device": "cpu", "machine": "M", "threads": 1, "cores": 2, "load_at_start": 0.1,
           "torch": "2"}  # fmt: skip
    return {"rows": rows, "how": how}


def first(share):
    """Of 100 scenes a wins ``share[0]``, b ``share[1]``: the easy ones."""
    return lambda row, seed, task, index: index < share["ab".index(row)]
