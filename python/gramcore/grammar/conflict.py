"""Which keywords of a JSON Schema that matches nothing exclude each other."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from gramcore.grammar.report import is_assertion

__all__ = ["conflicting_keywords"]

#: schemas tried and seconds spent at most; what is left then is named although some of it may not be needed
_MAX_TRIALS, _MAX_SECONDS = 400, 2.0

_Place = tuple[str | int, ...]


def conflicting_keywords(text: str, is_empty: Callable[[str], bool]) -> list[str]:
    """A set of keywords of which none can be left out, as ``minimum 3 at #``.

    Keywords are removed one by one, outer ones first; what can go while nothing matches is not part of the conflict.
    What stands under ``not`` and ``if`` is left whole, since removing there may exclude more.

    Args:
        text: a schema that matches nothing.
        is_empty: whether a schema matches nothing; False also where it is none.
    """
    schema = json.loads(text)
    kept: list[_Place] = []
    trials, end = 0, time.monotonic() + _MAX_SECONDS
    pending = list(_inside(schema, ()))
    while pending:
        place = pending.pop(0)
        trials += 1
        smaller = _without(schema, place)
        in_time = trials <= _MAX_TRIALS and time.monotonic() < end
        if in_time and is_empty(json.dumps(smaller)):
            schema = smaller
            continue
        inner = list(_inside(_at(schema, place), place))
        pending[:0] = inner
        if not inner:
            kept.append(place)
    return [_say(schema, place) for place in kept]


def _inside(value: Any, place: _Place) -> Iterator[_Place]:
    """The parts of a schema or keyword that can be removed on their own."""
    keyword = place[-1] if place and not _is_schema(place) else None
    if _is_schema(place):
        if isinstance(value, dict):
            yield from ((*place, k) for k in value if is_assertion(k) or k in ("$defs", "definitions"))
    elif keyword in ("not", "if", "then", "else", "enum", "const"):
        return
    elif isinstance(value, dict):
        if keyword in _MAPS:
            yield from ((*place, k) for k in value)
        elif keyword in _SCHEMAS:
            yield from _inside(value, (*place, ""))
    elif isinstance(value, list) and keyword in ("allOf", "anyOf", "oneOf"):
        yield from ((*place, i) for i in range(len(value)))


_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SCHEMAS = ("items", "contains", "additionalProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties")


def _is_schema(place: _Place) -> bool:
    """Whether a schema stands there: the root, an entry of a map or list of schemas, or "" behind a keyword."""
    if not place or place[-1] == "":
        return True
    before = place[-2] if len(place) > 1 and not _is_schema(place[:-1]) else None
    return before in _MAPS or (before in ("allOf", "anyOf", "oneOf") and isinstance(place[-1], int))


def _at(schema: Any, place: _Place) -> Any:
    for part in place:
        schema = schema if part == "" else schema[part]
    return schema


def _without(schema: Any, place: _Place) -> Any:
    """A copy without that part: an alternative becomes anything, so that its list stays in place."""
    out = copy.deepcopy(schema)
    steps = [part for part in place if part != ""]
    parent = _at(out, tuple(steps[:-1]))
    if isinstance(parent, list):
        parent[int(steps[-1])] = True
    else:
        del parent[steps[-1]]
    return out


def _say(schema: Any, place: _Place) -> str:
    steps = [part for part in place if part != ""]
    in_list = isinstance(_at(schema, tuple(steps[:-1])), list)
    keyword = steps[-2] if in_list else steps[-1]
    pointer = "".join(f"/{part}" for part in steps[: -2 if in_list else -1])
    value = json.dumps(_at(schema, place), ensure_ascii=False)
    return f"{keyword} {value if len(value) <= 60 else value[:57] + '...'} at #{pointer}"
