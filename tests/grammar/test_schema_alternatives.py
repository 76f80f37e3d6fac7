"""JSON Schema: alternatives that exclude each other, many of them, and too many; what drafts and options change."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, GrammarTooComplex, TokenizerInfo

BYTES = TokenizerInfo([bytes([b]) for b in range(256)])


def takes(grammar: Grammar, *values: Any) -> list[bool]:
    compiled = GrammarCompiler(BYTES).compile(grammar)
    out = []
    for value in values:
        matcher = GrammarMatcher(compiled)
        out.append(matcher.accept_bytes(json.dumps(value, ensure_ascii=False).encode()) and matcher.can_terminate())
    return out


def tagged(tag: dict[str, Any], value: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": {"t": tag, "v": value}}
    return {**schema, "required": ["t"]} if required else schema


KINDS = [{"type": "integer"}, {"type": "string"}, {"type": "boolean"}, {"type": "null"}] * 4
UNIONS = {
    "patterns": {"oneOf": [tagged({"pattern": f"^(k{i}|basic:k{i}):$"}, v) for i, v in enumerate(KINDS)]},
    "references": {
        "oneOf": [tagged({"$ref": f"#/$defs/n{i}"}, v) for i, v in enumerate(KINDS)],
        "$defs": {f"n{i}": {"enum": [f"k{i}:", f"also{i}"]} for i in range(len(KINDS))},
    },
    "required beside": {
        "required": ["t"],
        "oneOf": [tagged({"enum": [f"k{i}:"]}, v, required=False) for i, v in enumerate(KINDS)],
    },
    "required around": {
        "required": ["t"],
        "allOf": [{"oneOf": [tagged({"const": f"k{i}:"}, v, required=False) for i, v in enumerate(KINDS)]}],
    },
    "bounds": {"oneOf": [tagged({"minimum": 2 * i, "exclusiveMaximum": 2 * i + 2}, v) for i, v in enumerate(KINDS)]},
}
INSTANCES = [{"t": t, "v": v} for t in ("k0:", "k1:", "k14:", "also3", 0, 3, 31) for v in (1, "x", True, None)]


@pytest.mark.parametrize("name", UNIONS)
def test_tagged_unions_are_exact(name: str) -> None:
    """Alternatives that a tag keeps apart are not multiplied out, however the schema says so."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **UNIONS[name]}
    if name != "bounds":
        instances = [i for i in INSTANCES if isinstance(i["t"], str)]
    else:
        instances = [i for i in INSTANCES if isinstance(i["t"], int)]
    grammar = Grammar.from_json_schema(schema, strict=True)
    valid = [jsonschema.Draft202012Validator(schema).is_valid(i) for i in instances]
    assert takes(grammar, *instances) == valid
    assert 0 < sum(valid) < len(valid)


def test_too_many_alternatives_are_reported_or_refused() -> None:
    shared = {"oneOf": [{"properties": {f"p{i}{k}": {"type": "integer"} for k in range(4)}} for i in range(8)]}
    grammar = Grammar.from_json_schema(shared)
    assert grammar.report is not None
    assert [(r.pointer, r.keyword) for r in grammar.report.inexact] == [("#/oneOf", "oneOf")]
    assert takes(grammar, {}, {"p00": "x"}, {f"p{i}0": "x" for i in range(8)}) == [True, True, False]
    with pytest.raises(GrammarTooComplex, match="alternatives"):
        Grammar.from_json_schema(shared, strict=True)


def test_lists_longer_than_the_budget_of_alternatives() -> None:
    values = [f"value {i}" for i in range(1500)]
    for keyword in ("anyOf", "oneOf"):
        grammar = Grammar.from_json_schema({"type": "string", keyword: [{"const": v} for v in values]}, strict=True)
        assert takes(grammar, "value 0", "value 1499", "value 1500", 3) == [True, True, False, False]


