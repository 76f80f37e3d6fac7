"""Length policies: how many nodes to draft."""

from __future__ import annotations

from gramcore._checks import check_int
from gramcore.spec.base import Context, LengthPolicy, StepRecord

__all__ = ["FixedLength"]


class FixedLength(LengthPolicy):
    """The same budget at every step.

    Args:
        nodes: ``>= 0``.

    Differs from paper: none.
    Reference: Leviathan et al. 2022, arXiv:2211.17192 (constant gamma).
    """

    def __init__(self, nodes: int = 10) -> None:
        self.nodes = check_int("nodes", nodes, low=0)

    def budget(self, ctx: Context) -> int:
        return self.nodes

    def observe(self, step: StepRecord) -> None:
        """Nothing to learn."""

    def fork(self) -> FixedLength:
        return self
