"""Grammars of Pydantic models: what they read is what Pydantic reads, without properties it would drop."""

from __future__ import annotations

import dataclasses
import datetime
import json
from typing import Annotated, Any, Literal

import pytest
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo

pydantic = pytest.importorskip("pydantic")

INFO = TokenizerInfo([bytes([i]) for i in range(256)])


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int = pydantic.Field(ge=1, le=9)


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    friends: list[Dog] = pydantic.Field(default=[])
    born: datetime.date | None = None


class Open(pydantic.BaseModel, extra="allow"):
    name: str


class Shut(pydantic.BaseModel, extra="forbid"):
    name: str


@dataclasses.dataclass
class Pair:
    left: Cat
    right: dict[str, int]


Pet = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]


def accepts(grammar: Grammar, value: Any) -> bool:
    matcher = GrammarMatcher(GrammarCompiler(INFO).compile(grammar))
    return matcher.accept_bytes(json.dumps(value).encode()) and matcher.can_terminate()


CASES = [
    (Cat, {"kind": "cat", "lives": 9}, True),
    (Cat, {"kind": "cat", "lives": 10}, False),
    (Pet, {"kind": "dog", "friends": [{"kind": "dog", "friends": []}]}, True),
    (Pet, {"kind": "dog", "born": "2024-02-29"}, True),
    (Pet, {"kind": "dog", "born": None}, True),
    (Pet, {"kind": "dog", "born": "29.2.2024"}, False),
    (Pet, {"kind": "dog", "lives": 3}, False),
    (Pair, {"left": {"kind": "cat", "lives": 1}, "right": {"any": 3, "name": 4}}, True),
    (Pair, {"left": {"kind": "cat", "lives": 1}, "right": {"any": "x"}}, False),
    (list[Open], [{"name": "a", "more": [1]}], True),
    (tuple[int, Shut], [1, {"name": "a"}], True),
    (tuple[int, Shut], [1, {"name": "a", "more": 1}], False),
]


@pytest.mark.parametrize(("model", "value", "expected"), CASES)
def test_reads_what_pydantic_reads(model: Any, value: Any, expected: bool) -> None:
    assert accepts(Grammar.from_pydantic(model), value) is expected
    if expected:
        pydantic.TypeAdapter(model).validate_json(json.dumps(value))


@pytest.mark.parametrize("model", [Cat, Pet, Dog | Cat, list[Cat], dict[str, Cat]])
def test_undeclared_properties_at_any_depth(model: Any) -> None:
    cat = {"kind": "cat", "lives": 1, "colour": "red"}
    value = {list[Cat]: [cat], dict[str, Cat]: {"tom": cat}}.get(model, cat)
    assert not accepts(Grammar.from_pydantic(model), value)
    assert accepts(Grammar.from_pydantic(model, undeclared=True), value)
    pydantic.TypeAdapter(model).validate_json(json.dumps(value))  # Pydantic reads them, and drops them


def test_extra_is_the_models_own_choice() -> None:
    more = {"name": "a", "more": 1}
    for undeclared in (False, True):
        assert accepts(Grammar.from_pydantic(Open, undeclared=undeclared), more)
        assert not accepts(Grammar.from_pydantic(Shut, undeclared=undeclared), more)


def test_values_that_look_like_schemas_are_left_alone() -> None:
    class Holder(pydantic.BaseModel):
        properties: dict[str, Any] = pydantic.Field(default={"properties": {}}, examples=[{"properties": {"a": 1}}])

    assert accepts(Grammar.from_pydantic(Holder), {"properties": {"anything": {"goes": 1}}})
    assert not accepts(Grammar.from_pydantic(Holder), {"more": 1})
