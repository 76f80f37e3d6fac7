"""Regular expressions against Python's own engine, masks against accept for every token."""

from __future__ import annotations

import contextlib
import itertools
import re

import numpy as np
import pytest
from gramcore.grammar import (
    BatchMatcher,
    Grammar,
    GrammarCompiler,
    GrammarMatcher,
    GrammarTooComplex,
    TokenizerInfo,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.grammar import brute_mask, brute_regex_prefixes

TOY = [b"a", b"b", b"c", b"ab", b"ba", b"abc", b"cc", b"aab", b"", b"</s>", b"x"]
INFO = TokenizerInfo(TOY, special=[8], stop=[9])

_leaf = st.sampled_from(["a", "b", "c", "[ab]", "[^a]", ".", "", r"\w"])
regexes = st.recursive(
    _leaf,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: p[0] + p[1]),
        st.tuples(inner, inner).map(lambda p: f"(?:{p[0]}|{p[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{,2}", "{2,}", "*?"])).map(
            lambda p: f"(?:{p[0]}){p[1]}"
        ),
    ),
    max_leaves=8,
)


def matcher_of(text: str, info: TokenizerInfo = INFO, **options: bool) -> GrammarMatcher | None:
    try:
        return GrammarMatcher(GrammarCompiler(info).compile(Grammar.from_regex(text, **options)))
    except ValueError as error:
        if "matches none" not in str(error):
            raise
        return None


@given(regexes)
def test_full_match_is_pythons(pattern: str) -> None:
    matcher = matcher_of(pattern)
    assert matcher is not None
    for n in range(5):
        for letters in itertools.product("abc\n", repeat=n):
            text = "".join(letters)
            ok = not text or matcher.accept_bytes(text.encode())
            assert (ok and matcher.can_terminate()) == bool(re.fullmatch(pattern, text, re.ASCII)), text
            matcher.reset()


