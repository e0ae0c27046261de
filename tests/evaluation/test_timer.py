"""Turns: whose it is, what is looked at, and what each chunk is told of the one before."""

from __future__ import annotations

from udvla_ros.evaluation.timer import Way, in_turn


class Told:
    """Answers with what it was asked."""

    def __init__(self, name, said):
        self.name, self.said = name, said

    def infer(self, observation, options, seed, previous):
        chunk = (self.name, observation, options, seed, previous and previous[3])
        self.said.append(chunk)
        return chunk


def test_nobody_is_always_first_and_each_has_its_own_last_chunk():
    said: list[tuple] = []
    ways = {name: Way(Told(name, said), name.upper()) for name in "abc"}
    taken = in_turn(ways, ["x", "y"], 4, progress=lambda: said.append(("-",)))
    assert "".join(chunk[0] for chunk in said) == "a-b-c-b-c-a-c-a-b-a-b-c-"
    assert taken["b"] == [("b", "xyxy"[turn], "B", turn, turn - 1 if turn else None) for turn in range(4)]


def test_a_way_may_have_a_turn_now_and_then():
    said: list[tuple] = []
    ways = {"a": Way(Told("a", said), None), "b": Way(Told("b", said), None, every=3)}
    taken = in_turn(ways, ["x"], 7, seed=lambda turn: 10 * turn, before=lambda name, turn: None)
    assert [chunk[3] for chunk in taken["a"]] == [0, 10, 20, 30, 40, 50, 60]
    assert [chunk[3] for chunk in taken["b"]] == [0, 30, 60] and not any(chunk[4] for chunk in said)
