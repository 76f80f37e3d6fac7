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


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "a b"]}, "maxItems": 3},
        "n": {"type": "number", "minimum": -1.5, "maximum": 20},
        "next": {"$ref": "#"},
    },
    "required": ["name"],
}


#: Most tokens that leave a name go on with an operator, a bracket or a blank and what follows: lexemes of pairs.
PROGRAM = r"""
start: (NAME "=" expr ";")+
expr: expr ("+" | "==") term | term
term: NAME | NUMBER | NAME "(" (expr ("," expr)*)? ")" | term "[" expr "]" | STRING
NAME: /[A-Za-z_][A-Za-z0-9_]*/
NUMBER: /[0-9]+(\.[0-9]+)?/
STRING: /"[^"\n]*"/
%ignore /[ \t\n]+/
"""


@pytest.mark.parametrize(
    "grammar", [Grammar.from_json_schema(SCHEMA), Grammar.from_lark(PROGRAM)], ids=["schema", "program"]
)
def test_masks_are_what_one_walk_gives(smollm: TokenizerInfo, grammar: Grammar) -> None:
    matcher = GrammarMatcher(GrammarCompiler(smollm).compile(grammar))
    rng = np.random.default_rng(2)
    fast, slow = np.zeros((2, (len(smollm) + 31) // 32), np.int32)
    checked = 0
    for _ in range(8):
        matcher.reset()
        for _ in range(30):
            matcher.fill_bitmask(fast)
            matcher._native.fill_bitmask_slowly(slow)
            assert (fast == slow).all()
            checked += 1
            allowed = matcher.allowed_tokens()
            allowed = allowed[allowed != smollm.stop_tokens[0]]
            if not len(allowed) or not matcher.accept(int(rng.choice(allowed))):
                break
    assert checked > 60


#: Words that may stand in a string once they stand in no other: it takes some letters to leave what is allowed.
WORDS = {"oneOf": [{"pattern": "customer"}, {"pattern": "maker"}, {"pattern": "[ao]d?min"}], "maxLength": 30}
NAMES = {"patternProperties": {"^x-|ab": {}, "maker$": False, "tion": {"not": {"pattern": "er"}}}}


@pytest.mark.parametrize("options", [{}, {"any_order": True}], ids=["in order", "any order"])
def test_masks_where_words_are_looked_for(smollm: TokenizerInfo, options: dict[str, bool]) -> None:
    schema = {"properties": {"w": {"items": {"type": "string", **WORDS}}, "n": {"type": "object", **NAMES}}}
    compiled = GrammarCompiler(smollm).compile(Grammar.from_json_schema({"type": "object", **schema}, **options))
    fast, slow = np.zeros((2, (len(smollm) + 31) // 32), np.int32)
    words = ["", "c", "custo", "customer", "customer, mak", "make", "a m", "admi", "omin and", "x" * 25, "customeréé"]
    names = ["", "x", "xb", "a", "cab", "make", "statio", "nation", 'nation": "', 'nation": "the', 'action": "e']
    for text in [f'{{"w": ["{w}' for w in words] + [f'{{"n": {{"{n}' for n in names]:
        matcher = GrammarMatcher(compiled)
        assert matcher.accept_bytes(text.encode()), text
        matcher.fill_bitmask(fast)
        matcher._native.fill_bitmask_slowly(slow)
        assert (fast == slow).all(), text


@pytest.mark.parametrize("text", ['{"name": "', '{"name": "abc", ', '{"name":"x","n":1'])
def test_every_token_of_a_schema(smollm: TokenizerInfo, text: str) -> None:
    matcher = GrammarMatcher(GrammarCompiler(smollm).compile(Grammar.from_json_schema(SCHEMA)))
    assert matcher.accept_bytes(text.encode())
    assert matcher.allowed_tokens().tolist() == [t for t, ok in enumerate(brute_mask(matcher, len(smollm))) if ok]
