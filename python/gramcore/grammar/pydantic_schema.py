"""JSON Schemas of Pydantic models, as one wants them for generation: without properties that the model would drop."""

from __future__ import annotations

from typing import Any

from gramcore._checks import require

__all__ = ["pydantic_schema"]

#: Where Pydantic writes schemas of values, by the shape that holds them.
_ONE = ("items", "additionalProperties", "contains")
_LISTS = ("anyOf", "oneOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "$defs")


def pydantic_schema(model: Any, *, undeclared: bool) -> dict[str, Any]:
    """The JSON Schema of a Pydantic type.

    Args:
        model: a ``BaseModel`` class, or another type that Pydantic knows.
        undeclared: leave objects open that say nothing of further properties (Pydantic reads and drops them);
            otherwise they are closed. What ``extra`` or the type says (``dict[str, int]``) stands in either case.

    Raises:
        MissingExtraError: Pydantic is not installed. Errors of Pydantic for a type it has no schema of.
    """
    schema: dict[str, Any] = require("pydantic", "grammar").TypeAdapter(model).json_schema()
    if not undeclared:
        _close(schema)
    return schema


def _close(schema: Any) -> None:
    """Close every object with declared properties; under allOf and the like others may declare more, so not there."""
    if not isinstance(schema, dict):
        return
    if "properties" in schema and not {"allOf", "$ref"} & schema.keys():
        schema.setdefault("additionalProperties", False)
    for keyword in _ONE:
        _close(schema.get(keyword))
    for keyword in _LISTS:
        for part in schema.get(keyword, ()):
            _close(part)
    for keyword in _MAPS:
        for part in schema.get(keyword, {}).values():
            _close(part)
