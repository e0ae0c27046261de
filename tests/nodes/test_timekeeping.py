from __future__ import annotations

import pytest

from udvla_ros.nodes.timekeeping import Timekeeper


class Clocks:
    """A clock that can be set and one that cannot."""

    def __init__(self) -> None:
        self.wall, self.steady = 1.7e9, 50.0
        self.keeper = Timekeeper(lambda: self.wall, lambda: self.steady)
        self.keeper.read()

    def after(self, seconds: float, set_by: float = 0.0):
        self.steady += seconds
        self.wall += seconds + set_by
        return self.keeper.read()


@pytest.mark.parametrize("set_by", [30.0, -30.0, 0.2, -0.2, 0.04])
def test_a_clock_that_was_set_is_told_by_how_much(set_by):
    clocks = Clocks()
    for _ in range(5):
        assert clocks.after(0.01).stepped == 0.0
    reading = clocks.after(0.01, set_by)
    assert reading.stepped == pytest.approx(set_by, abs=1e-6) and reading.now == clocks.wall
    assert clocks.after(0.01).stepped == 0.0, "told once"


def test_a_process_that_stood_still_is_no_clock_that_was_set():
    reading = Clocks().after(3.0)
    assert reading.stepped == 0.0 and reading.silent == pytest.approx(3.0)


def test_both_at_once_are_told_apart():
    reading = Clocks().after(3.0, -1.0)
    assert reading.stepped == pytest.approx(-1.0, abs=1e-6) and reading.silent == pytest.approx(3.0)


def test_a_clock_that_is_slewed_is_not_set():
    clocks = Clocks()
    assert all(clocks.after(0.01, 0.01 * 5e-4).stepped == 0.0 for _ in range(10_000))
    assert clocks.after(10.0, 10.0 * 5e-4).stepped == 0.0


def test_an_interruption_between_the_two_clocks_is_not_a_step():
    clocks = Clocks()
    interrupted = [True]

    def wall() -> float:
        if interrupted.pop() if interrupted else False:
            clocks.steady += 0.2
            clocks.wall += 0.2
        return clocks.wall

    keeper = Timekeeper(wall, lambda: clocks.steady)
    interrupted.clear()
    keeper.read()
    interrupted.append(True)
    assert keeper.read().stepped == 0.0


@pytest.mark.parametrize(("advance", "stepped"), [(0.01, 0.0), (1.5, 0.0), (0.0, 0.0), (30.0, 29.7), (-30.0, -30.3)])
def test_simulated_time_goes_at_its_own_pace_but_does_not_jump(advance, stepped):
    wall, steady = [100.0], [50.0]
    keeper = Timekeeper(lambda: wall[0], lambda: steady[0], simulated=True)
    keeper.read()
    wall[0] += advance
    steady[0] += 0.3
    reading = keeper.read()
    assert reading.stepped == pytest.approx(stepped) and reading.silent == pytest.approx(0.3)
