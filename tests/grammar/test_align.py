"""ASAp and AprAD: weights against their definition, laws against enumeration."""

from __future__ import annotations

import collections
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gramcore._core import grammar as native
from gramcore.errors import FormatError
from gramcore.grammar import AprAD, ASAp, Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.grammar_align import Prefix, aprad_law, conditional_law, divergence, keep_count, weight

SYMBOLS = 3


def model(prefix: Prefix) -> list[float]:
    """A fixed law that depends on the whole prefix."""
    mass = [1.0 + (7 * sum((i + 2) * (t + 1) for i, t in enumerate(prefix)) + 5 * s) % 11 for s in range(SYMBOLS)]
    return [m / sum(mass) for m in mass]


def logits(prefix: Any) -> np.ndarray:
    return np.log(np.array(model(tuple(prefix)), np.float32))


def grow(trie: Any, prefix: Prefix) -> int:
    node = 0
    for i, token in enumerate(prefix):
        node = trie.enter(node, token, math.log(model(prefix[:i])[token]))
    return node


@given(st.lists(st.lists(st.integers(0, SYMBOLS - 1), min_size=1, max_size=4).map(tuple), max_size=8))
def test_weights_are_the_mass_that_is_left(bad: list[Prefix]) -> None:
    trie = native.MassTrie(SYMBOLS)
    for b in bad:
        trie.exclude(grow(trie, b))
    trie.check_integrity()
    for prefix in {b[:i] for b in bad for i in range(len(b) + 1)}:
        assert math.exp(trie.log_weight(grow(trie, prefix))) == pytest.approx(weight(model, bad, prefix), abs=1e-9)


@given(
    st.lists(st.lists(st.integers(0, SYMBOLS - 1), min_size=1, max_size=4).map(tuple), max_size=5),
    st.lists(st.integers(0, SYMBOLS - 1), min_size=1, max_size=4).map(tuple),
    st.lists(st.floats(0.01, 0.99), min_size=4, max_size=4),
)
def test_backtracking_keeps_what_the_definition_keeps(old: list[Prefix], bad: Prefix, uniforms: list[float]) -> None:
    if any(weight(model, old, bad[: i + 1]) < 1e-9 for i in range(len(bad))):
        return  # could not have been drawn
    trie = native.MassTrie(SYMBOLS)
    for b in old:
        trie.exclude(grow(trie, b))
    node = grow(trie, bad)
    kept = trie.backtrack(node, 0, np.array(uniforms[: len(bad)]))
    assert kept == keep_count(model, set(old), bad, uniforms[: len(bad)])
    assert kept < len(bad)


def test_edit_masks_and_weighs_a_row() -> None:
    trie = native.MassTrie(40)
    row = np.linspace(-2, 1, 40).astype(np.float32)
    bits = np.array([0x0000FFFF, 0x01], np.uint32).view(np.int32)
    total = np.log(np.exp(row.astype(np.float64)).sum())
    edited = row.copy()
    assert trie.edit(0, edited, bits) == pytest.approx(total, abs=1e-6)
    allowed = [*range(16), 32]
    assert [t for t in range(40) if np.isfinite(edited[t])] == allowed
    left = np.exp(row[allowed].astype(np.float64) - total).sum()
    assert math.exp(trie.log_weight(0)) == pytest.approx(left, rel=1e-6)
    child = trie.enter(0, 3, float(row[3]) - total)
    trie.exclude(child)
    again = row.copy()
    trie.edit(0, again, bits)
    assert again[3] == -np.inf
    assert again[4] == row[4]
    assert math.exp(trie.log_weight(0)) == pytest.approx(left - math.exp(float(row[3]) - total), rel=1e-6)


# Five texts of three tokens over {0, 1, 2}, and a stop token that the model wants after three tokens.
GRAMMAR = "000|011|12[02]|2(00|21)"


def words() -> set[Prefix]:
    return {(0, 0, 0), (0, 1, 1), (1, 2, 0), (1, 2, 2), (2, 0, 0), (2, 2, 1)}


def with_stop(tokens: list[int]) -> np.ndarray:
    if len(tokens) == 3:
        return np.array([-30, -30, -30, 0], np.float32)
    return np.append(logits(tokens), np.float32(-30))


@pytest.fixture
def matcher() -> GrammarMatcher:
    info = TokenizerInfo([b"0", b"1", b"2", b"</s>"], stop=[3])
    return GrammarMatcher(GrammarCompiler(info).compile(Grammar.from_regex(GRAMMAR)))


def law_of(draws: list[Prefix], num: int) -> dict[Prefix, float]:
    return {x: n / num for x, n in collections.Counter(draws).items()}


