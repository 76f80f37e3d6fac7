"""Words whose bytes leave an expression as it is are taken unseen: every token is compared with accept."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo

from tests.reference.grammar import brute_mask


@pytest.fixture(scope="module")
def words() -> TokenizerInfo:
    """All words of up to four of six letters: every inner node of their trie has more than eight below it."""
    return TokenizerInfo([bytes(w) for n in (1, 2, 3, 4) for w in itertools.product(b"agz1_ ", repeat=n)])


@pytest.mark.parametrize(
    "pattern",
    [
        "[a-z]+",  # two kinds of letters, which may end anywhere
        "[a-c]+ [a-z]*",  # a part of a kind
        "[a-z_]* 1[a-z]+( [a-z]+)*",  # words behind words, over the tails of exits
        "[a-z]*z",  # leaving the letters leads back to them
        "([a-z1]{0,9}_)?[^_]*",
        "[a-z]+|[a-g]+1+|_[^a]*",
    ],
)
def test_masks_are_what_accept_takes(words: TokenizerInfo, pattern: str) -> None:
    compiled = GrammarCompiler(words).compile(Grammar.from_regex(pattern))
    rng = np.random.default_rng(len(pattern))
    for _ in range(3):
        matcher = GrammarMatcher(compiled)
        for _ in range(4):
            allowed = matcher.allowed_tokens()
            assert allowed.tolist() == np.flatnonzero(brute_mask(matcher, len(words))).tolist()
            if not len(allowed):
                break
            assert matcher.accept(int(rng.choice(allowed)))


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("x(a&b)|y", {b"y"}),  # one alternative has an empty part
        ("((a&b)|c)(d&d)", {b"cd"}),
        ("(a&b){0,2}e", {b"e"}),
        ("(~(b)&[bc])(a&b|f)", {b"cf"}),
    ],
)
def test_parts_that_match_nothing(pattern: str, texts: set[bytes]) -> None:
    info = TokenizerInfo([bytes([b]) for b in b"abcdefxy"])
    compiled = GrammarCompiler(info).compile(Grammar.from_regex(pattern, boolean_operators=True))

    def ends(matcher: GrammarMatcher, text: bytes) -> set[bytes]:
        found = {text} if matcher.can_terminate() else set()
        for token in matcher.allowed_tokens().tolist():
            after = matcher.fork()
            assert after.accept(token)
            rest = ends(after, text + info.token(token))
            assert rest, f"{text!r} leads nowhere"
            found |= rest
        return found

    assert ends(GrammarMatcher(compiled), b"") == texts