def test_large_enumerations_take_time_in_proportion() -> None:
    """20,000 values: comparing each with each would take minutes under the sanitizers, and seconds without."""
    values = [f"value {i}" for i in range(20000)]
    grammar = Grammar.from_json_schema({"items": {"enum": values}, "uniqueItems": True})
    assert takes(grammar, ["value 0", "value 19999"], ["value 20000"]) == [True, False]


def test_keywords_that_are_not_ones_are_named() -> None:
    report = Grammar.from_json_schema({"typ": "string", "properties": {"typ": {"min": 3, "minimum": 3}}}).report
    assert report is not None
    statuses = {(r.pointer, r.keyword): r.status for r in report.keywords()}
    assert statuses[("#", "typ")] == statuses[("#/properties/typ", "min")] == "annotation"
    assert statuses[("#/properties/typ", "minimum")] == statuses[("#", "properties")] == "exact"


def test_references_hide_what_stands_beside_them_in_early_drafts() -> None:
    schema = {"$defs": {"a": {"type": "array"}}, "properties": {"x": {"$ref": "#/$defs/a", "maxItems": 1}}}
    early = Grammar.from_json_schema({"$schema": "http://json-schema.org/draft-07/schema#", **schema})
    assert early.report is not None
    assert [(r.pointer, r.keyword, r.status) for r in early.report.noted] == [
        ("#/properties/x", "maxItems", "annotation")
    ]
    assert takes(early, {"x": [1, 2]}, {"x": 1}) == [True, False]
    assert takes(Grammar.from_json_schema(schema), {"x": [1, 2]}, {"x": [1]}) == [False, True]


def test_pointers_are_tried_from_the_root_where_an_identified_part_has_not_got_them() -> None:
    part = {"$id": "http://example.com/part", "properties": {"x": {"$ref": "#/$defs/n"}}}
    grammar = Grammar.from_json_schema({"$defs": {"n": {"type": "null"}}, "items": part})
    assert takes(grammar, [{"x": None}], [{"x": 1}]) == [True, False]


def test_given_values_have_their_keys_in_any_order() -> None:
    schema = {"enum": [{"a": 1, "b": [{"c": 2, "d": 3}]}]}
    values = [{"a": 1, "b": [{"c": 2, "d": 3}]}, {"b": [{"d": 3, "c": 2}], "a": 1}, {"a": 1, "b": [{"c": 2}]}, {"a": 1}]
    assert takes(Grammar.from_json_schema(schema, any_order=True), *values) == [True, True, False, False]
    assert takes(Grammar.from_json_schema(schema), *values) == [True, False, False, False]


def test_many_patterns_of_properties() -> None:
    patterns = {f"^{c}": {"const": c} for c in "abcdefgh"}
    schema = {"patternProperties": {**patterns, "z$": {"type": "string"}}, "additionalProperties": False}
    values = [{"a1": "a"}, {"a1": "b"}, {"hz": "h"}, {"hz": 1}, {"1z": "any"}, {"x": 1}]
    grammar = Grammar.from_json_schema(schema, strict=True)
    assert takes(grammar, *values) == [jsonschema.Draft202012Validator(schema).is_valid(v) for v in values]


def test_patterns_of_properties_that_are_not_supported_let_more_pass() -> None:
    schema = {
        "patternProperties": {r"^(a)\1": {"type": "integer"}, "^b": {"type": "null"}},
        "additionalProperties": False,
    }
    grammar = Grammar.from_json_schema(schema)
    assert grammar.report is not None
    assert [(r.pointer, r.keyword) for r in grammar.report.inexact] == [("#", "patternProperties")]
    assert takes(grammar, {"aa": 1}, {"b": None}, {"b": 1}) == [True, True, False]
    with pytest.raises(ValueError, match="patternProperties"):
        Grammar.from_json_schema(schema, strict=True)


