"""``gramcore grammar check``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import gramcore

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "ok": {"type": "boolean"}, "rank": {"type": "array", "maxItems": 1}},
    "required": ["name", "ok"],
}


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    tags = {"type": "array", "items": {"type": "object"}, "uniqueItems": True}
    path = tmp_path / "s.json"
    path.write_text(json.dumps({**SCHEMA, "properties": {**SCHEMA["properties"], "tags": tags}}))
    return path


def check(schema: Path, instance: str | None = None, *options: str) -> tuple[int, str]:
    if instance is not None:
        file = schema.with_name("instance.json")
        file.write_text(instance)
        options = (*options, "--instance", str(file))
    done = gramcore("grammar", "check", str(schema), *options)
    return done.returncode, done.stdout + done.stderr


def test_report_and_match(schema: Path) -> None:
    code, text = check(schema, '{"name": "ab", "ok": true}\n')
    assert (code, "approximated" in text, "matches" in text) == (0, True, True)
    code, text = check(schema, None, "--strict")
    assert code == 2
    assert f"error: {schema}: " in text
    assert "uniqueItems" in text


def test_the_place_where_an_instance_leaves_the_schema(schema: Path) -> None:
    code, text = check(schema, '{"name": "ab",\n "ok": 1}')
    assert code == 2
    assert f"instance.json must match {schema}, got '1' at line 2, column 8" in text
    assert "order" not in text
    code, text = check(schema, '{"name": "ab", "ok": true, "rank": [1, 2]}')
    assert code == 2
    assert "order" not in text


def test_the_order_of_keys_is_named_only_where_it_is_the_reason(schema: Path) -> None:
    other_order = '{"ok": true, "name": "ab"}\n'
    code, text = check(schema, other_order)
    assert code == 2
    assert "keys come in the schema's order without --any-order" in text
    assert check(schema, other_order, "--any-order")[0] == 0


def test_errors_name_the_file(schema: Path) -> None:
    for text in ("{", '{"type": "strin"}', '{"allOf": [{"type": "string"}, {"type": "number"}]}'):
        schema.write_text(text)
        code, said = check(schema)
        assert code == 2
        assert said.startswith(f"error: {schema}: ")
    code, said = check(schema.with_name("absent.json"))
    assert code == 2
    assert "absent.json" in said
