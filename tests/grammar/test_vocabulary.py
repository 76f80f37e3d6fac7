"""Real vocabularies: the bytes of every token, and masks over all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo

from tests.reference.grammar import brute_mask


@pytest.fixture(scope="session")
def gguf_path() -> Any:
    from gramcore.model.hf import find_model

    try:
        return find_model("smollm2")
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def smollm(gguf_path: Any) -> TokenizerInfo:
    return TokenizerInfo.from_gguf(gguf_path)


def test_token_bytes_join_to_the_text(gguf_path: Any, smollm: TokenizerInfo) -> None:
    from gramcore.model.tokenizer import load_tokenizer
    from gramcore.quant import GgufFile

    with GgufFile(gguf_path) as file:
        tokenizer = load_tokenizer(file)
    again = TokenizerInfo.from_huggingface(tokenizer, vocab_size=len(smollm))
    for text in ('Hello, wörld! 日本語 \t\n  {"a": 1}', "naïve — 😀😀 e\u0301"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert b"".join(smollm.token(i) for i in ids) == text.encode()
        assert b"".join(again.token(i) for i in ids) == text.encode()
    differing = [i for i in range(len(smollm)) if smollm.token(i) != again.token(i)]
    assert differing == []
    assert set(again.stop_tokens) <= set(smollm.stop_tokens)


@pytest.mark.parametrize(
    "pattern", [r"[A-Za-z ,.]{0,40}", r'\{"a": (?:-?\d+|"[^"\\]*")\}', r"(?:yes|no|\s+maybe)[!?]*"]
)
def test_every_token_over_the_whole_vocabulary(smollm: TokenizerInfo, pattern: str) -> None:
    matcher = GrammarMatcher(GrammarCompiler(smollm).compile(Grammar.from_regex(pattern)))
    rng = np.random.default_rng(1)
    for _ in range(4):
        allowed = matcher.allowed_tokens()
        assert allowed.tolist() == [t for t, ok in enumerate(brute_mask(matcher, len(smollm))) if ok]
        if not len(allowed) or not matcher.accept(int(rng.choice(allowed))):
            break
