"""What every registered grammar front end keeps: exact masks, clear refusals, determinism."""

from __future__ import annotations

from typing import Any

import pytest
from gramcore._registry import Row, rows
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo

FRONT_ENDS = rows(protocol="grammar_front_end")
TOKENS = [bytes([b]) for b in range(128)] + [b"ab", b'"a', b"12", b"[[", b"tr", b"</s>"]
INFO = TokenizerInfo(TOKENS, stop=[len(TOKENS) - 1])


def make(row: Row) -> Grammar:
    grammar: Any = row.load()(**row.test_kwargs)
    assert isinstance(grammar, Grammar)
    return grammar


@pytest.mark.parametrize("row", FRONT_ENDS, ids=lambda r: r.name)
def test_mask_bits_are_what_accept_takes(row: Row) -> None:
    matcher = GrammarMatcher(GrammarCompiler(INFO).compile(make(row)))
    for _ in range(12):
        allowed = []
        for token in range(len(TOKENS)):
            if matcher.accept(token):
                matcher.rollback(1)
                allowed.append(token)
        assert matcher.allowed_tokens().tolist() == allowed
        if not allowed or not matcher.accept(allowed[len(allowed) // 2]):
            break


@pytest.mark.parametrize("row", FRONT_ENDS, ids=lambda r: r.name)
def test_compiling_twice_gives_the_same_masks(row: Row) -> None:
    first, second = (GrammarMatcher(GrammarCompiler(INFO).compile(make(row))) for _ in range(2))
    for _ in range(8):
        allowed = first.allowed_tokens().tolist()
        assert allowed == second.allowed_tokens().tolist()
        if not allowed or not (first.accept(allowed[0]) and second.accept(allowed[0])):
            break


@pytest.mark.parametrize("row", FRONT_ENDS, ids=lambda r: r.name)
def test_nonsense_is_refused_in_one_sentence(row: Row) -> None:
    with pytest.raises(ValueError) as refused:
        row.load()("((")
    assert "\n" not in str(refused.value)
    assert "got" in str(refused.value)


@pytest.mark.parametrize("row", FRONT_ENDS, ids=lambda r: r.name)
def test_documented(row: Row) -> None:
    assert "Raises:" in (row.load().__doc__ or "")
