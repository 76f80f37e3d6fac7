"""Suffix drafts: against brute force, with a corpus, and as two branches."""

from __future__ import annotations

import numpy as np
import pytest
from gramcore.ngram import SuffixAutomaton
from gramcore.spec import Context, CounterRng, Sampling, SuffixDrafter
from hypothesis import given
from hypothesis import strategies as st


def context(text: list[int]) -> Context:
    return Context(np.array(text, np.int32), len(text), Sampling(), CounterRng(0))


def longest_match(text: list[int]) -> int:
    for n in range(len(text) - 1, 0, -1):
        if any(text[i : i + n] == text[len(text) - n :] for i in range(len(text) - n)):
            return n
    return 0


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 12), st.integers(1, 3))
def test_drafts_continue_an_occurrence_of_the_longest_match(text: list[int], budget: int, min_match: int) -> None:
    drafter = SuffixDrafter(min_match=min_match, length_per_match=2.0, pick="first")
    drafter.observe(np.array(text, np.int32))
    match = longest_match(text)
    assert drafter.match_len == match
    draft = drafter.propose(context(text), budget).tokens.tolist()
    if match < min_match:
        assert draft == []
        return
    assert 1 <= len(draft) <= min(budget, 2 * match)
    suffix = text[len(text) - match :]
    whole = text + draft
    ends = [i + match for i in range(len(text) - match) if text[i : i + match] == suffix]
    assert any(whole[e : e + len(draft)] == draft for e in ends)


def test_a_corpus_is_used_when_its_match_is_longer() -> None:
    corpus = SuffixAutomaton()
    corpus.add_sequence(np.arange(100, 140, dtype=np.int32))
    text = [7, 8, 7, *range(100, 110)]
    own, both = SuffixDrafter(), SuffixDrafter(corpus=corpus)
    for drafter in (own, both):
        drafter.observe(np.array(text, np.int32))
    assert own.propose(context(text), 5).tokens.tolist() == []
    assert both.propose(context(text), 5).tokens.tolist() == [110, 111, 112, 113, 114]
    both.observe(np.int32([7]))
    both.rollback(1)
    assert both.propose(context(text), 2).tokens.tolist() == [110, 111]
    near = SuffixDrafter(corpus=corpus, corpus_bias=10)
    repeated = [100, 101, 102, 5, 100, 101, 102]
    near.observe(np.array(repeated, np.int32))
    assert near.propose(context(repeated), 2).tokens.tolist() == [5, 100]


def test_both_continuations_become_branches() -> None:
    corpus = SuffixAutomaton()
    corpus.add_sequence(np.int32([1, 2, 3, 4, 9, 9, 8]))
    text = [1, 2, 3, 4, 5, 6, 1, 2, 3, 4]
    drafter = SuffixDrafter(corpus=corpus, tree=True)
    drafter.observe(np.array(text, np.int32))
    tree = drafter.propose(context(text), 9)
    tree.check(10)
    paths = [[int(tree.tokens[i]) for i in tree.path_to(node)] for node in range(len(tree))]
    assert [5, 6, 1, 2] in paths
    assert [9, 9, 8] in paths
    assert len(tree) <= 9


@pytest.mark.parametrize("bad", [{"min_match": 0}, {"length_per_match": 0}, {"corpus_bias": -1}, {"pick": "any"}])
def test_arguments_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        SuffixDrafter(**bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="corpus must be a SuffixAutomaton"):
        SuffixDrafter(corpus=[1, 2])  # type: ignore[arg-type]
