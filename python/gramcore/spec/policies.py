"""Length policies that look at no clock."""

from __future__ import annotations

import math

from gramcore._checks import check_int
from gramcore.spec.base import Context, LengthPolicy, StepRecord

__all__ = ["BassLength", "FixedLength"]


class FixedLength(LengthPolicy):
    """The same budget at every step.

    Args:
        nodes: ``>= 0``.

    Differs from paper: none.
    Reference: Leviathan et al. 2022, arXiv:2211.17192 (constant gamma).

    >>> FixedLength(4).nodes
    4
    """

    def __init__(self, nodes: int = 10) -> None:
        self.nodes = check_int("nodes", nodes, low=0)

    def budget(self, ctx: Context) -> int:
        return self.nodes

    def observe(self, step: StepRecord) -> None:
        """Nothing to learn."""

    def fork(self) -> FixedLength:
        return self


class BassLength(LengthPolicy):
    """Grows after a fully accepted draft, shrinks ever faster otherwise.

    ``l = min(l + increment, limit)`` when everything was accepted; else ``l = l - ceil(l / divisor) - s`` with
    ``s = 1`` from the second shrink in a row, never below the number accepted nor 1.

    Args:
        start: ``>= 1``; l_0.  increment: ``>= 1``.  divisor: ``>= 1``; l_mod.  limit: ``>= start``.

    Differs from paper: applied per sequence, since ragged batches need no common length.
    Reference: Qian et al. 2024, arXiv:2404.15778, Algorithm 1.

    >>> BassLength().start
    7
    """

    def __init__(self, *, start: int = 7, increment: int = 2, divisor: int = 10, limit: int = 32) -> None:
        self.start = check_int("start", start, low=1)
        self.increment = check_int("increment", increment, low=1)
        self.divisor = check_int("divisor", divisor, low=1)
        self.limit = check_int("limit", limit, low=start)
        self._length, self._shrinking = start, 0

    def budget(self, ctx: Context) -> int:
        return self._length

    def observe(self, step: StepRecord) -> None:
        if not step.drafted:
            return
        if step.accepted >= min(self._length, step.offered_depth):
            self._length, self._shrinking = min(self._length + self.increment, self.limit), 0
            return
        shrunk = self._length - math.ceil(self._length / self.divisor) - self._shrinking
        self._length, self._shrinking = max(1, step.accepted, shrunk), 1

    def fork(self) -> BassLength:
        return BassLength(start=self.start, increment=self.increment, divisor=self.divisor, limit=self.limit)