@given(regexes, st.lists(st.integers(0, len(TOY) - 1), max_size=6))
def test_mask_is_what_accept_takes(pattern: str, tokens: list[int]) -> None:
    matcher = matcher_of(pattern)
    assert matcher is not None
    out = np.full((2, 3), -1, np.int32)
    for token in [*tokens, None]:
        assert matcher.fill_bitmask(out, 1)
        expected = brute_mask(matcher, len(TOY))
        assert [bool(out[1, t // 32] >> (t % 32) & 1) for t in range(len(TOY))] == expected
        assert out[1, 1] == 0
        assert out[1, 2] == 0
        assert (out[0] == -1).all()
        assert matcher.allowed_tokens().tolist() == [t for t, ok in enumerate(expected) if ok]
        if token is None or not matcher.accept(token):
            break


@given(regexes)
def test_accept_is_prefix_of_some_match(pattern: str) -> None:
    matcher = matcher_of(pattern)
    assert matcher is not None
    prefixes = brute_regex_prefixes(pattern, "abc", 6)
    for text in prefixes[:200]:
        assert not text or matcher.accept_bytes(text.encode())
        matcher.reset()


@given(regexes, regexes)
def test_intersection_and_complement(a: str, b: str) -> None:
    both = matcher_of(f"(?:{a})&~(?:{b})", boolean_operators=True)
    seen = False
    for n in range(4):
        for letters in itertools.product("abc", repeat=n):
            text = "".join(letters)
            expected = bool(re.fullmatch(a, text, re.ASCII)) and not re.fullmatch(b, text, re.ASCII)
            seen |= expected
            if both is None:
                assert not expected
                continue
            ok = not text or both.accept_bytes(text.encode())
            assert (ok and both.can_terminate()) == expected
            both.reset()


@given(regexes, st.lists(st.integers(0, len(TOY) - 1), max_size=8), st.integers(0, 8))
def test_rollback_and_fork_restore(pattern: str, tokens: list[int], back: int) -> None:
    matcher = matcher_of(pattern)
    assert matcher is not None
    masks = [matcher.allowed_tokens().tolist()]
    for token in tokens:
        if matcher.accept(token):
            masks.append(matcher.allowed_tokens().tolist())
    n = min(back, matcher.num_steps)
    fork = matcher.fork()
    matcher.rollback(n)
    assert matcher.allowed_tokens().tolist() == masks[len(masks) - 1 - n]
    assert fork.allowed_tokens().tolist() == masks[-1]
    fork.reset()
    assert fork.allowed_tokens().tolist() == masks[0]
    with pytest.raises(ValueError, match="steps taken"):
        matcher.rollback(matcher.num_steps + 1)


def test_stop_tokens_end_the_text() -> None:
    matcher = matcher_of("ab?")
    assert matcher is not None
    assert not matcher.accept(9)
    assert matcher.accept(0)
    assert matcher.can_terminate()
    assert matcher.allowed_tokens().tolist() == [1, 9]
    assert matcher.accept(9)
    assert matcher.is_terminated()
    assert not matcher.accept(1)
    assert matcher.allowed_tokens().size == 0
    matcher.rollback(1)
    assert not matcher.is_terminated()


def test_unicode_and_split_characters() -> None:
    tokens = [bytes([b]) for b in range(256)] + ["é".encode(), "日本".encode()]
    info = TokenizerInfo(tokens)
    matcher = matcher_of("[à-ü]日.{1,2}", info)
    assert matcher is not None
    for byte in "é日𝄞".encode():
        assert matcher.allowed_tokens().tolist() == [t for t, ok in enumerate(brute_mask(matcher, len(tokens))) if ok]
        assert matcher.accept(byte)
    assert matcher.can_terminate()
    matcher.reset()
    assert matcher.accept(256)
    assert matcher.accept(257)
    assert matcher.can_terminate()
    matcher.reset()
    assert not matcher.accept_bytes(b"\xff")


def test_counted_repetition_costs_nothing() -> None:
    compiled = GrammarCompiler(INFO).compile(Grammar.from_regex("(?:a{1000000}|b{0,1000000000})"))
    matcher = GrammarMatcher(compiled)
    assert matcher.accept_bytes(b"b" * 1000)
    assert matcher.can_terminate()
    assert compiled.num_states < 2000


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(b", "line 1, column 2"),
        ("a)", "line 1, column 2"),
        ("ab\n[c", "line 2, column 1"),
        ("*a", "line 1, column 1"),
        ("a{3,1}", "min <= max"),
        (r"\1", "back references"),
        ("(?=a)", "look-around"),
        (r"[z-a]", "range must ascend"),
        (r"\u12", "hexadecimal"),
        ("a{9999999999}", "at most"),
        ("a^b", "anchors"),
        ("[]", "character class must be closed"),
    ],
)
def test_parse_errors_say_where(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Grammar.from_regex(pattern)


def test_anchors_at_the_ends() -> None:
    matcher = matcher_of("^(?:a|bc)$")
    assert matcher is not None
    assert matcher.accept_bytes(b"bc")
    assert matcher.can_terminate()


def test_budgets_are_kept() -> None:
    with pytest.raises(GrammarTooComplex, match="nest at most"):
        Grammar.from_regex("(" * 5000 + ")" * 5000)
    compiled = GrammarCompiler(INFO, max_states=50).compile(Grammar.from_regex("(?:a|b)*a(?:a|b){12}c"))
    matcher = GrammarMatcher(compiled)
    rng = np.random.default_rng(0)
    text = bytes(rng.integers(ord("a"), ord("c"), 400, dtype=np.uint8))
    with pytest.raises(GrammarTooComplex, match="states"):
        matcher.accept_bytes(text)


@given(st.text(max_size=20))
def test_any_text_parses_or_is_refused(text: str) -> None:
    with contextlib.suppress(ValueError, GrammarTooComplex):
        grammar = Grammar.from_regex(text, boolean_operators=True)
        matcher = GrammarMatcher(GrammarCompiler(INFO).compile(grammar))
        assert matcher.allowed_tokens().tolist() == [t for t, ok in enumerate(brute_mask(matcher, len(TOY))) if ok]


def test_bad_arguments() -> None:
    matcher = matcher_of("a")
    assert matcher is not None
    with pytest.raises(ValueError, match="token must be in"):
        matcher.accept(len(TOY))
    with pytest.raises(ValueError, match="row must be in"):
        matcher.fill_bitmask(np.zeros((2, 1), np.int32), 2)
    with pytest.raises(ValueError, match="at least 1 words"):
        matcher.fill_bitmask(np.zeros((1, 0), np.int32))
    with pytest.raises(ValueError, match="out must have dtype int32"):
        matcher.fill_bitmask(np.zeros((1, 1), np.int64))
    batch = BatchMatcher([matcher, matcher.fork()])
    with pytest.raises(ValueError, match="rows must differ"):
        batch.fill_bitmasks(np.zeros((2, 1), np.int32), rows=[1, 1])
    with pytest.raises(TypeError, match="must be a Grammar, got str"):
        GrammarCompiler(INFO).compile("a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_states must be in"):
        GrammarCompiler(INFO, max_states=0)
    with pytest.raises(IndexError):
        TokenizerInfo([b"a"], stop=[1])
