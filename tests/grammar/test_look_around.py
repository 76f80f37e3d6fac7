"""Look-around of regular expressions against Python's `re`, and complements of unevaluated*."""

from __future__ import annotations

import itertools
import json
import random
import re
from typing import Any

import jsonschema
import pytest
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo

from tests.reference.grammar import brute_mask

BYTES = TokenizerInfo([bytes([b]) for b in range(256)])
WORDS = TokenizerInfo(
    [b'"', b"a", b"b", b"c", b"ab", b'a"', b"abc", b'bc"', b"cab", b'"a', b"1", b"1a", b"</s>"], stop=[12]
)
TEXTS = ["".join(t) for n in range(6) for t in itertools.product("ab1", repeat=n)]
PATTERNS = [
    "^(?=.*1)(?=.*a)[ab1]{3,}$",
    "^(?!.*ab)[ab]+$",
    "^(?!a$|b$).+$",
    "(?!1)[ab1]a",
    "^(?:(?=a)[ab]{2}|1+)$",
    "a(?=b)b?1?$",
    "a(?!b)",
    "^a*(?!b)",
    "(?<=a)b",
    "(?<!a)b$",
    "^(?<!a)b",
    "(?<=^a)1",
    "^[ab]*(?<!b)$",
    "^a?(?<=a)b(?<=ab)1$",
    "^(?=[ab]*1$).*a(?=1)",
    "^(?=(?!b).*1)[ab1]*$",
    "^(?:a|b(?=1))*$",  # in a repetition: refused
    "(?<=a)b(?=1)|1(?!a)$",
    "(?=a)?b",
]
REFUSED = {"^(?:a|b(?=1))*$"}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_against_re(pattern: str) -> None:
    if pattern in REFUSED:
        with pytest.raises(ValueError, match="look-around must stand where"):
            Grammar.from_regex(pattern)
        assert not Grammar.from_json_schema({"pattern": pattern}).report.is_exact  # type: ignore[union-attr]
        return
    grammar = Grammar.from_json_schema({"type": "string", "pattern": pattern}, strict=True)
    expected = [text for text in TEXTS if re.search(pattern, text)]
    if not expected:
        with pytest.raises(ValueError, match="matches none"):
            GrammarCompiler(BYTES).compile(grammar)
        return
    matcher = GrammarMatcher(GrammarCompiler(BYTES).compile(grammar))
    got = []
    for text in TEXTS:
        matcher.reset()
        if matcher.accept_bytes(json.dumps(text).encode()) and matcher.can_terminate():
            got.append(text)
    assert got == expected
    negated = Grammar.from_json_schema({"type": "string", "not": {"pattern": pattern}}, strict=True)
    assert negated.report is not None
    assert negated.report.is_exact


@pytest.mark.parametrize("pattern", ["a(?=b)b", "(?!a)b|(?=a)a1", "[ab]*(?<!b)", "(?<=a)b|(?<!a)1", "(?=.*1)[ab]*1?"])
def test_whole_texts_against_re(pattern: str) -> None:
    matcher = GrammarMatcher(GrammarCompiler(BYTES).compile(Grammar.from_regex(pattern)))
    for text in TEXTS:
        matcher.reset()
        got = matcher.accept_bytes(text.encode()) and matcher.can_terminate()
        assert got == (re.fullmatch(pattern, text) is not None), text


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if p not in REFUSED and p != "^(?<!a)b"])
def test_masks_are_what_accept_takes(pattern: str) -> None:
    grammar = Grammar.from_json_schema({"type": "string", "pattern": pattern, "maxLength": 6})
    matcher = GrammarMatcher(GrammarCompiler(WORDS).compile(grammar))
    rng = random.Random(2)
    for _ in range(8):
        matcher.reset()
        while not matcher.is_terminated():
            allowed = [t for t, ok in enumerate(brute_mask(matcher, len(WORDS))) if ok]
            assert matcher.allowed_tokens().tolist() == allowed
            assert allowed
            assert matcher.accept(rng.choice(allowed))


def test_what_excludes_all_is_refused() -> None:
    for pattern in ("^(?!)$", "(?=a)"):  # as whole texts
        with pytest.raises(ValueError, match="excludes all"):
            Grammar.from_regex(pattern)


def test_terminals_do_not_look_around() -> None:
    for terminal in ("/a(?!b)/", "/(?<=x)y/"):
        with pytest.raises(ValueError, match="must not stand in a terminal"):
            Grammar.from_lark(f'start: A "b"\nA: {terminal}')


UNEVALUATED: list[Any] = [
    {"properties": {"a": {}}, "unevaluatedProperties": False},
    {"properties": {"a": {"const": 1}}, "unevaluatedProperties": {"type": "integer"}},
    {"patternProperties": {"^x": {}}, "unevaluatedProperties": False, "required": ["a"]},
    {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {"const": 2}}}], "unevaluatedProperties": False},
    {"additionalProperties": {"const": 1}, "unevaluatedProperties": False},
    {"prefixItems": [{"const": 1}], "unevaluatedItems": False},
    {"prefixItems": [True], "unevaluatedItems": {"const": 2}, "minItems": 1},
    {"contains": {"const": 1}, "unevaluatedItems": {"const": 2}},
    {"unevaluatedItems": False},
    {"type": "object", "unevaluatedProperties": {"const": 1}},
]


