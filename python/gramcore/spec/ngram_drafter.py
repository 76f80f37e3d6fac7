"""Drafts from the request's own text."""

from __future__ import annotations

from gramcore._checks import check_choice, check_int
from gramcore._core import spec as _native
from gramcore.spec.base import Context, Drafter, DraftTree, IntArray

__all__ = ["NgramDrafter"]


class NgramDrafter(Drafter):
    """Adaptive multi-level n-gram drafts: the longest matching context first, shorter ones as fallback.

    For orders ``n = max_ngram - 1 .. min_ngram - 1`` a native table maps the last ``n`` tokens to the continuations
    seen after them. Each draft token is the most frequent continuation of the longest known context of the text plus
    the draft so far; drafting stops when no order knows it. Every committed token updates all orders.
    Cost per token and per drafted token: ``O(max_ngram)``, independent of the text's length.

    Args:
        max_ngram: ``>= min_ngram``; largest n-gram, context plus continuation (N of the paper).
        min_ngram: ``>= 2``; smallest.
        pick: ``"frequent"`` (ties: most recent) or ``"recent"``.
        tree: draft the most probable continuations, orders blended with escape (PPM-C), instead of one chain.

    Differs from paper: ties go to the most recent continuation (left open there).
    Reference: Ou, Chen, Tian 2024, arXiv:2404.08698.

    >>> import numpy as np
    >>> from gramcore.spec import CounterRng, Context, NgramDrafter, Sampling
    >>> drafter = NgramDrafter()
    >>> text = np.int32([5, 6, 7, 8, 5, 6])
    >>> drafter.observe(text)
    >>> drafter.propose(Context(text, 6, Sampling(), CounterRng(0)), budget=3).tokens
    array([7, 8, 5], dtype=int32)
    """

    bounded = True

    def __init__(self, *, max_ngram: int = 5, min_ngram: int = 2, pick: str = "frequent", tree: bool = False) -> None:
        self.min_ngram = check_int("min_ngram", min_ngram, low=2)
        self.max_ngram = check_int("max_ngram", max_ngram, low=min_ngram, high=64)
        self.pick = check_choice("pick", pick, ("frequent", "recent"))
        self.tree = tree
        self._table = _native.NgramTable(min_ngram - 1, max_ngram - 1, pick == "recent")

    def propose(self, ctx: Context, budget: int) -> DraftTree:
        if self.tree:
            tokens, parents = self._table.propose_tree(budget, ctx.tokens[:0], 0.0)
            return DraftTree(tokens, parents, strength=self._table.match_order)
        return DraftTree.chain(self._table.propose(budget), strength=self._table.match_order)

    def observe(self, accepted: IntArray) -> None:
        self._table.extend(accepted)

    def rollback(self, n: int) -> None:
        self._table.rollback(n)

    def fork(self) -> NgramDrafter:
        return NgramDrafter(max_ngram=self.max_ngram, min_ngram=self.min_ngram, pick=self.pick, tree=self.tree)
