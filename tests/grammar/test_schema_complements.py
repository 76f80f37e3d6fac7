"""Complements, counted `contains` and different items against the `jsonschema` package, in both orders of keys."""

from __future__ import annotations

import itertools
import json
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
        *(bytes([b]) for b in b'{}[]:,"abcx-0123. truefalsn'),
        b'":',
        b'{"',
        b'","',
        b'"a":',
        b"[1",
        b",2",
        b"]}",
        b"</s>",
    ],
    stop=[34],
)

OBJECTS: list[Any] = [
    {"not": {"additionalProperties": {"type": "integer"}}},
    {"not": {"properties": {"a": {}}, "additionalProperties": False}},
    {"not": {"patternProperties": {"^x": {"type": "integer"}}}},
    {"not": {"patternProperties": {"^x": False}, "properties": {"a": {"const": 1}}, "additionalProperties": False}},
    {"not": {"propertyNames": {"maxLength": 1}}},
    {"not": {"propertyNames": {"enum": ["a", "b"]}}},
    {"not": {"dependentRequired": {"a": ["b", "c"]}}},
    {"not": {"dependentSchemas": {"a": {"required": ["b"]}}}},
    {"not": {"dependencies": {"b": {"properties": {"a": {"const": 2}}}}}},
    {"type": "object", "not": {"additionalProperties": {"const": 1}}, "maxProperties": 1},
    {"type": "object", "not": {"properties": {"a": {"const": 1}}, "additionalProperties": False}, "required": ["b"]},
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {}},
        "additionalProperties": False,
        "not": {"patternProperties": {"^[ab]": {"const": 1}}},
    },
    {
        "allOf": [{"not": {"propertyNames": {"pattern": "a"}}}, {"not": {"propertyNames": {"pattern": "^[^a]"}}}],
        "type": "object",
        "maxProperties": 2,
    },
    {"oneOf": [{"properties": {"a": {}}, "additionalProperties": False}, {"properties": {"b": {"type": "integer"}}}]},
    {"oneOf": [{"required": ["a"]}, {"required": ["b"]}, {"required": ["c"]}], "type": "object"},
    {"not": {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, "type": "object"},
    {"not": {"const": {"a": 1, "b": 2}}, "type": "object"},
    {"if": {"additionalProperties": {"const": 1}}, "then": {"maxProperties": 1}, "else": {"required": ["a"]}},
    {"not": {"minProperties": 1, "maxProperties": 2}},
]
ARRAYS: list[Any] = [
    {"contains": {"const": 1}, "minItems": 2, "maxItems": 3},
    {"contains": {"const": 1}, "minContains": 2, "maxContains": 2, "maxItems": 3},
    {"contains": {"type": "integer"}, "maxContains": 1, "prefixItems": [{"const": 1}], "minItems": 1},
    {"allOf": [{"contains": {"const": 1}}, {"contains": {"const": 2}}], "maxItems": 3},
    {"allOf": [{"contains": {"minimum": 2}, "maxContains": 1}, {"contains": {"maximum": 2}, "minContains": 2}]},
    {"contains": {"multipleOf": 2}, "items": {"multipleOf": 3}},
    {"contains": True, "minContains": 2, "maxContains": 3},
    {"contains": {"const": 1}, "minContains": 0, "maxContains": 0},
    {"not": {"contains": {"const": 1}, "minContains": 2}},
    {"not": {"prefixItems": [{"type": "integer"}, {"type": "string"}]}},
    {"not": {"prefixItems": [{"type": "integer"}], "items": {"const": 2}}},
    {"not": {"items": False, "prefixItems": [True]}},
    {"not": {"minItems": 1, "maxItems": 2}, "type": "array"},
    {"not": {"const": [1, 2]}, "type": "array"},
    {"not": {"enum": [[1], [], [[]], 1]}, "type": ["array", "integer"]},
    {"if": {"prefixItems": [{"const": 1}]}, "then": {"minItems": 2}, "else": {"maxItems": 1}},
    {"uniqueItems": True, "items": {"enum": [1, 2, "a"]}},
    {"uniqueItems": True, "items": {"enum": [1, 2, 3]}, "minItems": 2, "maxItems": 3},
    {"uniqueItems": True, "items": {"type": ["boolean", "null"]}, "minItems": 1},
    {"uniqueItems": True, "items": {"enum": [[1], [], None]}},
    {"uniqueItems": True, "maxItems": 1},
    {"enum": [[1, 1], [1, 2], [2]], "uniqueItems": True},
]
SCALARS: list[Any] = [
    {"not": {"format": "date"}, "type": "string"},
    {"not": {"format": "int32"}},
    {"not": {"pattern": "^a", "maxLength": 2}},
    {"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}], "type": "integer"},
    {"if": {"multipleOf": 2}, "then": {"minimum": 5}, "else": {"maximum": 5}},
]

OBJECT_INSTANCES = [
    dict(zip(keys, values, strict=True))
    for n in range(4)
    for keys in itertools.combinations(["a", "b", "c", "x1"], n)
    for values in itertools.product([1, 2, "s"], repeat=n)
    if n < 3 or "s" not in values
]
ARRAY_INSTANCES = [list(t) for n in range(4) for t in itertools.product([1, 2, 3, "a", []], repeat=n)] + [
    [1, 2, 2, 2],
    [3, 6, 6, 9],
    [True, False, None],
    [True, True],
    [None, None],
    [[1], [1]],
    [1, 2, 3, "a"],
]
SCALAR_INSTANCES = [None, True, 1, 2, 3, 4, 5, 6, 7, -6, 1.5, "", "a", "ab", "abc", "2024-02-28", "2024-02-30", [], {}]


def judge(schema: Any, instances: list[Any], *, any_order: bool) -> None:
    old = '"dependencies"' in json.dumps(schema)
    kind = jsonschema.Draft7Validator if old else jsonschema.Draft202012Validator
    checker = kind(schema, format_checker=jsonschema.FormatChecker())
    try:
        grammar = Grammar.from_json_schema(schema, strict=True, any_order=any_order)
        matcher = GrammarMatcher(GrammarCompiler(BYTES).compile(grammar))
    except ValueError as error:
        assert "matches none" in str(error)  # noqa: PT017
        assert not any(checker.is_valid(x) for x in instances)
        return
    for instance in instances:
        matcher.reset()
        got = matcher.accept_bytes(json.dumps(instance).encode()) and matcher.can_terminate()
        assert got == checker.is_valid(instance), instance


@pytest.mark.parametrize("any_order", [False, True])
@pytest.mark.parametrize("schema", OBJECTS, ids=json.dumps)
def test_objects(schema: Any, any_order: bool) -> None:
    judge(schema, OBJECT_INSTANCES + SCALAR_INSTANCES, any_order=any_order)


@pytest.mark.parametrize("schema", ARRAYS, ids=json.dumps)
def test_arrays(schema: Any) -> None:
    judge(schema, ARRAY_INSTANCES + SCALAR_INSTANCES, any_order=False)


@pytest.mark.parametrize("schema", SCALARS, ids=json.dumps)
def test_scalars(schema: Any) -> None:
    judge(schema, SCALAR_INSTANCES, any_order=False)


@pytest.mark.parametrize("any_order", [False, True])
@pytest.mark.parametrize("schema", [*OBJECTS[:12], *ARRAYS[:6], *ARRAYS[16:20]], ids=json.dumps)
def test_masks_are_what_accept_takes(schema: Any, any_order: bool) -> None:
    matcher = GrammarMatcher(GrammarCompiler(WORDS).compile(Grammar.from_json_schema(schema, any_order=any_order)))
    for text in ("", '{"a":1', '{"b":2,"a":1', '{"x":', "[1", "[1,2", "[2,"):
        matcher.reset()
        if text and not matcher.accept_bytes(text.encode()):
            continue
        allowed = [t for t, ok in enumerate(brute_mask(matcher, len(WORDS))) if ok]
        assert matcher.allowed_tokens().tolist() == allowed
        assert allowed, text  # no dead ends


leaves = st.sampled_from(
    [{"const": 1}, {"type": "integer"}, {"minimum": 2}, {"multipleOf": 2}, {"type": "string"}, {"enum": [1, "s"]}, True]
)
keywords = st.fixed_dictionaries(
    {},
    optional={
        "properties": st.dictionaries(st.sampled_from(["a", "b"]), leaves, max_size=2),
        "patternProperties": st.dictionaries(st.sampled_from(["^x", "[ab]"]), leaves, max_size=1),
        "additionalProperties": st.one_of(leaves, st.just(False)),
        "propertyNames": st.sampled_from([{"maxLength": 1}, {"pattern": "a|x"}]),
        "required": st.lists(st.sampled_from(["a", "b", "c"]), max_size=2, unique=True),
        "maxProperties": st.integers(0, 3),
        "dependentRequired": st.just({"a": ["b"]}),
        "prefixItems": st.lists(leaves, min_size=1, max_size=2),
        "items": leaves,
        "contains": leaves,
        "minContains": st.integers(0, 2),
        "maxContains": st.integers(0, 2),
        "minItems": st.integers(0, 2),
        "maxItems": st.integers(0, 3),
    },
)
schemas = st.one_of(
    st.builds(lambda s: {"not": s}, keywords),
    st.builds(lambda s, t: {**s, "not": t}, keywords, keywords),
    st.builds(lambda s, t: {"oneOf": [s, t]}, keywords, keywords),
    st.builds(lambda s, t, u: {"if": s, "then": t, "else": u}, keywords, keywords, keywords),
)


@given(schema=schemas, instances=st.lists(st.sampled_from(OBJECT_INSTANCES + ARRAY_INSTANCES), min_size=5, max_size=12))
def test_random_complements(schema: Any, instances: list[Any]) -> None:
    judge(schema, instances, any_order=True)