@pytest.mark.parametrize("schema", UNEVALUATED, ids=json.dumps)
@pytest.mark.parametrize("form", ["not", "oneOf", "if"])
def test_complements_of_unevaluated(schema: Any, form: str) -> None:
    other = {"required": ["b"]} if "Properties" in json.dumps(schema) else {"minItems": 2}
    whole = {
        "not": {"not": schema, "type": ["object", "array"]},
        "oneOf": {"oneOf": [schema, other], "type": ["object", "array"]},
        "if": {"if": schema, "then": other, "else": {"maxProperties": 2, "maxItems": 2}},
    }[form]
    checker = jsonschema.Draft202012Validator(whole)
    matcher = GrammarMatcher(
        GrammarCompiler(BYTES).compile(Grammar.from_json_schema(whole, strict=True, any_order=True))
    )
    instances: list[Any] = [list(t) for n in range(4) for t in itertools.product([1, 2, "s"], repeat=n)]
    for names in itertools.chain.from_iterable(itertools.combinations(["a", "b", "xa", "c"], n) for n in range(4)):
        instances += [dict(zip(names, v, strict=True)) for v in itertools.product([1, 2], repeat=len(names))]
    verdicts = set()
    for instance in instances:
        matcher.reset()
        got = matcher.accept_bytes(json.dumps(instance).encode()) and matcher.can_terminate()
        assert got == checker.is_valid(instance), instance
        verdicts.add(got)
    assert True in verdicts


def test_complements_beside_alternatives_are_refused() -> None:
    part = {"anyOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}], "unevaluatedProperties": False}
    with pytest.raises(ValueError, match="beside alternatives"):
        Grammar.from_json_schema({"not": part})


def test_circles_of_references_are_refused_at_once() -> None:
    circle = {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"anyOf": [{"$ref": "#/$defs/a"}, True]}}}
    for root in ({"$ref": "#/$defs/a"}, {"properties": {"x": {"items": {"$ref": "#/$defs/b"}}}}):
        with pytest.raises(ValueError, match="got a circle"):
            Grammar.from_json_schema({**circle, **root})
    Grammar.from_json_schema({**circle, "type": "string"})  # nothing gets there


def random_pattern(rng: random.Random, depth: int) -> str:
    """A pattern over a and b with anchors anywhere."""
    kind = rng.randrange(9 if depth else 4)
    if kind < 4:
        return rng.choice(["a", "b", "^", "$", "", "[ab]"])
    inner = random_pattern(rng, depth - 1)
    if kind < 6:
        return inner + random_pattern(rng, depth - 1)
    if kind == 6:
        return f"(?:{inner}|{random_pattern(rng, depth - 1)})"
    return f"(?:{inner})" + rng.choice(["*", "+", "?", "{2}", "{2,3}", "{0,2}", "{3,}"])


def test_anchors_may_stand_anywhere() -> None:
    rng = random.Random(1)
    compiler = GrammarCompiler(BYTES)
    texts = ["".join(t) for n in range(5) for t in itertools.product("ab", repeat=n)]
    refused = 0
    for pattern in ["(^|,)b($|,)", "^(?:a(?:$|b))*$", *(random_pattern(rng, 4) for _ in range(800))]:
        expected = [text for text in texts if re.search(pattern.replace("$", r"\Z"), text)]
        try:
            grammar = Grammar.from_json_schema({"type": "string", "pattern": pattern}, strict=True)
            matcher = GrammarMatcher(compiler.compile(grammar))
        except ValueError:  # nothing matches
            assert expected == [], pattern
            refused += 1
            continue
        got = []
        for text in texts:
            matcher.reset()
            if matcher.accept_bytes(f'"{text}"'.encode()) and matcher.can_terminate():
                got.append(text)
        assert got == expected, pattern
    assert 10 < refused < 100


def test_anchors_beside_look_around_stand_at_the_ends() -> None:
    with pytest.raises(ValueError, match="anchors beside look-around"):
        Grammar.from_regex("(?:a$|b)*(?=b)b")


def test_empty_copies_with_an_anchor_make_up_for_any_number() -> None:
    matcher = GrammarMatcher(GrammarCompiler(BYTES).compile(Grammar.from_regex("(?:^|b$){3}")))
    assert matcher.accept_bytes(b"b")  # behind two empty ones
    assert matcher.can_terminate()
    assert not matcher.accept_bytes(b"b")


@pytest.mark.parametrize(("counted", "plain"), [("[ab]{1,255}", "[ab]"), ("a*b{2,}", "b{2}"), ("^ab{2,9}", "^ab{2}")])
def test_copies_beside_what_may_surround_a_match_say_nothing(counted: str, plain: str) -> None:
    made = [Grammar.from_json_schema({"type": "string", "pattern": p})._native.to_bytes() for p in (counted, plain)]
    assert made[0] == made[1]