def test_asap_tends_to_the_conditioned_law(matcher: GrammarMatcher) -> None:
    """Once every allowed prefix was seen the law is exact: chi-square over 6 texts, false alarm 1e-6."""
    sampler, rng = ASAp(4), np.random.default_rng(5)
    for _ in range(400):
        sampler.sample(with_stop, matcher, max_new_tokens=4, rng=rng)
    target = conditional_law(model, 3, lambda x: x in words())
    mass = sum(math.prod(model(x[:i])[x[i]] for i in range(3)) for x in words())
    assert sampler.allowed_frac == pytest.approx(mass, rel=1e-6)
    num = 3000
    draws = [tuple(sampler.sample(with_stop, matcher, max_new_tokens=4, rng=rng).tokens[:3]) for _ in range(num)]
    counts = collections.Counter(draws)
    assert set(counts) <= words()
    chi = sum((counts[x] - num * p) ** 2 / (num * p) for x, p in target.items())
    assert chi < 35.9, chi  # 5 degrees of freedom
    assert divergence(law_of(draws, num), target) < 0.01


def test_masking_alone_is_farther_from_the_law_than_either(matcher: GrammarMatcher) -> None:
    target = conditional_law(model, 3, lambda x: x in words())
    rng, num = np.random.default_rng(6), 3000
    prefixes = {w[:i] for w in words() for i in range(4)}
    masked = [
        tuple(ASAp(4).sample(with_stop, matcher, max_new_tokens=4, rng=rng).tokens[:3]) for _ in range(num)
    ]  # a fresh trie per sample is plain masking
    aligned = AprAD(3)
    approximate = [
        tuple(aligned.sample(logits, lambda t: tuple(t) in prefixes, max_new_tokens=3, rng=rng).tokens)
        for _ in range(num)
    ]
    assert set(masked) | set(approximate) <= words()
    assert divergence(law_of(approximate, num), target) < divergence(law_of(masked, num), target)


def test_aprad_draws_by_its_own_law() -> None:
    """Chi-square over 4 texts against the algorithm followed draw by draw, false alarm 1e-6."""
    texts: set[Prefix] = {(0, 0), (0, 1), (1, 2), (2, 0)}
    prefixes = {text[:i] for text in texts for i in range(3)}
    law = aprad_law(model, 2, lambda x: x in prefixes)
    assert set(law) == texts
    assert sum(law.values()) == pytest.approx(1)
    sampler, rng, num = AprAD(3), np.random.default_rng(7), 20_000
    draws = (sampler.sample(logits, lambda t: tuple(t) in prefixes, max_new_tokens=2, rng=rng) for _ in range(num))
    counts = collections.Counter(tuple(draw.tokens) for draw in draws)
    assert set(counts) <= texts
    chi = sum((counts[x] - num * p) ** 2 / (num * p) for x, p in law.items())
    assert chi < 30.7, chi  # 3 degrees of freedom


def test_aprad_takes_a_matcher_and_stops(matcher: GrammarMatcher) -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        text = AprAD(4).sample(with_stop, matcher, max_new_tokens=8, rng=rng)
        assert text.complete
        assert tuple(text.tokens[:3]) in words()
        assert text.tokens[3:] == [3]
    assert matcher.num_steps == 0


def test_nothing_allowed_is_an_error(matcher: GrammarMatcher) -> None:
    rng = np.random.default_rng(0)
    only_stop = np.array([-np.inf, -np.inf, -np.inf, 0], np.float32)
    with pytest.raises(ValueError, match="must allow a text"):
        AprAD(3).sample(logits, lambda t: False, max_new_tokens=3, rng=rng)
    with pytest.raises(ValueError, match="must allow a text"):
        ASAp(4).sample(lambda tokens: only_stop, matcher, max_new_tokens=3, rng=rng)


def test_saved_tries_come_back_and_damage_is_noticed(tmp_path: Path, matcher: GrammarMatcher) -> None:
    sampler, rng = ASAp(4), np.random.default_rng(1)
    for _ in range(20):
        sampler.sample(with_stop, matcher, max_new_tokens=4, rng=rng)
    file = tmp_path / "trie.bin"
    sampler.save(file)
    again = ASAp(4)
    again.load(file)
    assert (again.allowed_frac, again.num_nodes) == (sampler.allowed_frac, sampler.num_nodes)
    data = file.read_bytes()
    for broken in (b"", data[:-1], data[:40], b"x" + data[1:], data + b"\0" * 56):
        file.write_bytes(broken)
        with pytest.raises(FormatError):
            again.load(file)
    random = np.random.default_rng(3)
    for _ in range(200):
        hurt = bytearray(data)
        for _ in range(3):
            hurt[int(random.integers(len(hurt)))] = int(random.integers(256))
        file.write_bytes(hurt)
        try:
            ASAp(4).load(file)
        except ValueError:  # FormatError is one
            continue
    file.write_bytes(data)
    with pytest.raises(ValueError, match="must be for 5 tokens"):
        ASAp(5).load(file)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="vocab_size"):
        ASAp(0)
    with pytest.raises(ValueError, match="temperature"):
        AprAD(3, temperature=0)
    trie = native.MassTrie(3)
    with pytest.raises(IndexError):
        trie.exclude(1)
    with pytest.raises(ValueError, match="token must be"):
        trie.enter(0, 3, -1.0)
    with pytest.raises(ValueError, match="log_prob"):
        trie.enter(0, 1, 0.5)
    with pytest.raises(ValueError, match="must have 3 entries"):
        trie.edit(0, np.zeros(4, np.float32), None)
