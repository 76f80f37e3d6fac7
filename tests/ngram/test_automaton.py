"""The suffix automaton against brute force: matches, drafts, counts, undo, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gramcore.errors import FormatError
from gramcore.ngram import SuffixAutomaton, SuffixMatcher
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import ngram as reference

TEXTS = st.one_of(
    st.lists(st.integers(0, 1), max_size=40),
    st.lists(st.integers(0, 3), max_size=60),
    st.lists(st.sampled_from([0, 7, 2**31 - 1]), max_size=40),
)


@given(TEXTS)
def test_matches_and_drafts_equal_brute_force_at_every_step(text: list[int]) -> None:
    automaton = SuffixAutomaton()
    for i, token in enumerate(text):
        automaton.extend(token)
        so_far = text[: i + 1]
        assert automaton.match_len == reference.longest_repeat(so_far)
        assert automaton.propose(6).tolist() == reference.recent_draft(so_far, 6)
        assert automaton.propose(6, by="first").tolist() == reference.recent_draft(so_far, 6, first=True)
    automaton.check_integrity()
    assert automaton.propose(5, by="frequent").tolist() == reference.frequent_draft(text, 5)
    assert automaton.tokens.tolist() == text


@given(TEXTS, st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_counts_and_positions_equal_brute_force(text: list[int], ids: list[int]) -> None:
    automaton = SuffixAutomaton(text)
    assert automaton.positions(ids).tolist() == reference.occurrences(text, ids)
    assert automaton.count(ids) == len(reference.occurrences(text, ids))


@given(TEXTS, st.data())
def test_rollback_is_the_inverse_of_extend(text: list[int], data: st.DataObject) -> None:
    automaton = SuffixAutomaton(text)
    before = (automaton.num_states, automaton.num_transitions, automaton.match_len, automaton.propose(9).tolist())
    for _ in range(3):
        extra = data.draw(st.lists(st.integers(0, 3), max_size=12))
        automaton.extend(extra)
        automaton.check_integrity()
        automaton.rollback(len(extra))
        automaton.check_integrity()
        after = (automaton.num_states, automaton.num_transitions, automaton.match_len, automaton.propose(9).tolist())
        assert after == before
    cut = data.draw(st.integers(0, len(text)))
    automaton.rollback(cut)
    assert automaton.propose(9).tolist() == reference.recent_draft(text[: len(text) - cut], 9)


def test_large_alphabet_uses_hash_blocks_and_survives_rollback() -> None:
    rng = np.random.default_rng(1)
    ids = rng.zipf(1.3, 20000).clip(max=5000).astype(np.int32)
    automaton = SuffixAutomaton(ids[:15000])
    states = automaton.num_states
    automaton.extend(ids[15000:])
    automaton.rollback(5000)
    assert automaton.num_states == states
    automaton.check_integrity()
    assert automaton.count([1]) == int((ids[:15000] == 1).sum())
    automaton.rollback(15000)
    assert (automaton.num_states, automaton.num_transitions) == (1, 0)


def test_deep_links_still_give_a_true_occurrence() -> None:
    automaton = SuffixAutomaton([4] * 500)
    assert automaton.match_len == 499
    assert automaton.propose(3).tolist() == [4, 4, 4]
    automaton.check_integrity()
    automaton.rollback(499)
    assert automaton.match_len == 0


def test_sequences_bound_drafts_and_matcher_follows_foreign_text() -> None:
    automaton = SuffixAutomaton()
    automaton.add_sequence([1, 2, 3])
    automaton.add_sequence([7, 2, 3, 4])
    matcher = automaton.matcher()
    matcher.advance([9, 2])
    assert matcher.match_len == 1
    assert matcher.propose(4, by="first").tolist() == [3]
    assert matcher.propose(4, by="recent").tolist() == [3, 4]
    matcher.advance(np.array([3], np.int64))
    assert matcher.match_len == 2
    assert automaton.positions([2, 3]).tolist() == [1, 5]
    automaton.extend([5])
    with pytest.raises(ValueError, match="unchanged automaton"):
        matcher.advance([2])
    matcher.reset()
    matcher.advance([5])
    assert matcher.match_len == 1


def test_a_foreign_draft_stops_where_the_text_ends() -> None:
    for by in ("recent", "first", "frequent"):
        matcher = SuffixAutomaton([1, 2, 3, 4]).matcher()
        matcher.advance([9, 2, 3])
        assert matcher.propose(5, by=by).tolist() == [4]
        matcher.advance([4])
        assert matcher.propose(5, by=by).tolist() == []


@given(TEXTS, st.lists(st.integers(0, 3), max_size=20))
def test_matcher_length_equals_brute_force(text: list[int], query: list[int]) -> None:
    matcher = SuffixAutomaton(text).matcher()
    for i, token in enumerate(query):
        matcher.advance([token])
        fed = query[: i + 1]
        longest = max(n for n in range(len(fed) + 1) if n == 0 or reference.occurrences(text, fed[-n:]))
        assert matcher.match_len == longest


def test_inputs_of_every_integer_kind() -> None:
    for dtype in (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64):
        automaton = SuffixAutomaton()
        automaton.extend(np.arange(12, dtype=dtype)[::2])
        assert automaton.tokens.tolist() == [0, 2, 4, 6, 8, 10]
    automaton.clear()
    automaton.extend((1, np.int64(2)))
    assert len(automaton) == 2


def test_bad_arguments_are_named() -> None:
    automaton = SuffixAutomaton([1, 2])
    for bad in (-1, 2**31, [3, -1], np.array([2**40])):
        with pytest.raises(IndexError, match="ids must be in"):
            automaton.extend(bad)
    for bad in ([1.5], np.array([1.0]), [True], "ab", None):
        with pytest.raises(TypeError):
            automaton.extend(bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="one-dimensional"):
        automaton.extend(np.zeros((2, 2), np.int32))
    with pytest.raises(ValueError, match=r"rollback must be in \[0, 2\]"):
        automaton.rollback(3)
    with pytest.raises(ValueError, match="by must be one of"):
        automaton.propose(1, by="last")
    with pytest.raises(ValueError, match="max_tokens"):
        automaton.propose(-1)
    for propose in (automaton.propose, SuffixMatcher(automaton).propose):
        with pytest.raises(TypeError, match="max_tokens must be an int"):
            propose(2.5)  # type: ignore[arg-type]
    assert automaton.tokens.tolist() == [1, 2]


def test_file_round_trip_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.sa"
    automaton = SuffixAutomaton([1, 2, 3, 1, 2])
    automaton.save(path)
    loaded = SuffixAutomaton.load(path)
    assert loaded.propose(3).tolist() == [3, 1, 2]
    loaded.check_integrity()
    SuffixAutomaton().save(tmp_path / "empty")
    assert SuffixAutomaton.load(tmp_path / "empty").num_tokens == 0
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:n] for n in range(len(whole))] + [whole + b"\0"]
    for _ in range(200):
        copy = bytearray(whole)
        copy[rng.integers(len(copy))] ^= int(rng.integers(1, 256))
        damaged.append(bytes(copy))
    for data in damaged:
        path.write_bytes(data)
        if data[12:16] != whole[12:16]:  # the reserved word is not read
            continue
        with pytest.raises(FormatError):
            SuffixAutomaton.load(path)
    with pytest.raises(OSError, match="cannot open"):
        SuffixAutomaton.load(tmp_path / "missing")
