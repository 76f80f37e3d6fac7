"""`uniqueItems` over strings and numbers: items are compared by value, however they are spelled."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.grammar import brute_mask

BYTES = TokenizerInfo([bytes([b]) for b in range(256)])
WORDS = TokenizerInfo(
    [
        *(bytes([b]) for b in b'[]",ab01.-e\\u6 truefalsn'),
        *(b'["', b'","', b'", "', b'"]', b'a"', b'","a', b'","a"', b'a","a"]', b'""', b"1,", b"1,1", b"0,1.0", b",1]"),
        *(b"10", b"e0,", b"\\u00", b'61"', b'","b","', b"true,", b"</s>"),
    ],
    special=[42],
    stop=[42],
)
SCHEMAS: list[Any] = [
    {"items": {"type": "string"}},
    {"items": {"type": "string", "minLength": 1}, "minItems": 1},
    {"items": {"type": "string", "maxLength": 1}, "maxItems": 3},
    {"items": {"type": "string", "pattern": "^[ab]$"}},
    {"items": {"type": "string", "pattern": "^a?b?$"}, "minItems": 3},
    {"items": {"type": "number"}, "minItems": 1},
    {"items": {"type": "integer"}, "maxItems": 2},
    {"items": {"type": "integer", "minimum": 0, "maximum": 1}},
    {"items": {"type": ["string", "number", "boolean", "null"]}},
    {"items": {"type": "number", "multipleOf": 10}},
    {"items": {"anyOf": [{"type": "string", "maxLength": 1}, {"enum": [1, "a"]}]}, "maxItems": 4},
]


def compiled(schema: Any, info: TokenizerInfo, **options: Any) -> Any:
    grammar = Grammar.from_json_schema({"type": "array", "uniqueItems": True, **schema}, strict=True, **options)
    assert grammar.report is not None
    assert grammar.report.is_exact
    return GrammarCompiler(info).compile(grammar)


def accepts(matcher: GrammarMatcher, text: str) -> bool:
    matcher.reset()
    return matcher.accept_bytes(text.encode()) and matcher.can_terminate()


VALUES = ["", "a", "b", "ab", "é", '"', "\n", "\U0001f600", 0, 1, -1, 1.5, 10, 100, True, False, None]


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_against_jsonschema(schema: Any) -> None:
    checker = jsonschema.Draft202012Validator({"type": "array", "uniqueItems": True, **schema})
    matcher = GrammarMatcher(compiled(schema, BYTES))
    rng = random.Random(3)
    seen = set()
    for _ in range(400):
        items = [rng.choice(VALUES) for _ in range(rng.randrange(5))]
        text = json.dumps(items, ensure_ascii=rng.random() < 0.5)
        if "pattern" in schema["items"] and "\\u" in text:  # patterns are matched as written
            continue
        assert accepts(matcher, text) == checker.is_valid(items), text
        seen.add(checker.is_valid(items))
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('"a"', '"\\u0061"', True),
        ('"/"', '"\\/"', True),
        ('"\\n"', '"\\u000A"', True),
        ('"\U0001f600"', '"\\uD83D\\ude00"', True),
        ('"a"', '"A"', False),
        ('"1"', "1", False),
        ("1", "1.0", True),
        ("1", "1.000e0", True),
        ("100", "1E+2", True),
        ("1.5", "15e-01", True),
        ("0", "-0.0e7", True),
        ("1", "-1", False),
        ("0.1", "0.10000001", False),
        ("1e300", "10e299", True),
        ("1e300", "1e299", False),
        ("true", "1", False),
        ("null", "false", False),
    ],
)
def test_spellings(one: str, other: str, same: bool) -> None:
    matcher = GrammarMatcher(compiled({"items": {"type": ["string", "number", "boolean", "null"]}}, BYTES))
    for first, second in ((one, other), (other, one)):
        assert accepts(matcher, f"[{first}]")
        assert accepts(matcher, f"[{first}, {second}]") != same
        assert accepts(matcher, f'["x",{first} , "y",{second}]') != same


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_masks_are_what_accept_takes(schema: Any) -> None:
    matcher = GrammarMatcher(compiled(schema, WORDS))
    rng = random.Random(5)
    ended = 0
    for _ in range(12):
        matcher.reset()
        for _ in range(14):
            allowed = [t for t, ok in enumerate(brute_mask(matcher, len(WORDS))) if ok]
            assert matcher.allowed_tokens().tolist() == allowed
            assert allowed  # no dead ends
            assert matcher.accept(rng.choice(allowed))
            if matcher.is_terminated():
                ended += 1
                break
    assert ended


@given(items=st.lists(st.one_of(st.text(max_size=3), st.floats(-1e6, 1e6), st.integers(-20, 20)), max_size=6))
def test_random_items(items: list[Any]) -> None:
    matcher = GrammarMatcher(RANDOM)
    checker = jsonschema.Draft202012Validator({"uniqueItems": True})
    assert accepts(matcher, json.dumps(items)) == checker.is_valid(items)


RANDOM = compiled({"items": {"type": ["string", "number"]}}, BYTES)


def test_a_value_that_is_listed_twice_counts_once() -> None:
    schema = {"type": "array", "items": {"enum": [1, 1.0, 2]}, "uniqueItems": True, "minItems": 2}
    matcher = GrammarMatcher(compiled(schema, BYTES))
    assert [accepts(matcher, text) for text in ("[1, 2]", "[2, 1]", "[1, 1]", "[1]", "[1, 2, 1]")] == [
        True, True, False, False, False,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="exclude each other"):
        compiled({**schema, "minItems": 3}, BYTES)


def test_every_exponent_that_digits_allow_spells_the_value() -> None:
    matcher = GrammarMatcher(compiled({"items": {"type": "number"}}, BYTES))  # 40 digits on either side of the point
    for same in (f"0.{'0' * 39}1e40", "0.01e2", "10e-1", f"1{'0' * 39}e-39", "1.000"):
        assert not accepts(matcher, f"[1,{same}]"), same
        assert accepts(matcher, f"[2,{same}]"), same


def test_few_values_are_counted() -> None:
    with pytest.raises(ValueError, match="uniqueItems true"):
        compiled({"items": {"type": "string", "pattern": "^[ab]$"}, "minItems": 3}, BYTES)
    matcher = GrammarMatcher(compiled({"items": {"type": "string", "pattern": "^[ab]$"}, "minItems": 2}, BYTES))
    assert matcher.accept_bytes(b'["b"')
    assert matcher.jump_forward_bytes() == b""  # a space may stand before the comma
    assert matcher.accept_bytes(b',"')
    assert matcher.jump_forward_bytes() == b'a"'
    assert matcher.accept_bytes(b'a"')
    assert not matcher.accept_bytes(b",")


def test_in_files_other_grammars_and_time() -> None:
    info = WORDS
    schema = {"type": "array", "uniqueItems": True, "items": {"type": "string"}, "minItems": 2}
    compiler = GrammarCompiler(info, cache_size=0)
    copy = compiler.deserialize(compiler.compile(Grammar.from_json_schema(schema)).serialize())
    inline = compiler.compile(Grammar.from_lark(f"start: value\nvalue: %json {json.dumps(schema)}"))
    for grammar in (copy, inline):
        matcher = GrammarMatcher(grammar)
        assert accepts(matcher, '["a","b"]')
        assert not accepts(matcher, '["a","a"]')
        assert not accepts(matcher, '["a"]')
    assert Grammar.from_json_schema(schema)._native.structure() != (
        Grammar.from_json_schema({**schema, "minItems": 1})._native.structure()
    )
    rng = random.Random(1)
    for _ in range(10):
        matcher = GrammarMatcher(copy, max_tokens=9)
        text: list[int] = []
        while not matcher.is_terminated():
            text.append(rng.choice(matcher.allowed_tokens().tolist()))
            assert matcher.accept(text[-1])
        assert len(text) <= 9
        items = json.loads(b"".join(info.token(t) for t in text[:-1]))
        assert len(items) == len(set(items)) >= 2


def test_forks_and_rollbacks_keep_what_was_written() -> None:
    matcher = GrammarMatcher(compiled({"items": {"type": "string"}}, BYTES))
    assert matcher.accept_bytes(b'["a"')
    fork = matcher.fork()
    assert matcher.accept_bytes(b',"b"')
    assert not matcher.accept_bytes(b',"b"')
    assert fork.accept_bytes(b',"b"')
    matcher.rollback(1)
    assert matcher.accept_bytes(b',"b"')
    assert not matcher.accept_bytes(b',"a"')


def test_what_is_not_compared_is_reported() -> None:
    for items in ({}, {"type": "object"}, {"type": ["array", "string"]}):
        grammar = Grammar.from_json_schema({"type": "array", "items": items, "uniqueItems": True})
        assert grammar.report is not None
        assert [r.keyword for r in grammar.report.inexact] == ["uniqueItems"]
