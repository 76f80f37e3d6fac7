"""Drafts from an on-disk index, and a choice between drafters by how long their match is."""

from __future__ import annotations

from typing import Any

import numpy as np

from gramcore._checks import check_int, check_real
from gramcore.ngram import Index
from gramcore.spec.base import Context, Drafter, DraftTree, IntArray, TargetRows
from gramcore.spec.suffix_drafter import SuffixDrafter

__all__ = ["AdaptiveDrafter", "InfinigramDrafter"]


class InfinigramDrafter(Drafter):
    """Continues with the most frequent continuation of the longest suffix that occurs in an infinity-gram index.

    Token by token: the longest suffix of the text plus draft (at most ``max_context``) with a continuation in the index
    gives ``argmax_x count(suffix x)``; drafting stops when the suffix is shorter than ``min_match``, or the
    continuation's share is below ``min_prob``. Memory: the index is mapped, not read.

    Args:
        index: an :class:`~gramcore.ngram.Index`.
        min_match: ``>= 1``; shortest useful suffix.
        max_context: ``>= min_match``.
        min_prob: in ``[0, 1)``; smallest share of the most frequent continuation.

    Differs from paper: used as a drafter; the paper estimates probabilities.
    Reference: Liu et al. 2024, arXiv:2401.17377 (infinity-gram).

    >>> InfinigramDrafter(3)
    Traceback (most recent call last):
    ...
    TypeError: index must be a gramcore.ngram.Index, got int
    """

    bounded = True

    def __init__(self, index: Index, *, min_match: int = 2, max_context: int = 32, min_prob: float = 0.3) -> None:
        if not isinstance(index, Index):
            raise TypeError(f"index must be a gramcore.ngram.Index, got {type(index).__name__}")
        self.index = index
        self.min_match = check_int("min_match", min_match, low=1)
        self.max_context = check_int("max_context", max_context, low=min_match)
        self.min_prob = check_real("min_prob", min_prob, low=0, high=1, high_open=True)

    def propose(self, ctx: Context, budget: int) -> DraftTree:
        text = [int(t) for t in ctx.tokens[-self.max_context :]]
        draft: list[int] = []
        strength = 0
        while len(draft) < budget:
            law = self.index.infgram_ntd(text[-self.max_context :], top=1)
            if law.suffix_len < self.min_match or not len(law.token_ids):
                break
            token, share = int(law.token_ids[0]), float(law.probs[0])
            if share < self.min_prob or token == self.index.separator:
                break
            strength = strength or law.suffix_len
            draft.append(token)
            text.append(token)
        return DraftTree.chain(np.array(draft, np.int32), strength=strength)

    def observe(self, accepted: IntArray) -> None:
        """The index is fixed; the text comes with the context."""

    def rollback(self, n: int) -> None:
        """Nothing to forget."""

    def fork(self) -> InfinigramDrafter:
        return self


class AdaptiveDrafter(Drafter):
    """A suffix match when it is long enough, another drafter otherwise.

    Args:
        fallback: the other drafter, for example :class:`TokenRecycling` or a model.
        suffix: default ``SuffixDrafter()``.
        min_match: ``>= 1``; suffix matches at least this long are used (5 in the paper).

    Differs from paper: the length of the suffix draft follows the match instead of being fixed.
    Reference: Hu et al. 2024, arXiv:2411.10666, section 3.3.

    >>> from gramcore.spec import TokenRecycling
    >>> AdaptiveDrafter(TokenRecycling()).min_match
    5
    """

    def __init__(self, fallback: Drafter, *, suffix: SuffixDrafter | None = None, min_match: int = 5) -> None:
        if not isinstance(fallback, Drafter):
            raise TypeError(f"fallback must be a Drafter, got {type(fallback).__name__}")
        self.fallback = fallback
        self.suffix = SuffixDrafter() if suffix is None else suffix
        self.min_match = check_int("min_match", min_match, low=1)
        self.needs_hidden, self.bounded = fallback.needs_hidden, fallback.bounded

    def propose(self, ctx: Context, budget: int) -> DraftTree:
        if self.suffix.match_len >= self.min_match:
            tree = self.suffix.propose(ctx, budget)
            if len(tree):
                return tree
        return self.fallback.propose(ctx, budget)

    def observe(self, accepted: IntArray) -> None:
        self.suffix.observe(accepted)
        self.fallback.observe(accepted)

    def observe_hidden(self, states: Any) -> None:
        self.fallback.observe_hidden(states)

    def observe_target(self, tree: DraftTree, rows: TargetRows) -> None:
        self.fallback.observe_target(tree, rows)

    def rollback(self, n: int) -> None:
        self.suffix.rollback(n)
        self.fallback.rollback(n)

    def fork(self) -> AdaptiveDrafter:
        return AdaptiveDrafter(self.fallback.fork(), suffix=self.suffix.fork(), min_match=self.min_match)
