"""JSON Schema against the `jsonschema` package: every text of small worlds, random schemas, random instances."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import jsonschema
import numpy as np
import pytest
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, GrammarTooComplex, TokenizerInfo
from hypothesis import given
from hypothesis import strategies as st

BYTES = TokenizerInfo([bytes([b]) for b in range(256)])


def matcher_of(schema: Any, **options: bool) -> GrammarMatcher | None:
    try:
        return GrammarMatcher(GrammarCompiler(BYTES).compile(Grammar.from_json_schema(schema, **options)))
    except ValueError as error:
        if "matches none" not in str(error):
            raise
        return None


def accepts(matcher: GrammarMatcher | None, text: str) -> bool:
    if matcher is None:
        return False
    matcher.reset()
    return matcher.accept_bytes(text.encode()) and matcher.can_terminate()


def key_orders(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [dict(items) for items in itertools.permutations(value.items())]
    return [value]


INSTANCES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    5,
    7,
    10,
    12,
    99,
    100,
    -5,
    0.5,
    1.5,
    -0.25,
    9.75,
    10.01,
    2.5,
    "",
    "a",
    "ab",
    "abc",
    "é日",
    'q"\\\n',
    "foo",
    "2024-02-28",
    "x" * 12,
    [],
    [1],
    [1, 2],
    [1, "a"],
    ["a", "b", "c"],
    [[]],
    [1, 2, 3, 4],
    [None],
    {},
    {"a": 1},
    {"a": "x"},
    {"b": 1},
    {"a": 1, "b": 2},
    {"a": 1, "b": "y"},
    {"a": 1, "b": 2, "c": 3},
    {"c": [1]},
    {"a": {"a": {"a": 1}}},
    {"kind": "p", "v": 1},
    {"kind": "q", "v": "s"},
    {"kind": "q", "v": 1},
    {"x-1": 5},
    {"x-1": "n"},
]

SCHEMAS: list[Any] = [
    True,
    {},
    {"type": "null"},
    {"type": ["integer", "null"]},
    {"type": "number"},
    {"type": "string"},
    {"type": "boolean"},
    {"minimum": 2},
    {"exclusiveMinimum": 2, "maximum": 10},
    {"minimum": -1, "exclusiveMaximum": 0.5},
    {"maximum": -1},
    {"type": "integer", "minimum": -5, "maximum": 12},
    {"type": "integer", "multipleOf": 5},
    {"multipleOf": 3, "type": "integer"},
    {"minLength": 2},
    {"maxLength": 2, "type": "string"},
    {"pattern": "^a"},
    {"pattern": "b$", "type": "string"},
    {"pattern": "b"},
    {"type": "string", "pattern": "^[a-z]+$", "minLength": 3},
    {"type": "string", "format": "date"},
    {"enum": [1, "a", None, [1], {"a": 1}]},
    {"const": "ab"},
    {"const": {"a": 1, "b": 2}},
    {"enum": [1, 2, 3], "minimum": 2},
    {"type": "array", "items": {"type": "integer"}},
    {"items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
    {"prefixItems": [{"type": "integer"}, {"type": "string"}]},
    {"prefixItems": [{"type": "integer"}], "items": False},
    {"type": "array", "contains": {"const": 2}},
    {"contains": {"type": "string"}, "minContains": 2},
    {"contains": {"type": "integer"}, "maxContains": 1},
    {"contains": {"type": "integer"}, "minContains": 0, "maxContains": 2},
    {"type": "object", "properties": {"a": {"type": "integer"}}},
    {"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["b"]},
    {"properties": {"a": {}, "b": {"type": "integer"}}, "required": ["a"], "additionalProperties": False},
    {"additionalProperties": {"type": "integer"}},
    {"properties": {"a": False}},
    {"required": ["c"]},
    {"type": "object", "minProperties": 2},
    {"type": "object", "maxProperties": 1},
    {"properties": {"a": {}, "b": {}}, "minProperties": 2, "maxProperties": 2},
    {"patternProperties": {"^x-": {"type": "integer"}}, "additionalProperties": False},
    {"patternProperties": {"^x": {"type": "integer"}}},
    {"propertyNames": {"maxLength": 1}},
    {"propertyNames": {"enum": ["a", "b"]}},
    {"allOf": [{"minimum": 1}, {"maximum": 5}]},
    {"anyOf": [{"type": "string"}, {"minimum": 5}]},
    {"oneOf": [{"type": "integer"}, {"minimum": 2}]},
    {"oneOf": [{"type": "string", "maxLength": 1}, {"type": "integer"}]},
    {"not": {"type": "string"}},
    {"not": {"minimum": 2}},
    {"not": {"enum": [1, "a", None]}},
    {"not": {"required": ["a"]}},
    {"not": {"properties": {"a": {"type": "integer"}}}},
    {"not": {"type": "object", "required": ["a"]}},
    {"type": "integer", "not": {"const": 5}},
    {"if": {"required": ["a"]}, "then": {"required": ["b"]}},
    {"if": {"type": "integer"}, "then": {"minimum": 3}, "else": {"type": "string"}},
    {
        "if": {"properties": {"kind": {"const": "p"}}, "required": ["kind"]},
        "then": {"properties": {"v": {"type": "integer"}}},
        "else": {"properties": {"v": {"type": "string"}}},
    },
    {
        "oneOf": [
            {"properties": {"kind": {"const": "p"}, "v": {"type": "integer"}}, "required": ["kind"]},
            {"properties": {"kind": {"const": "q"}, "v": {"type": "string"}}, "required": ["kind"]},
        ],
        "type": "object",
    },
    {"dependentRequired": {"a": ["b"]}},
    {"dependentSchemas": {"a": {"properties": {"b": {"type": "string"}}}}},
    {
        "$ref": "#/$defs/t",
        "$defs": {
            "t": {
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/t"}},
                "additionalProperties": {"type": "integer"},
            }
        },
    },
    {
        "$defs": {
            "n": {
                "anyOf": [
                    {"type": "integer"},
                    {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "additionalProperties": False},
                ]
            }
        },
        "$ref": "#/$defs/n",
    },
    {"items": {"$ref": "#"}, "type": ["array", "integer"]},
    {"allOf": [{"properties": {"a": {"minimum": 1}}}, {"properties": {"a": {"maximum": 1}}}]},
    {"type": "array", "items": {"not": {"type": "integer"}}},
    {"not": {"type": "array", "items": {"type": "integer"}}},
    {"anyOf": [{"const": 5}, {"type": "object", "properties": {"a": {"const": 1}}, "additionalProperties": False}]},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_instances_are_judged_like_the_reference(schema: Any) -> None:
    matcher = matcher_of(schema, strict=True)
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    for instance in INSTANCES:
        for indent in (None, 2):
            texts = [json.dumps(x, ensure_ascii=False, indent=indent) for x in key_orders(instance)]
            verdicts = [accepts(matcher, text) for text in texts]
            assert (any if checker.is_valid(instance) else all)(v == checker.is_valid(instance) for v in verdicts), (
                texts
            )


@pytest.mark.parametrize("schema", [s for s in SCHEMAS if s is not True], ids=json.dumps)
def test_random_walks_end_in_valid_texts(schema: Any) -> None:
    matcher = matcher_of(schema)
    assert matcher is not None
    checker = jsonschema.Draft202012Validator(schema)
    rng = np.random.default_rng(5)
    for _ in range(6):
        matcher.reset()
        text = b""
        for step in range(400):
            if matcher.can_terminate() and (step > 60 or rng.random() < 0.2):
                break
            allowed = matcher.allowed_tokens()
            if not len(allowed):
                break
            closing = [b for b in b'"]}0' if b in set(allowed.tolist())]
            token = int(rng.choice(closing)) if closing and rng.random() < 0.7 else int(rng.choice(allowed))
            assert matcher.accept(token)
            text += bytes([token])
        if matcher.can_terminate():
            assert checker.is_valid(json.loads(text)), text


scalars = st.one_of(st.none(), st.booleans(), st.integers(-20, 20), st.text('abé"\\', max_size=4))
values = st.recursive(
    scalars,
    lambda v: st.one_of(st.lists(v, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "c"]), v, max_size=3)),
    max_leaves=6,
)


def _object_schema(parts: tuple[dict[str, Any], list[str], Any]) -> dict[str, Any]:
    return {"type": "object", "properties": parts[0], "required": parts[1], "additionalProperties": parts[2]}


leaf_schemas = st.one_of(
    st.builds(lambda t: {"type": t}, st.sampled_from(["null", "boolean", "integer", "string", "object", "array"])),
    st.builds(
        lambda a, b: {"type": "integer", "minimum": min(a, b), "maximum": max(a, b)},
        st.integers(-15, 15),
        st.integers(-15, 15),
    ),
    st.builds(lambda v: {"enum": v}, st.lists(values, min_size=1, max_size=3)),
    st.builds(lambda n: {"maxLength": n}, st.integers(0, 3)),
    st.just({}),
)
schemas = st.recursive(
    leaf_schemas,
    lambda s: st.one_of(
        st.tuples(
            st.dictionaries(st.sampled_from(["a", "b", "c"]), s, max_size=3),
            st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True),
            st.one_of(st.booleans(), s),
        ).map(_object_schema),
        st.builds(lambda x, n: {"items": x, "maxItems": n}, s, st.integers(0, 3)),
        st.builds(lambda x: {"anyOf": x}, st.lists(s, min_size=1, max_size=2)),
        st.builds(lambda x: {"allOf": x}, st.lists(s, min_size=1, max_size=2)),
        st.builds(lambda x: {"not": x}, leaf_schemas),
    ),
    max_leaves=4,
)


def sorted_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: sorted_keys(value[k]) for k in sorted(value)}
    return [sorted_keys(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("any_order", [False, True])
@given(schema=schemas, instances=st.lists(values, min_size=1, max_size=8))
def test_random_schemas_and_instances(any_order: bool, schema: Any, instances: list[Any]) -> None:
    """Keys in the schema's order, or in the instances' own with ``any_order``."""
    ordered = (lambda x: x) if any_order else sorted_keys
    grammar = Grammar.from_json_schema(ordered(schema), any_order=any_order)
    assert grammar.report is not None
    try:
        matcher: GrammarMatcher | None = GrammarMatcher(GrammarCompiler(BYTES).compile(grammar))
    except ValueError as error:
        assert "matches none" in str(error)  # noqa: PT017
        matcher = None
    checker = jsonschema.Draft202012Validator(schema)
    for instance in map(ordered, instances):
        got, expected = accepts(matcher, json.dumps(instance, ensure_ascii=False)), checker.is_valid(instance)
        assert got == expected or (got and not grammar.report.is_exact), instance


def test_items_behind_a_prefix_are_told_from_it_where_some_must_match() -> None:
    schema = {"prefixItems": [{"const": 1}, {"const": 2}], "items": {"const": 3}, "contains": {"const": 3}}
    grammar = Grammar.from_json_schema({"type": "array", **schema}, strict=True)
    matcher = GrammarMatcher(GrammarCompiler(BYTES).compile(grammar))
    judged = {text: accepts(matcher, text) for text in ("[1,2,3]", "[1,2,3,3]", "[1,2,2,3]", "[1,2]", "[1,3]", "[]")}
    assert [text for text, whole in judged.items() if whole] == ["[1,2,3]", "[1,2,3,3]"]


@pytest.mark.parametrize(
    ("schema", "rule"),
    [
        ({"minimum": "3"}, "it must be a number, got a string"),
        ({"maximum": None}, "it must be a number, got null"),
        ({"exclusiveMaximum": []}, "it must be a number, got an array"),
        ({"pattern": 3}, "it must be a string, got a number"),
        ({"$ref": {}}, "it must be a string, got an object"),
        ({"enum": 3}, "it must be an array, got a number"),
        ({"anyOf": {}}, "it must be an array, got an object"),
        ({"required": "a"}, "it must be an array of strings, got a string"),
        ({"required": [1]}, "it must be an array of strings, got an array"),
        ({"required": True}, "it must be an array of strings, got true"),
        ({"properties": []}, "it must be an object, got an array"),
        ({"uniqueItems": "yes"}, "it must be a boolean, got a string"),
    ],
)
def test_keywords_whose_value_says_nothing_are_reported(schema: dict[str, Any], rule: str) -> None:
    report = Grammar.from_json_schema({"items": schema}).report
    assert report is not None
    assert [(r.pointer, r.keyword, r.detail) for r in report.inexact] == [("#/items", next(iter(schema)), rule)]
    with pytest.raises(ValueError, match=rf"got '{re.escape(next(iter(schema)))}' at #/items: {rule} \(strict\)"):
        Grammar.from_json_schema({"items": schema}, strict=True)


def test_a_draft_4_bound_is_well_formed() -> None:
    bound = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 3, "exclusiveMinimum": True}
    report = Grammar.from_json_schema(bound, strict=True).report
    assert report is not None
    assert report.is_exact


def test_what_is_no_schema_is_named() -> None:
    with pytest.raises(ValueError, match=r"^schema must be an object or a boolean, got a number at #/items$"):
        Grammar.from_json_schema({"items": 3})
    with pytest.raises(ValueError, match=r"^schema must be an object or a boolean, got an array at #$"):
        Grammar.from_json_schema("[1]")


def test_report_names_what_is_not_enforced() -> None:
    items = {"type": ["string", "array"], "format": "idn-email", "maxLength": 3}
    schema = {"type": "array", "uniqueItems": True, "items": items}
    report = Grammar.from_json_schema(schema).report
    assert report is not None
    assert not report.is_exact
    assert {(r.pointer, r.keyword, r.status) for r in report.inexact} == {
        ("#", "uniqueItems", "approximated"),
        ("#/items", "format", "approximated"),
    }
    assert ("#/items", "maxLength", "exact") in {(r.pointer, r.keyword, r.status) for r in report.keywords()}
    with pytest.raises(ValueError, match=r"(uniqueItems|format).*strict"):
        Grammar.from_json_schema(schema, strict=True)


def test_formats_that_json_schema_does_not_define_are_annotations() -> None:
    schema = {"properties": {"n": {"type": "integer", "format": "int32"}, "r": {"format": "regex"}}}
    report = Grammar.from_json_schema(schema).report
    assert report is not None
    statuses = {(r.pointer, r.keyword): r.status for r in report.keywords()}
    assert statuses["#/properties/n", "format"] == "annotation"
    assert statuses["#/properties/r", "format"] == "approximated"
    assert [r.pointer for r in report.inexact] == ["#/properties/r"]
    del schema["properties"]["r"]
    strict = Grammar.from_json_schema(schema, strict=True).report
    assert strict is not None
    assert strict.is_exact
    assert [r.detail for r in strict.noted] == ["format 'int32' is none of JSON Schema's"]


def test_one_of_whose_overlap_cannot_be_excluded_is_reported() -> None:
    closed = {"anyOf": [{"properties": {"a": {}}}, {"properties": {"c": {}}}], "unevaluatedProperties": False}
    schema = {"oneOf": [closed, {"properties": {"b": {"type": "integer"}}}], "type": "object"}
    report = Grammar.from_json_schema(schema).report
    assert report is not None
    assert [(r.pointer, r.keyword) for r in report.inexact] == [("#/oneOf", "oneOf")]
    with pytest.raises(ValueError, match="strict"):
        Grammar.from_json_schema(schema, strict=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type": "strin"}', "type of JSON, got 'strin'"),
        ('{"a": \n 1,,}', "line 2, column 4"),
        ('{"$ref": "#/nowhere"}', "references must name"),
        ('{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}', "circle"),
        ('{"minLength": -1}', "non-negative integer"),
        ("[1]", "object or a boolean"),
        ('{"$dynamicRef": "#x"}', "must name a part"),
        ('{"type": "integer", "minimum": 3, "maximum": 2}', "matches none"),
    ],
)
def test_refusals_say_what_and_where(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("$", r"\$")):
        GrammarCompiler(BYTES).compile(Grammar.from_json_schema(text))


def test_budgets_on_hostile_schemas() -> None:
    with pytest.raises(GrammarTooComplex):
        Grammar.from_json_schema("[" * 100000)
    wide = {"anyOf": [{"type": "integer", "minimum": i} for i in range(40)]}
    with pytest.raises(GrammarTooComplex):
        Grammar.from_json_schema({"allOf": [wide] * 10}, strict=True)
    report = Grammar.from_json_schema({"allOf": [wide] * 10}).report
    assert report is not None
    assert {r.keyword for r in report.inexact} == {"anyOf"}
    matcher = matcher_of({"type": "string", "minLength": 100000, "maxLength": 10**9})
    assert matcher is not None
    assert matcher.accept_bytes(b'"' + b"x" * 1000)


@given(st.text(alphabet='{}[]":,$reftypanOlo#/ 012-.e\\', max_size=40))
def test_any_text_is_refused_or_compiled(text: str) -> None:
    try:
        grammar = Grammar.from_json_schema(text)
    except (ValueError, GrammarTooComplex) as error:
        assert str(error)  # noqa: PT017
    else:
        assert grammar.report is not None