def test_lengths_can_be_bounded() -> None:
    schema = {"properties": {"s": {"type": "string"}, "n": {"type": "number"}, "long": {"minLength": 6}}}
    grammar = Grammar.from_json_schema(schema, max_string_length=4, max_digits=3)
    good = [{"s": "abcd"}, {"n": 123}, {"n": -0.125}, {"long": "sixsix"}, {"open": 1}]
    bad = [{"s": "abcde"}, {"n": 1234}, {"n": 0.1234}, {"long": "sixsixs"}, {"opens": 1}]
    assert takes(grammar, *good) == [True] * len(good)
    assert takes(grammar, *bad) == [False] * len(bad)
    assert takes(Grammar.from_json_schema(schema), *bad) == [True] * len(bad)
    assert grammar.report is not None
    assert any("4 characters" in r.detail for r in grammar.report.inexact)
    with pytest.raises(ValueError, match="max_digits"):
        Grammar.from_json_schema(schema, max_digits=0)


def test_rules_are_numbered_by_appearance() -> None:
    """Where values lie in memory says nothing: a schema makes the same bytes whatever was allocated before."""
    parts = [{"properties": {f"p{i}": {"enum": [i]}}} for i in range(6)]
    schema = json.dumps({"allOf": [{"properties": {"x": p}} for p in parts], "required": ["x"]})
    kept: list[Any] = []
    made = set()
    for i in range(12):
        kept.append(Grammar.from_json_schema({"enum": [f"{k}" * (7 * i + 1) for k in range(i)]}))
        made.add(Grammar.from_json_schema(schema)._native.to_bytes())
    assert len(made) == 1


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (
            "uri-reference",
            ["", "#a", "/a/b?c", "a.json", "http://x.y/z", "./a:b"],
            ["\\a", "1:b", "a b", "//h:x", "/[::1]"],
        ),
        ("iri-reference", ["é/ü?\ue000", "//é:80/𐀀"], ["é\\", "\ue000", "#\ue000", "\ufdd0"]),
        ("uri-template", ["/a/{id}", "{?q,r*}", "http://x/{+p:12}", "é", "a'b", "𐀀"], ["/a/{id", "a}b", "{}", "a b"]),
        ("relative-json-pointer", ["0", "1/a", "12#", "0/a~1b"], ["/a", "01/a", "-1", "0##"]),
    ],
)
def test_formats_of_references(name: str, good: list[str], bad: list[str]) -> None:
    grammar = Grammar.from_json_schema({"type": "string", "format": name}, strict=True)
    assert takes(grammar, *good) == [True] * len(good)
    assert takes(grammar, *bad) == [False] * len(bad)


def test_alternatives_that_hold_themselves_end_the_search_for_what_they_share() -> None:
    """Whether two alternatives exclude each other was asked of their properties, whose alternatives asked it again."""
    flag = {"properties": {"r": {"enum": [True]}}, "required": ["r"]}
    letters = {"^[a-z]+$": {"oneOf": [{"$ref": "#/$defs/f"}, flag]}}
    schema = {"$ref": "#/$defs/f", "$defs": {"f": {"type": "object", "patternProperties": letters}}}
    values: list[Any] = [{}, {"a": {}}, {"a": {"r": True}}, {"a": {"r": {}}}, {"a": 1}, {"a": {"b": {"r": True}}}, 3]
    valid = jsonschema.Draft202012Validator(schema).is_valid
    assert takes(Grammar.from_json_schema(schema, strict=True), *values) == [valid(v) for v in values]


def test_a_schema_of_many_hard_alternatives_gives_up_on_what_they_share() -> None:
    """Each list alone stays within its budget of alternatives, and comes to nothing; hundreds would take long."""
    hard = {"oneOf": [{"properties": {f"p{i}{k}": {"type": "integer"} for k in range(4)}} for i in range(8)]}
    grammar = Grammar.from_json_schema({"properties": {f"x{i}": hard for i in range(200)}})
    assert grammar.report is not None
    details = [r.detail for r in grammar.report.inexact]
    assert len(details) == 200
    assert sum("combinations" in d for d in details) > 100
    assert takes(grammar, {"x0": {"p00": 1}, "x199": {"p73": 1}}, {"x199": 3, "x0": "a"}) == [True, False]


