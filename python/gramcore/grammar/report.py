"""What became of the keywords of a JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["KeywordReport", "SchemaReport"]

#: keywords that say nothing about validity
_ANNOTATIONS = frozenset(
    [
        "$schema",
        "$id",
        "$anchor",
        "$comment",
        "$defs",
        "definitions",
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "contentEncoding",
        "contentMediaType",
        "id",
        "$vocabulary",
    ]
)
_SCALAR = frozenset(
    [
        "$dynamicAnchor",
        "$dynamicRef",
        "$recursiveAnchor",
        "$recursiveRef",
        "$ref",
        "const",
        "dependentRequired",
        "divisibleBy",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "maxContains",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minContains",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "multipleOf",
        "pattern",
        "required",
        "type",
        "uniqueItems",
    ]
)
_SINGLE = frozenset(
    [
        "items",
        "additionalItems",
        "contains",
        "additionalProperties",
        "propertyNames",
        "not",
        "if",
        "then",
        "else",
        "unevaluatedItems",
        "unevaluatedProperties",
    ]
)
_LISTS = frozenset(["allOf", "anyOf", "oneOf", "prefixItems", "items"])
_MAPS = frozenset(["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"])
_KNOWN = _SCALAR | _SINGLE | _LISTS | _MAPS


def is_assertion(keyword: str) -> bool:
    """Whether a keyword can affect validity."""
    return keyword not in _ANNOTATIONS


@dataclass(frozen=True)
class KeywordReport:
    """One keyword at one place.

    Attributes:
        pointer: the schema object, as a JSON pointer.
        keyword: its keyword.
        status: ``"exact"``, ``"approximated"`` (texts that violate it may pass), or ``"annotation"`` (it says nothing
            about validity, as keywords and formats that JSON Schema does not define).
        detail: what is not enforced; empty when exact.
    """

    pointer: str
    keyword: str
    status: str
    detail: str = ""


@dataclass(frozen=True)
class SchemaReport:
    """All that is not exact, and on request everything.

    Attributes:
        noted: keywords that are approximated, or annotations only.
        text: the schema.
    """

    noted: tuple[KeywordReport, ...]
    text: str = field(repr=False, compare=False, default="true")

    @property
    def inexact(self) -> tuple[KeywordReport, ...]:
        """Keywords that are approximated."""
        return tuple(r for r in self.noted if r.status == "approximated")

    @property
    def is_exact(self) -> bool:
        """Whether every keyword is enforced exactly."""
        return not self.inexact

    def keywords(self) -> list[KeywordReport]:
        """Every keyword of the schema that can affect validity or is not one of JSON Schema's, in reading order."""
        known = {(r.pointer, r.keyword): r for r in self.noted}
        found = [known.pop(key) if key in known else _plain(*key) for key in _walk(json.loads(self.text), "#")]
        return found + list(known.values())


def _plain(pointer: str, keyword: str) -> KeywordReport:
    if keyword in _KNOWN:
        return KeywordReport(pointer, keyword, "exact")
    return KeywordReport(pointer, keyword, "annotation", "JSON Schema does not define it")


def _walk(schema: Any, pointer: str) -> Iterator[tuple[str, str]]:
    """Every keyword with its schema's pointer, in reading order; schemas nest as deep as the front end reads them."""
    left: list[tuple[str, Any, str]] = [("", schema, pointer)]  # what comes next stands last
    while left:
        keyword, value, place = left.pop()
        if keyword:
            if is_assertion(keyword):
                yield place, keyword
            left.extend(reversed(list(_parts(keyword, value, place))))
        elif isinstance(value, dict):
            left.extend((k, v, place) for k, v in reversed(value.items()))


def _parts(keyword: str, value: Any, pointer: str) -> Iterator[tuple[str, Any, str]]:
    """The schemas under a keyword, each as ("", schema, pointer)."""
    if keyword in _MAPS and isinstance(value, dict):
        yield from (("", part, f"{pointer}/{keyword}/{name}") for name, part in value.items())
    elif keyword in _LISTS and isinstance(value, list):
        yield from (("", part, f"{pointer}/{keyword}/{i}") for i, part in enumerate(value))
    elif keyword in _SINGLE:
        yield "", value, f"{pointer}/{keyword}"
