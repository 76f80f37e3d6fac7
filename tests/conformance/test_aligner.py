"""What every registered aligner keeps: arguments, determinism, state, only allowed texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gramcore._registry import Row, rows
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo

ALIGNERS = rows(protocol="aligner")
INFO = TokenizerInfo([b"0", b"1", b"2", b"</s>"], stop=[3])


@pytest.fixture(params=ALIGNERS, ids=lambda r: r.name)
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


def matcher() -> GrammarMatcher:
    return GrammarMatcher(GrammarCompiler(INFO).compile(Grammar.from_regex("0(1|22)*")))


def logits(tokens: list[int]) -> np.ndarray:
    return np.array([1.0, len(tokens) % 3, 0.5, 0.3], np.float32)


def draw(made: Any, seed: int) -> list[int]:
    tokens: list[int] = made.sample(logits, matcher(), max_new_tokens=20, rng=np.random.default_rng(seed)).tokens
    return tokens


def test_texts_stay_inside_the_grammar(row: Row) -> None:
    made = row.load()(**row.test_kwargs)
    for seed in range(20):
        walk = matcher()
        assert all(walk.accept(t) for t in draw(made, seed))


def test_same_seed_and_state_same_text(row: Row, tmp_path: Path) -> None:
    first, second = (row.load()(**row.test_kwargs) for _ in range(2))
    assert [draw(first, s) for s in range(5)] == [draw(second, s) for s in range(5)]
    first.save(tmp_path / "state")
    loaded = row.load()(**row.test_kwargs)
    loaded.load(tmp_path / "state")
    assert [draw(first, s) for s in range(5)] == [draw(loaded, s) for s in range(5)]
    assert 0.0 < first.allowed_frac <= 1.0
    first.reset()
    assert (first.allowed_frac, first.num_nodes) == (1.0, 1)


def test_bad_arguments_are_named(row: Row) -> None:
    make = row.load()
    for bad in ({"vocab_size": 0}, {"vocab_size": 4, "temperature": -1.0}):
        with pytest.raises(ValueError, match="must be in"):
            make(**bad)
    made = make(**row.test_kwargs)
    with pytest.raises(ValueError, match="max_new_tokens"):
        made.sample(logits, matcher(), max_new_tokens=0, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least 4 entries"):
        made.sample(lambda t: np.zeros(2), matcher(), max_new_tokens=3, rng=np.random.default_rng(0))
