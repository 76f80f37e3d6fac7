"""How close a rule comes to what is possible with its drafts."""

from __future__ import annotations

import numpy as np

from gramcore.spec.base import Dice, DraftTree, TargetRows, Verifier
from gramcore.spec.optimal import optimal_acceptance

__all__ = ["AcceptanceMeter"]


class AcceptanceMeter(Verifier):
    """Passes on to another rule and compares its acceptance with the optimum, node by node.

    At every visited row with k children the bound is ``optimal_acceptance(p, q, k, scheme)`` for random drafts and
    ``sum p(children)`` for fixed ones. Statistics then carry ``"acceptance per node"`` and ``"optimal acceptance"``.
    Cost: two laws and a sort of V numbers per visited row; meant for measuring.

    Args:
        inner: the rule in charge.

    Differs from paper: none.   Reference: Hu et al. 2025, arXiv:2502.18779, section 3.

    >>> from gramcore.spec import DefaultVerifier
    >>> AcceptanceMeter(DefaultVerifier()).report()
    {}
    """

    def __init__(self, inner: Verifier) -> None:
        if not isinstance(inner, Verifier):
            raise TypeError(f"inner must be a Verifier, got {type(inner).__name__}")
        self.inner = inner
        self.lossless, self.schemes = inner.lossless, inner.schemes
        self._visited = self._accepted = 0
        self._bound = 0.0

    def _walk(self, tree: DraftTree, rows: TargetRows, dice: Dice) -> tuple[list[int], int]:
        path, token = self.inner._walk(tree, rows, dice)
        for place, row in enumerate([0, *(node + 1 for node in path)]):
            children = tree.children(row)
            if not len(children):
                continue
            p = rows.probs(row)
            self._visited += 1
            self._accepted += place < len(path)
            if tree.logq is None:
                self._bound += float(p[np.unique(tree.tokens[children])].sum())
            else:
                q = np.exp(tree.logq[row])
                self._bound += optimal_acceptance(p / p.sum(), q / q.sum(), len(children), tree.scheme)
        return path, token

    def report(self) -> dict[str, float]:
        if not self._visited:
            return {}
        return {
            "acceptance per node": self._accepted / self._visited,
            "optimal acceptance": self._bound / self._visited,
        }