def test_alternatives_inside_themselves_are_looked_at_to_an_end() -> None:
    """Whether two alternatives share a value leads to the same question inside them, without end: this was a crash."""
    record = {"type": "object", "required": ["a", "ref"], "additionalProperties": False}
    record["properties"] = {"a": {"type": "string"}, "ref": {"type": "boolean"}}
    parts = [{"type": "string"}, {"$ref": "#/definitions/tree"}, {"$ref": "#/definitions/record"}]
    tree = {"type": "object", "patternProperties": {"^[a-z]*$": {"oneOf": parts}}, "additionalProperties": False}
    both = {"allOf": [{"required": ["a", "ref"]}, {"$ref": "#/definitions/tree"}]}
    schema = {
        "definitions": {"tree": tree, "record": record, "both": both},
        "oneOf": [{"$ref": "#/definitions/record"}, {"$ref": "#/definitions/both"}],
    }
    values: list[Any] = [{"a": "x", "ref": r} for r in (True, "y", {}, {"ref": {}}, {"a": "z", "ref": True}, 1)]
    values += [{"a": {}, "ref": {"b": "c"}}, {"a": 1, "ref": True}, {"a": "x"}, {"a": "x", "ref": "y", "z": 1}]
    grammar = Grammar.from_json_schema(schema, strict=True)
    expected = [jsonschema.Draft202012Validator(schema).is_valid(v) for v in values]
    assert takes(grammar, *values) == expected
    assert 3 < sum(expected) < len(values)


def test_close_looks_at_alternatives_have_a_budget() -> None:
    """Random definitions that use each other: looked at without end, in effect, before there was one."""
    schema = (
        '{"definitions":{"0":{"dependentSchemas":{"a":{"patternProperties":{"^a":{"type":"object","properties'
        '":{"a":{"enum":[[1],null]},"b":{"$ref":"#/definitions/2"}},"required":["a"],"additionalProperties":{'
        '"required":["c","a"]}}},"additionalProperties":false}},"unevaluatedProperties":false},"1":{"allOf":['
        '{"enum":[{"a":1},true]},{"not":{"allOf":[{"$ref":"#/definitions/3"},{"type":"number"}]}},{"oneOf":[{'
        '"if":{"enum":[{"a":1},"a"]},"then":{"$ref":"#/definitions/3"},"else":{"enum":[[1],{"a":1}]}},{"type"'
        ':"array","prefixItems":[{"type":"number"},{"$ref":"#/definitions/1"}],"items":{"enum":["a",null]}}]}'
        ']},"2":{"anyOf":[{"required":["a"]},{"propertyNames":{"type":["string","null"]},"minProperties":1},{'
        '"oneOf":[{"not":{"$ref":"#/definitions/0"}},{"type":"number"}]}]},"3":{"type":"object","properties":'
        '{"c":{"if":{"type":"object","properties":{"a":{"enum":[true,1]},"c":{"enum":["a",[1]]}},"required":['
        '"c"],"additionalProperties":{"required":["c"]}},"then":{"anyOf":[{"required":["b","a"]},{"type":"arr'
        'ay"},{"$ref":"#/definitions/1"}]},"else":{"enum":[1,[1]]}},"a":{"oneOf":[{"oneOf":[{"$ref":"#/defini'
        'tions/1"},{"type":"number"}]},{"patternProperties":{"b":{"$ref":"#/definitions/2"}},"additionalPrope'
        'rties":false},{"anyOf":[{"type":["string","null"]},{"$ref":"#/definitions/3"}]}]}},"required":["a"],'
        '"additionalProperties":{"required":["b","c"]}}},"dependentSchemas":{"a":{"$ref":"#/definitions/1"}},'
        '"unevaluatedProperties":false}'
    )
    Grammar.from_json_schema(schema)
    with pytest.raises(GrammarTooComplex, match="at most 512 alternatives"):
        Grammar.from_json_schema(schema, strict=True)
