"""Drafts by suffix automaton: from the request's own text, and from a corpus."""

from __future__ import annotations

import numpy as np

from gramcore._checks import check_choice, check_int, check_real
from gramcore.ngram import SuffixAutomaton
from gramcore.spec.base import Context, Drafter, DraftTree, IntArray

__all__ = ["SuffixDrafter"]


class SuffixDrafter(Drafter):
    """What followed the longest earlier occurrence of the current suffix, in O(1) per token at any length.

    Two automata are followed: one of the request's own tokens, grown as they are committed, and optionally a fixed one
    of a corpus. The corpus is used when its match is longer by more than ``corpus_bias`` tokens. The draft has
    ``min(budget, floor(length_per_match * match_len))`` tokens; shorter matches than ``min_match`` give none.

    Args:
        corpus: automaton of other text (documents closed by ``add_sequence``); it must not change meanwhile.
        min_match: ``>= 1``; shortest useful match.
        length_per_match: ``> 0``; alpha of the paper.
        corpus_bias: ``>= 0``; l_bias of the paper.
        pick: ``"recent"``, ``"frequent"`` or ``"first"`` occurrence (``"frequent"`` costs a pass over the automaton).
        tree: also draft the corpus' continuation beside the text's when both match, as a second branch.

    Differs from paper: the most recent occurrence by default (the paper: the first); the corpus gives a chain.
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
    ) -> None:
        if corpus is not None and not isinstance(corpus, SuffixAutomaton):
            raise TypeError(f"corpus must be a SuffixAutomaton, got {type(corpus).__name__}")
        self.corpus = corpus
        self.min_match = check_int("min_match", min_match, low=1)
        self.length_per_match = check_real("length_per_match", length_per_match, low=0, low_open=True)
        self.corpus_bias = check_int("corpus_bias", corpus_bias, low=0)
        self.pick = check_choice("pick", pick, ("recent", "frequent", "first"))
        self.tree = tree
        self._text = SuffixAutomaton()
        self._matcher = corpus.matcher() if corpus is not None else None

    @property
    def match_len(self) -> int:
        """Length of the longer of the two current matches."""
        return max(self._text.match_len, self._matcher.match_len if self._matcher else 0)

    def propose(self, ctx: Context, budget: int) -> DraftTree:
        own = self._text.match_len
        other = self._matcher.match_len if self._matcher else 0
        sources = [(own, self._text), (other, self._matcher)]
        if other - self.corpus_bias > own:
            sources.reverse()
        chains = [
            source.propose(min(budget, int(self.length_per_match * match)), by=self.pick)
            for match, source in sources
            if source is not None and match >= self.min_match
        ]
        if not chains:
            return DraftTree.empty()
        if not self.tree or len(chains) == 1:
            return DraftTree.chain(chains[0])
        return _beside(chains[0], chains[1][: budget // 3], budget)

    def observe(self, accepted: IntArray) -> None:
        if self._matcher is not None:
            self._matcher.advance(accepted)
        self._text.extend(accepted)

    def rollback(self, n: int) -> None:
        self._text.rollback(n)
        if self._matcher is not None:
            self._matcher.reset()
            self._matcher.advance(self._text.tokens)

    def fork(self) -> SuffixDrafter:
        return SuffixDrafter(
            corpus=self.corpus,
            min_match=self.min_match,
            length_per_match=self.length_per_match,
            corpus_bias=self.corpus_bias,
            pick=self.pick,
            tree=self.tree,
        )


def _beside(first: IntArray, second: IntArray, budget: int) -> DraftTree:
    """Two chains from the root as one tree, their common beginning merged, the second one whole."""
    main = DraftTree.chain(first[: budget - len(second)])
    tokens = [*main.tokens, *second]
    parents = [*main.parents, *(i - 1 if i > len(main) else -1 for i in range(len(main), len(tokens)))]
    return DraftTree(np.array(tokens, np.int32), np.array(parents, np.int32)).pruned(None, budget)
