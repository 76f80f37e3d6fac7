"""The rule ``generate`` uses when none is named."""

from __future__ import annotations

from gramcore.spec.base import Dice, DraftTree, Lossless, TargetRows, Verifier
from gramcore.spec.match_verifiers import GreedyVerifier, SeededVerifier
from gramcore.spec.residual_verifiers import GreedyTailVerifier, RecursiveVerifier

__all__ = ["DefaultVerifier"]


class DefaultVerifier(Verifier):
    """Chooses by temperature and by how the drafts were made.

    Greedy at temperature 0; else seeded sampling for deterministic drafts, recursive rejection for siblings drawn from
    a law, greedy draft sampling for greedy tails.

    Differs from paper: a composition; see the rules.
    Reference: the rules' papers.

    >>> DefaultVerifier().lossless.value
    'L1'
    """

    lossless = Lossless.L1
    schemes = ("fixed", "iid", "without_replacement", "greedy_tail")

    def __init__(self) -> None:
        recursive = RecursiveVerifier()
        self._greedy = GreedyVerifier()
        self._rules: dict[str, Verifier] = {
            "fixed": SeededVerifier(),
            "iid": recursive,
            "without_replacement": recursive,
            "greedy_tail": GreedyTailVerifier(),
        }

    def _walk(self, tree: DraftTree, rows: TargetRows, dice: Dice) -> tuple[list[int], int]:
        rule = self._greedy if rows.sampling.temperature == 0 else self._rules[tree.scheme]
        return rule._walk(tree, rows, dice)
