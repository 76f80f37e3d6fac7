"""Verification rules for deterministic drafts: greedy, and sampling with counter-based random numbers."""

from __future__ import annotations

from abc import abstractmethod

from gramcore.spec.base import Dice, DraftTree, Lossless, TargetRows, Verifier

__all__ = ["GreedyVerifier", "SeededVerifier"]


class _MatchVerifier(Verifier):
    """Computes the token plain decoding would emit and descends while some child holds it."""

    lossless = Lossless.L0

    def _walk(self, tree: DraftTree, rows: TargetRows, dice: Dice) -> tuple[list[int], int]:
        path: list[int] = []
        row = 0
        while True:
            token = self._choose(rows, row, dice.at(len(path)))
            node = tree.child(row, token)
            if node < 0:
                return path, token
            path.append(node)
            row = node + 1

    @abstractmethod
    def _choose(self, rows: TargetRows, row: int, dice: Dice) -> int:
        """The token plain decoding emits after ``row``."""


class GreedyVerifier(_MatchVerifier):
    """Accepts drafts equal to the argmax of the target's rows; only visited rows are looked at.

    Emits ``argmax_x logits[row, x]`` (lowest id among equals) at every visited row. Any drafts are allowed.
    Cost: one pass over V per accepted token.

    Differs from paper: none.
    Reference: Stern et al. 2018, arXiv:1811.03115 (exact-match acceptance).

    >>> import numpy as np
    >>> from gramcore.spec import CounterRng, DraftTree, GreedyVerifier
    >>> rows = np.float32([[0, 9, 0], [0, 0, 9], [9, 0, 0]])
    >>> GreedyVerifier().verify(DraftTree.chain([1, 2]), rows, CounterRng(0))
    Verdict(path=array([0, 1], dtype=int32), next_token=0)
    """

    schemes = ("fixed", "iid", "without_replacement", "greedy_tail")

    def _choose(self, rows: TargetRows, row: int, dice: Dice) -> int:
        return rows.argmax(row)


class SeededVerifier(_MatchVerifier):
    """Samples every visited row with the number that belongs to its output position, then compares with the drafts.

    ``y_t = F_t^{-1}(u(seed, t))`` with ``F_t`` the target's distribution function at position ``t`` and ``u`` a
    counter-based uniform number: the same token whether or not it was drafted, so sampled output equals plain sampled
    decoding with the same seed. Acceptance probability at a node: the target's mass on its children.

    Differs from paper: the number is a function of (seed, position) rather than drawn from a stream.
    Reference: verification by sampling, Leviathan et al. 2022, arXiv:2211.17192, for drafts without a law.

    >>> import numpy as np
    >>> from gramcore.spec import CounterRng, DraftTree, SeededVerifier, TargetRows
    >>> rows = TargetRows.from_probs(np.array([[0.0, 1.0], [1.0, 0.0]]))
    >>> SeededVerifier().verify(DraftTree.chain([1]), rows, CounterRng(7))
    Verdict(path=array([0], dtype=int32), next_token=0)
    """

    schemes = ("fixed",)

    def _choose(self, rows: TargetRows, row: int, dice: Dice) -> int:
        return dice.pick_row(rows, row)
