"""Budgets of tokens: texts end in time, masks are what accept takes, and plenty of budget changes nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo
from gramcore.spec import DraftTree

from tests.reference.grammar import brute_mask

EXTRA = [b'{"', b'":', b'","', b"null", b"name", b"true", b"]}", b"aa", b"(a", b"ab", b'"}']
INFO = TokenizerInfo(
    [*(bytes([b]) for b in range(32, 127)), b"\n", *EXTRA, b"<|x|>", b"</s>"],
    special=[96 + len(EXTRA)],
    stop=[97 + len(EXTRA)],
)
STOP = 97 + len(EXTRA)
INFO_AB = 96 + EXTRA.index(b"ab")
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 2}, "n": {"type": ["integer", "null"]}},
    "required": ["name", "n"],
    "additionalProperties": False,
}
TREE = {"$ref": "#/$defs/t", "$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}, "minItems": 0}}}

GRAMMARS: list[tuple[Grammar, int]] = [  # and the tokens of its shortest text, with the stop token
    (Grammar.from_json_schema(SCHEMA, spaces=False), 13),
    (Grammar.from_json_schema(SCHEMA, spaces=False, any_order=True), 13),
    (Grammar.from_json_schema(TREE, spaces=False), 3),
    (Grammar.from_gbnf('root ::= "(" root ")" | "a" root? "b"'), 2),
    (Grammar.from_regex("[a-c]{2,9}(x|yy)z*"), 4),
    (Grammar.from_regex("a{3,}&~(aaaa*)|b{7}", boolean_operators=True), 8),
    (Grammar.from_lark('start: /[ab]*/ <|x|> "aa" | /(?:aab){3}c*/'), 3),
    (Grammar.from_json_schema({"multipleOf": 7, "minimum": 200}), 4),
    (Grammar.from_json_schema({"not": {"propertyNames": {"maxLength": 1}}, "type": "object"}, any_order=True), 9),
]


@pytest.mark.parametrize(("grammar", "least"), GRAMMARS, ids=[str(i) for i in range(len(GRAMMARS))])
def test_random_texts_end_in_time(grammar: Grammar, least: int) -> None:
    compiled = GrammarCompiler(INFO).compile(grammar)
    rng = np.random.default_rng(least)
    for budget in (least, least + 1, least + 4, 25, 40):
        for _ in range(6):
            matcher = GrammarMatcher(compiled, max_tokens=budget)
            free = GrammarMatcher(compiled)
            for _ in range(budget):
                allowed = matcher.allowed_tokens()
                assert set(allowed) <= set(free.allowed_tokens())
                assert len(allowed)
                token = int(rng.choice(allowed[allowed != STOP] if len(allowed) > 1 else allowed))
                assert matcher.accept(token)
                assert free.accept(token)
                if matcher.is_terminated():
                    break
            assert matcher.is_terminated(), budget


@pytest.mark.parametrize(("grammar", "least"), GRAMMARS, ids=[str(i) for i in range(len(GRAMMARS))])
def test_masks_are_what_accept_takes(grammar: Grammar, least: int) -> None:
    compiled = GrammarCompiler(INFO).compile(grammar)
    rng = np.random.default_rng(least)
    words = (len(INFO) + 31) // 32
    for budget in (max(1, least - 2), least, least + 3, 100):
        matcher = GrammarMatcher(compiled, max_tokens=budget)
        for _ in range(12):
            allowed = [t for t, ok in enumerate(brute_mask(matcher, len(INFO))) if ok]
            assert matcher.allowed_tokens().tolist() == allowed
            assert allowed
            token = int(rng.choice(allowed))
            tree = DraftTree(np.array([token, allowed[0]], np.int32), np.array([-1, 0], np.int32))
            rows = np.zeros((3, words), np.int32)
            matcher.fill_tree_bitmasks(tree, rows)
            assert matcher.accept(token)
            behind = [t for t in range(len(INFO)) if rows[1, t // 32] >> (t % 32) & 1]
            assert behind == matcher.allowed_tokens().tolist()
            if matcher.is_terminated():
                break


def test_budgets_follow_rollback_forks_and_batches() -> None:
    compiled = GrammarCompiler(INFO).compile(Grammar.from_regex("a*b"))
    a, b = ord("a") - 32, ord("b") - 32
    matcher = GrammarMatcher(compiled, max_tokens=4)
    assert matcher.accept(a)
    fork = matcher.fork()
    assert fork.accept(a)
    assert fork.allowed_tokens().tolist() == [b, INFO_AB]
    assert not fork.accept(a)
    fork.rollback(1)
    assert a in fork.allowed_tokens()
    assert GrammarMatcher(compiled, max_tokens=1).allowed_tokens().tolist() == [b]  # too small: the shortest text
    with pytest.raises(ValueError, match="max_tokens"):
        GrammarMatcher(compiled, max_tokens=0)


def test_a_vocabulary_that_cannot_spell_the_end_is_left_free() -> None:
    compiled = GrammarCompiler(TokenizerInfo([b"a", b"</s>"], stop=[1])).compile(Grammar.from_regex("a*b"))
    matcher = GrammarMatcher(compiled, max_tokens=2)
    assert matcher.allowed_tokens().tolist() == [0]


def test_shortest_texts_are_valid() -> None:
    """Following the only token that a budget of one leaves gives the shortest text."""
    schemas: list[Any] = [
        SCHEMA,
        {"enum": ["zz", "b"]},
        {"minItems": 3, "type": "array"},
        {"type": "string", "minLength": 4},
    ]
    for schema in schemas:
        for any_order in (False, True):
            grammar = Grammar.from_json_schema(schema, spaces=False, any_order=any_order)
            matcher = GrammarMatcher(GrammarCompiler(INFO).compile(grammar), max_tokens=1)
            text = b""
            while not matcher.is_terminated():
                (token,) = matcher.allowed_tokens().tolist()
                assert matcher.accept(token)
                text += b"" if token == STOP else INFO.token(token)
            full = GrammarMatcher(GrammarCompiler(INFO).compile(grammar))
            assert full.accept_bytes(text)
            assert full.can_terminate()
            json.loads(text)
