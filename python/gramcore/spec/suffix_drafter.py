"""Drafts by suffix automaton: from the request's own text, and from a corpus."""

from __future__ import annotations

from typing import Any

from gramcore._checks import check_choice, check_int, check_real
from gramcore._core import spec as _native
from gramcore.ngram import SuffixAutomaton
from gramcore.spec.base import Context, Drafter, DraftTree, IntArray
from gramcore.spec.trees import beside

__all__ = ["SuffixDrafter"]

_PATIENCE = 4  # how much longer another match must be than the cursor's agreement to be followed instead
_COPYING = 4  # tokens by which a place in a copy counts longer than its agreement


class SuffixDrafter(Drafter):
    """What followed the longest earlier occurrence of the current suffix, in O(1) per token at any length.

    Two automata are followed: one of the request's own tokens, grown as they are committed, and optionally a fixed one
    of a corpus. The corpus is used when its match is longer by more than ``corpus_bias`` tokens. Beside them a cursor
    follows a passage that is being copied with small edits: after a difference it goes on behind the replaced, inserted
    or left-out tokens, where a match of one or two tokens would point anywhere. The draft has
    ``min(budget, floor(length_per_match * match_len))`` tokens; shorter matches than ``min_match`` give none.

    As a tree, the text's continuation is joined by the most probable continuations under its n-gram counts (orders 1 to
    4, blended with escape; the first token of the main branch counts with probability ``(L - 2) / (L + 3)``), and the
    corpus gives its most frequent continuations, best first; when the text wins, the corpus has a third of the budget.

    Args:
        corpus: automaton of other text (documents closed by ``add_sequence``); it must not change meanwhile.
        min_match: ``>= 1``; shortest useful match.
        length_per_match: ``> 0``; alpha of the paper.
        corpus_bias: ``>= 0``; l_bias of the paper.
        pick: ``"recent"``, ``"frequent"`` or ``"first"`` occurrence (``"frequent"`` costs a pass over the automaton).
        tree: draft trees instead of chains.
        width: ``>= 1``; K, children of a node and nodes of a depth in trees from the corpus.
        follow_edits: use the cursor.

    Differs from paper: the most recent occurrence by default (the paper: the first); the cursor; own text in trees.
    Reference: Hu et al. 2024, arXiv:2411.10666, section 3.

    >>> import numpy as np
    >>> from gramcore.spec import Context, CounterRng, Sampling, SuffixDrafter
    >>> drafter = SuffixDrafter()
    >>> text = np.int32([5, 6, 7, 8, 5, 6])
    >>> drafter.observe(text)
    >>> drafter.propose(Context(text, 6, Sampling(), CounterRng(0)), budget=3).tokens
    array([7, 8, 5], dtype=int32)
    """

    bounded = True

    def __init__(
        self,
        *,
        corpus: SuffixAutomaton | None = None,
        min_match: int = 2,
        length_per_match: float = 4.0,
        corpus_bias: int = 5,
        pick: str = "recent",
        tree: bool = False,
        width: int = 8,
        follow_edits: bool = True,
    ) -> None:
        if corpus is not None and not isinstance(corpus, SuffixAutomaton):
            raise TypeError(f"corpus must be a SuffixAutomaton, got {type(corpus).__name__}")
        self.corpus = corpus
        self.min_match = check_int("min_match", min_match, low=1)
        self.length_per_match = check_real("length_per_match", length_per_match, low=0, low_open=True)
        self.corpus_bias = check_int("corpus_bias", corpus_bias, low=0)
        self.pick = check_choice("pick", pick, ("recent", "frequent", "first"))
        self.tree = tree
        self.width = check_int("width", width, low=1)
        self.follow_edits = follow_edits
        self._text = SuffixAutomaton()
        self._cursor = _native.CopyCursor() if follow_edits else None
        self._counts = _native.NgramTable(1, 4, False) if tree else None
        self._matcher = corpus.matcher() if corpus is not None else None

    @property
    def match_len(self) -> int:
        """Length of the longer of the two current matches."""
        return max(self._text.match_len, self._matcher.match_len if self._matcher else 0)

    def propose(self, ctx: Context, budget: int) -> DraftTree:
        own, copying = self._own()
        other = self._matcher.match_len if self._matcher is not None else 0
        if other < self.min_match:
            return self._from_text(own, copying, budget)
        if other - self.corpus_bias > own:
            return self._from_corpus(other, budget)
        if self._counts is None:
            return self._from_text(own, copying, budget)
        third = budget // 3
        return beside([self._from_text(own, copying, budget - third), self._from_corpus(other, third)], budget)

    def _from_text(self, match: int, copying: bool, budget: int) -> DraftTree:
        length = min(budget, int(self.length_per_match * match)) if match >= self.min_match else 0
        if length and copying and self._cursor is not None:
            chain = self._cursor.propose(length)
        else:
            chain = self._text.propose(length, by=self.pick)
        if self._counts is None:
            return DraftTree.chain(chain, strength=match)
        tokens, parents = self._counts.propose_tree(budget, chain, max(0, match - 2) / (match + 3))
        return DraftTree(tokens, parents, strength=match)

    def _from_corpus(self, match: int, budget: int) -> DraftTree:
        assert self._matcher is not None
        length = min(budget, int(self.length_per_match * match))
        if self.tree:
            return DraftTree(*self._matcher.propose_tree(length, width=self.width), strength=match)
        return DraftTree.chain(self._matcher.propose(length, by=self.pick), strength=match)

    def _own(self) -> tuple[int, bool]:
        """How long the text's own match counts, and whether it is the cursor's."""
        match = self._text.match_len
        if self._cursor is not None:
            place, agreement = self._cursor.source()
            if place >= 0 and match <= (agreement + _PATIENCE if agreement else 1):
                return agreement + _COPYING, True
        return match, False

    def observe(self, accepted: IntArray) -> None:
        if self._matcher is not None:
            self._matcher.advance(accepted)
        for follower in self._followers():
            follower.extend(accepted)

    def rollback(self, n: int) -> None:
        for follower in self._followers():
            follower.rollback(n)
        if self._matcher is not None:
            self._matcher.reset()
            self._matcher.advance(self._text.tokens)

    def _followers(self) -> list[Any]:
        return [part for part in (self._text, self._cursor, self._counts) if part is not None]

    def fork(self) -> SuffixDrafter:
        return SuffixDrafter(
            corpus=self.corpus,
            min_match=self.min_match,
            length_per_match=self.length_per_match,
            corpus_bias=self.corpus_bias,
            pick=self.pick,
            tree=self.tree,
            width=self.width,
            follow_edits=self.follow_edits,
        )
