"""The keywords named for a schema that matches nothing: each is needed, and together they are enough."""

from __future__ import annotations

from typing import Any

import pytest
from gramcore.grammar import Grammar, GrammarCompiler, TokenizerInfo

COMPILER = GrammarCompiler(TokenizerInfo([b"x"]))
CLOSED = {"type": "object", "required": ["a"], "additionalProperties": False, "properties": {"b": {}}}
LINKED = {"type": "array", "minItems": 2}

CASES: list[tuple[Any, str]] = [
    (
        {"type": "integer", "minimum": 3, "maximum": 2, "title": "t", "multipleOf": 1},
        'type "integer" at #, minimum 3 at #, maximum 2 at #',
    ),
    (
        {"type": "object", "properties": {"a": {"type": "string", "enum": [1]}, "b": {}}, "required": ["b", "a"]},
        'type "object" at #, type "string" at #/properties/a, enum [1] at #/properties/a, required ["b", "a"] at #',
    ),
    (
        {"allOf": [{"type": "string"}, {"$ref": "#/$defs/x"}], "$defs": {"x": LINKED, "y": {}}},
        'type "string" at #/allOf/0, $ref "#/$defs/x" at #/allOf/1, type "array" at #/$defs/x',
    ),
    (
        {"anyOf": [{"const": 1}, {"const": 2}], "type": "string"},
        'const 1 at #/anyOf/0, const 2 at #/anyOf/1, type "string" at #',
    ),
    (
        {"type": "array", "minItems": 3, "uniqueItems": True, "items": {"enum": [1, 2]}, "maxItems": 9},
        'type "array" at #, minItems 3 at #, uniqueItems true at #, enum [1, 2] at #/items',
    ),
    (CLOSED, 'type "object" at #, required ["a"] at #, additionalProperties false at #'),
    (
        {"type": "string", "pattern": "^a", "allOf": [{"pattern": "^b"}]},
        'type "string" at #, pattern "^a" at #, pattern "^b" at #/allOf/0',
    ),
    (
        {"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]},
        'type "object" at #, $ref "#" at #/properties/n, required ["n"] at #',
    ),
    (
        {"minimum": 5, "type": "number", "not": {"minimum": 1}},
        'minimum 5 at #, not {"minimum": 1} at #',
    ),
]


@pytest.mark.parametrize(("schema", "named"), CASES, ids=[named for _, named in CASES])
def test_conflicts_are_named(schema: Any, named: str) -> None:
    with pytest.raises(ValueError, match="matches none") as caught:
        COMPILER.compile(Grammar.from_json_schema(schema))
    assert str(caught.value).endswith(f"matches none; these keywords exclude each other: {named}")


def test_other_grammars_and_single_keywords_say_only_that_nothing_matches() -> None:
    for grammar in (Grammar.from_json_schema(False), Grammar.from_regex("a&b", boolean_operators=True)):
        with pytest.raises(ValueError, match=r"matches none$"):
            COMPILER.compile(grammar)


def test_large_schemas_that_match_nothing_are_explained_in_bounded_work() -> None:
    schema: Any = {"type": "string"}
    for level in range(60):
        schema = {"allOf": [schema, {"maxLength": 9 + level}, {"pattern": "^a"}]}
    with pytest.raises(ValueError, match=r'type "string" at #/allOf/0/allOf/0.*type "null" at #/allOf/1'):
        COMPILER.compile(Grammar.from_json_schema({"allOf": [schema, {"type": "null"}]}))
