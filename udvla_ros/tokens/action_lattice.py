"""Which sequences of FAST codes are well-formed, which of them is the most probable, and draws from all of them.

Every code stands for a known number of coefficients, and a chunk has chunk x dimensions of them. Slots
that are sampled one by one rarely add up; a walk through the lattice (slot, coefficients covered) does
by construction. The table of scores is filled by dynamic programming; codes of equal length compete
only with each other, so the cost is slots x total x distinct lengths, whatever the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from udvla_ros.errors import TokenError

FREE = -1
LOWEST = -1e300  # in place of -inf, where -inf would be subtracted from itself


class Lattice:
    """Well-formed sequences: codes that cover exactly ``total`` coefficients, then EOA, in ``slots``.

    EOA takes a slot of its own, so at most ``slots - 1`` codes fit. In inputs and outputs that span
    codes and EOA, EOA is the last column, number V.

    Args:
        lengths: int [V], coefficients per code. Without ``successors`` a length of 0 marks a code
            that is never used.
        total: coefficients to cover, chunk x dimensions.
        slots: slots available, EOA's included.
        successors: int [Q, V], for codes that hold parts of characters; see
            :class:`~udvla_ros.tokens.action_expansion.Expansion`.
    """

    def __init__(
        self, lengths: ArrayLike, total: int, slots: int, successors: ArrayLike | None = None
    ) -> None:
        lengths = np.asarray(lengths, dtype=np.int64)
        if successors is None:
            successors = np.where(lengths > 0, 0, -1)[None]
        successors = np.asarray(successors, dtype=np.int64)
        if lengths.ndim != 1 or successors.ndim != 2 or successors.shape[1] != len(lengths):
            raise TokenError(
                f"lengths {lengths.shape} and successors {successors.shape} do not match: give [V] and [Q, V]"
            )
        if total < 1 or slots < 2 or (lengths < 0).any():
            raise TokenError(f"a lattice of {slots} slots for {total} coefficients: give at least 2 and 1")
        self.vocabulary, self.total, self.slots = len(lengths), int(total), int(slots)
        self._states = successors.shape[0]
        self._lengths, self._successors = lengths, successors
        self._arrange_codes(lengths, successors)
        self._arrange_arcs()

    def best(
        self, log_probs: ArrayLike, fixed: Sequence[int] | NDArray | None = None, passable: bool = False
    ) -> list[int]:
        """The well-formed sequence of highest summed log-probability, EOA's slot included in the sum.

        ``log_probs`` [S, V + 1]; -inf rules a code out. ``fixed`` [S] holds the code already committed
        in each slot (V for EOA) or -1; committed codes are kept and cost nothing. Slots behind EOA do
        not count. ``passable``: a sequence may end before a committed code, which then lies behind it.
        Returns the codes without EOA; raises :class:`TokenError` where none is well-formed.
        """
        return self._walk(log_probs, fixed, lambda weights, *_: int(np.argmax(weights)), False, passable)

    def draw(
        self, log_probs: ArrayLike, uniform: NDArray[np.floating], fixed: Sequence[int] | NDArray | None = None,
        passable: bool = False,
    ) -> list[int]:  # fmt: skip
        """A well-formed sequence drawn with probability proportional to exp of its summed log-probability.

        Filter forward, sample backward: the forward table sums over every way to a cell, and the walk back from EOA
        draws each code by its share of that sum. Arguments and errors as in :meth:`best`; ``uniform`` [2, S] are
        independent numbers in [0, 1), which decide the sequence.
        """

        def pick(weights: NDArray[np.float64], which: int, slot: int) -> int:
            reached = np.exp(weights - weights.max()).cumsum()
            aim = min(uniform[which, slot] * reached[-1], np.nextafter(reached[-1], 0))
            return int(np.searchsorted(reached, aim, side="right"))

        return self._walk(log_probs, fixed, pick, True, passable)

    def _walk(
        self,
        log_probs: ArrayLike,
        fixed: Sequence[int] | NDArray | None,
        pick: Callable[[NDArray[np.float64], int, int], int],
        total: bool,
        passable: bool,
    ) -> list[int]:
        """Codes from EOA back to the first slot, by ``pick`` of log-weights: of sums (``total``) or of maxima."""
        scores = self._scores(log_probs, fixed)
        per_group = self._by_group(scores, total)
        table = self._forward(per_group, total)
        ends = table[:, self._goal] + (scores[:, -1] if passable else self._end_scores(scores[:, -1], fixed))
        if ends.max() == -np.inf:
            self._refuse(fixed)
        slot = pick(ends, 0, self.slots - 1)  # no code stands in the last slot: its numbers are free for EOA
        codes: list[int] = []
        cell = self._goal
        while slot > 0:
            slot -= 1
            sources, groups = self._sources[:, cell], self._arc_groups[:, cell % self._states]
            arc = pick(table[slot, sources] + per_group[slot, groups], 0, slot)
            cell = int(sources[arc])
            members = self._members[int(groups[arc])]
            codes.append(int(members[pick(scores[slot, members], 1, slot)]))
        return codes[::-1]

    def allowed(self, fixed: Sequence[int] | NDArray | None = None) -> NDArray[np.bool_]:
        """bool [S, V + 1]: codes and EOA that occur in some well-formed sequence that keeps ``fixed``.

        Left to right, row n after n committed codes is the set that may come next. In parallel
        decoding, commit one slot at a time under it (two at once may exclude each other), or commit
        slots of :meth:`best`, whose codes fit together.
        """
        scores = self._scores(np.zeros((self.slots, self.vocabulary + 1)), fixed)
        per_group = self._by_group(scores)
        ahead = self._forward(per_group)
        ends = self._end_scores(scores[:, -1], fixed)
        live = np.zeros(per_group.shape, dtype=bool)
        behind = np.full(ahead.shape[1], -np.inf)  # score of finishing from each cell of the slot after
        for slot in range(self.slots - 1, -1, -1):
            onward = behind[self._targets].reshape(self._out_shape)
            arcs = per_group[slot, self._out_groups][:, None, :] + onward
            before = ahead[slot, :-1].reshape(1, -1, self._states)
            live[slot, self._out_groups[((arcs + before) > -np.inf).any(axis=1)]] = True
            behind[:-1] = arcs.max(axis=0).reshape(-1)
            behind[self._goal] = max(behind[self._goal], ends[slot])
        allowed = (live @ self._membership) & (scores[:, :-1] > -np.inf)
        return np.column_stack([allowed, ahead[:, self._goal] + ends > -np.inf])

    def following(self, slot: int, cell: int = 0) -> NDArray[np.bool_]:
        """bool [V + 1]: what may stand in ``slot`` behind codes that lead to ``cell``; EOA ends a chunk.

        The same as row ``slot`` of :meth:`allowed`, for decoders that go from left to right: to them the
        past is one number, 0 before the first code and :meth:`after` from there on. Raises
        :class:`TokenError` where nothing may follow, as in a lattice without any sequence.
        """
        onward = self._finishable[slot + 1, self._targets[:, cell]]
        groups = self._out_groups[onward, cell % self._states]
        codes = np.append(self._membership[groups].any(axis=0), cell == self._goal)
        if not codes.any():
            self._refuse(None)
        return codes

    def after(self, cell: int, code: int) -> int:
        """The cell that ``code`` leads to, from a cell that it may follow."""
        covered, state = divmod(cell, self._states)
        return int((covered + self._lengths[code]) * self._states + self._successors[state, code])

    @cached_property
    def _finishable(self) -> NDArray[np.bool_]:
        """bool [S + 1, cells + 1]: whether a sequence that is in this cell before this slot can end well."""
        finishable = np.zeros((self.slots + 1, self._targets.shape[1] + 1), dtype=bool)
        for slot in range(self.slots - 1, -1, -1):
            finishable[slot, :-1] = finishable[slot + 1, self._targets].any(axis=0)
            finishable[slot, self._goal] = True
        return finishable

    def _arrange_codes(self, lengths: NDArray[np.int64], successors: NDArray[np.int64]) -> None:
        """Group codes by (state before, length, state after); a code sits in up to Q groups."""
        groups: dict[tuple[int, int, int], list[int]] = {}
        for state, row in enumerate(successors):
            for code in np.flatnonzero((row >= 0) & (lengths <= self.total)):
                groups.setdefault((state, int(lengths[code]), int(row[code])), []).append(int(code))
        self._keys = list(groups)
        self._members = [np.array(codes) for codes in groups.values()]
        self._order = np.array([code for codes in groups.values() for code in codes], dtype=np.int64)
        self._starts = np.cumsum([0] + [len(codes) for codes in groups.values()])[:-1]

    def _arrange_arcs(self) -> None:
        """Tables of the steps into and out of each cell; cell = coefficients covered x Q + state."""
        self._goal = self.total * self._states
        self._arc_groups, self._sources = self._arcs(into=True)
        self._out_groups, self._targets = self._arcs(into=False)
        self._out_shape = (len(self._targets), self.total + 1, self._states)
        self._membership = np.zeros((len(self._keys) + 1, self.vocabulary), dtype=bool)
        for group, members in enumerate(self._members):
            self._membership[group, members] = True

    def _arcs(self, into: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Groups [A, Q] per state and, per cell, the cells at the other end [A, cells].

        One group past the last and one cell past the last pad the tables; neither is ever reached.
        """
        per_state: list[list[int]] = [[] for _ in range(self._states)]
        for group, (before, _, after) in enumerate(self._keys):
            per_state[after if into else before].append(group)
        width = max(1, max(len(groups) for groups in per_state))
        cells = (self.total + 1) * self._states
        arc_groups = np.full((width, self._states), len(self._keys), dtype=np.int64)
        others = np.full((width, cells), cells, dtype=np.int64)
        for state, groups in enumerate(per_state):
            for arc, group in enumerate(groups):
                before, length, after = self._keys[group]
                arc_groups[arc, state] = group
                from_, to = np.arange(self.total + 1 - length), np.arange(length, self.total + 1)
                here, there, other = (to, from_, before) if into else (from_, to, after)
                others[arc, here * self._states + state] = there * self._states + other
        return arc_groups, others

    def _scores(self, log_probs: ArrayLike, fixed: Sequence[int] | NDArray | None) -> NDArray[np.float64]:
        scores = np.array(log_probs, dtype=np.float64)
        if scores.shape != (self.slots, self.vocabulary + 1):
            raise TokenError(
                f"log-probabilities have shape {scores.shape}: give [{self.slots}, {self.vocabulary + 1}] "
                "with EOA last"
            )
        if np.isnan(scores).any() or (scores == np.inf).any():
            raise TokenError("log-probabilities hold NaN or +inf: check the model's weights and precision")
        if fixed is not None:
            fixed = np.asarray(fixed, dtype=np.int64)
            if fixed.shape != (self.slots,) or fixed.min() < FREE or fixed.max() > self.vocabulary:
                raise TokenError(
                    f"fixed codes must be {self.slots} numbers of -1 (free), 0..{self.vocabulary - 1} or "
                    f"{self.vocabulary} (EOA)"
                )
            held = np.flatnonzero(fixed != FREE)
            scores[held] = -np.inf
            scores[held, fixed[held]] = 0.0
        return scores

    def _by_group(self, scores: NDArray[np.float64], total: bool = False) -> NDArray[np.float64]:
        """Best (or total) score within each group [S, groups + 1]; the last column is the unreachable group."""
        per_group = np.full((self.slots, len(self._keys) + 1), -np.inf)
        if len(self._keys):
            ordered, best = scores[:, self._order], per_group[:, :-1]
            np.maximum.reduceat(ordered, self._starts, axis=1, out=best)
            if total:
                highest = np.maximum(best, LOWEST)
                sizes = np.diff(self._starts, append=len(self._order))
                np.exp(ordered - highest.repeat(sizes, axis=1), out=ordered)
                best[:] = _log(np.add.reduceat(ordered, self._starts, axis=1)) + highest
        return per_group

    def _forward(self, per_group: NDArray[np.float64], total: bool = False) -> NDArray[np.float64]:
        """Best (or total) score of reaching each cell before each slot [S, cells + 1]."""
        table = np.full((self.slots, self._sources.shape[1] + 1), -np.inf)
        table[0, 0] = 0.0
        arcs = np.empty(self._sources.shape)
        by_state = arcs.reshape(len(arcs), -1, self._states)
        gains = per_group[:, self._arc_groups][:, :, None, :]
        for slot in range(self.slots - 1):
            # mode="clip" spares numpy a buffered bounds check; every index is in bounds.
            np.take(table[slot], self._sources, out=arcs, mode="clip")
            np.add(by_state, gains[slot], out=by_state)
            best = np.maximum.reduce(arcs, axis=0, out=table[slot + 1, :-1])
            if total:
                highest = np.maximum(best, LOWEST)
                np.exp(np.subtract(arcs, highest, out=arcs), out=arcs)
                best[:] = _log(arcs.sum(0)) + highest
        return table

    def _end_scores(
        self, end: NDArray[np.float64], fixed: Sequence[int] | NDArray | None
    ) -> NDArray[np.float64]:
        """EOA's score per slot [S], -inf where a code is committed behind it."""
        if fixed is None:
            return end
        held = np.flatnonzero(np.asarray(fixed) != FREE)
        last = held[-1] if held.size else 0
        return np.where(np.arange(self.slots) >= last, end, -np.inf)

    def _refuse(self, fixed: Sequence[int] | NDArray | None) -> None:
        held = 0 if fixed is None else int((np.asarray(fixed) != FREE).sum())
        raise TokenError(
            f"no action codes cover exactly {self.total} coefficients with EOA in {self.slots} slots"
            + (f" with {held} of them committed" if held else "")
            + ": give more action slots or infer again"
        )


def _log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.log(values)
