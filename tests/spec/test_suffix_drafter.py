"""Suffix drafts: against brute force, with a corpus, and as two branches."""

from __future__ import annotations

import numpy as np
import pytest
from gramcore._core import spec as native
from gramcore.ngram import SuffixAutomaton
from gramcore.spec import Context, CounterRng, Sampling, SuffixDrafter
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import spec as reference


def context(text: list[int]) -> Context:
    return Context(np.array(text, np.int32), len(text), Sampling(), CounterRng(0))


def longest_match(text: list[int]) -> int:
    for n in range(len(text) - 1, 0, -1):
        if any(text[i : i + n] == text[len(text) - n :] for i in range(len(text) - n)):
            return n
    return 0


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 12), st.integers(1, 3))
def test_drafts_continue_an_occurrence_of_the_longest_match(text: list[int], budget: int, min_match: int) -> None:
    drafter = SuffixDrafter(min_match=min_match, length_per_match=2.0, pick="first", follow_edits=False)
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


@pytest.mark.parametrize(
    "bad", [{"min_match": 0}, {"length_per_match": 0}, {"corpus_bias": -1}, {"pick": "any"}, {"width": 0}]
)
def test_arguments_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        SuffixDrafter(**bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="corpus must be a SuffixAutomaton"):
        SuffixDrafter(corpus=[1, 2])  # type: ignore[arg-type]


def edited_copy(seed: int, alphabet: int, length: int = 200) -> list[int]:
    """A text and a copy of it with replaced, inserted and left-out tokens."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, alphabet, length).tolist()
    copy: list[int] = []
    place = 0
    while place < length:
        run = int(rng.integers(3, 30))
        copy += first[place : place + run]
        place += run + int(rng.integers(0, 4))
        copy += rng.integers(0, alphabet, int(rng.integers(0, 3))).tolist()
    return first + copy


@pytest.mark.parametrize("alphabet", [2, 5, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_the_cursor_is_its_twin(seed: int, alphabet: int) -> None:
    text = edited_copy(seed, alphabet)
    cursor, twin = native.CopyCursor(), reference.Cursor()
    for token in text:
        cursor.extend(np.int32([token]))
        twin.append(token)
        place, agreement = cursor.source()
        assert (place, agreement) == twin.source()
        draft = cursor.propose(12).tolist()
        whole = text[: len(twin.text)] + draft
        assert draft == (whole[place : place + 12] if place >= 0 else [])
    whole = native.CopyCursor()
    whole.extend(np.int32(text))
    assert whole.source() == cursor.source()
    whole.extend(np.int32([3, 1, 4]))
    whole.rollback(3)
    assert whole.source() == cursor.source()
    with pytest.raises(ValueError, match="n must be in"):
        whole.rollback(len(text) + 1)


def test_the_cursor_survives_growth_and_long_runs() -> None:
    cursor, twin = native.CopyCursor(), reference.Cursor()
    for text in ([7] * 60, np.random.default_rng(0).integers(0, 30, 1500).tolist(), [1, 2, 3] * 30):
        cursor.extend(np.int32(text))
        for token in text:
            twin.append(token)
        assert cursor.source() == twin.source()
    assert cursor.num_tokens == 1650


def test_edits_are_followed() -> None:
    rng = np.random.default_rng(1)
    first = rng.integers(0, 50, 60).tolist()
    for name, text, rest in [
        ("replaced", [*first, *first[:20], 99], first[21:]),
        ("inserted", [*first, *first[:20], 99, 98, first[20]], first[21:]),
        ("left out", [*first, *first[:20], first[23]], first[24:]),
    ]:
        drafter = SuffixDrafter()
        drafter.observe(np.int32(text))
        assert drafter.propose(context(text), 8).tokens.tolist() == rest[:8], name


@given(st.lists(st.integers(0, 3), min_size=1, max_size=50), st.integers(0, 9), st.integers(0, 3), st.integers(0, 9))
def test_trees_of_counts_are_the_most_probable_paths(text: list[int], budget: int, chained: int, share: int) -> None:
    table = native.NgramTable(1, 3, False)
    table.extend(np.int32(text))
    chain = [(text[-1] + i) % 4 for i in range(chained)]
    tokens, parents = table.propose_tree(budget, np.int32(chain), share / 10)
    expected = reference.escape_tree(text, budget, 1, 3, chain, share / 10)
    paths: list[tuple[int, ...]] = []
    for token, parent in zip(tokens.tolist(), parents.tolist(), strict=True):
        paths.append((*(paths[parent] if parent >= 0 else ()), token))
    assert len(set(paths)) == len(paths) == len(expected)
    # equal values may be taken in either order, so what is compared is the value of what was taken
    every = reference.escape_tree(text, 4 * budget, 1, 3, chain, share / 10)
    got = sorted((every[p] for p in paths), reverse=True)
    np.testing.assert_allclose(got, sorted(expected.values(), reverse=True), rtol=1e-12)


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=4),
    st.integers(0, 8),
    st.integers(1, 3),
)
def test_corpus_trees_are_best_first_by_counts(corpus: list[list[int]], nodes: int, width: int) -> None:
    automaton = SuffixAutomaton()
    for document in corpus:
        automaton.add_sequence(np.int32(document))
    matcher = automaton.matcher()
    matcher.advance(np.int32(corpus[0][:2]))
    tokens, parents = matcher.propose_tree(nodes, width=width)
    paths: list[tuple[int, ...]] = []
    for token, parent in zip(tokens.tolist(), parents.tolist(), strict=True):
        paths.append((*(paths[parent] if parent >= 0 else ()), token))
    match = corpus[0][:2]
    expected = reference.count_tree(corpus, match[len(match) - matcher.match_len :], nodes, width)
    assert sorted(map(len, paths)) == sorted(map(len, expected))
    assert paths[:1] == expected[:1]
    if width == 3:  # nothing is crowded out, so ties cannot change what is taken unless at the very end
        assert set(paths[: nodes // 2]) <= set(reference.count_tree(corpus, match[-matcher.match_len :], 99, width))


def test_a_tree_from_the_corpus() -> None:
    corpus = SuffixAutomaton()
    for document in ([1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3, 4], [1, 2, 6]):
        corpus.add_sequence(np.int32(document))
    drafter = SuffixDrafter(corpus=corpus, corpus_bias=0, tree=True)
    drafter.observe(np.int32([1, 2]))
    tree = drafter.propose(context([1, 2]), 4)  # 3: 3/4; 3 4: 3/4 2/3; then 6 and 3 5, both 1/4
    assert tree.tokens.tolist() == [3, 4, 5, 6]
    assert tree.parents.tolist() == [-1, 0, 0, -1]
