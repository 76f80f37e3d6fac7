"""Tokens that a grammar names: against a slow matcher over token ids, and everywhere else forbidden."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from gramcore.errors import FormatError
from gramcore.grammar import BatchMatcher, Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo
from gramcore.spec import DraftTree
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.grammar import brute_mask

TOKENS = [b"a", b"b", b"ab", b"<|x|>", b"<|y|>", b"</s>", b"<", b"|", b"x", b">", b"<|x|>b", b"<think>"]
INFO = TokenizerInfo(TOKENS, special=[3, 4], stop=[5])
X, Y, STOP, THINK = 3, 4, 5, 11

#: grammar, and the same over one letter per token: text tokens as themselves, named ones as X Y S T
CASES = [
    ("start: <|x|> /[ab]+/ <|y|>", "X[ab]+Y"),
    ("start: (<|x|> | /a/)* /b/", "[Xa]*b"),
    ("start: /[ab]*/ (<|x|> /a/ <|y|> /[ab]*/)*", "[ab]*(Xa" + "Y[ab]*)*"),
    ("start: <[3-4]> /a/ <[^0-2,6-10,3]>", "[XY]a[YST]"),
    ("start: <think> /b/ <[11]>", "TbT"),
    ('start: x*\nx: <|x|> | "a" x "b"', None),
    ('start: s\ns: s <|x|> | "b"', "bX*"),
    ("start: <[*]> /b/", None),
    ('start: %json {"const": 1} | <|y|> "b"', "1|Yb"),
]
LETTERS = {0: "a", 1: "b", 2: "ab", X: "X", Y: "Y", STOP: "S", THINK: "T"}


def compiled(lark: str) -> GrammarMatcher:
    return GrammarMatcher(GrammarCompiler(INFO).compile(Grammar.from_lark(lark)))


@pytest.mark.parametrize(("lark", "expression"), [c for c in CASES if c[1]])
def test_token_texts_are_judged_by_an_expression(lark: str, expression: str) -> None:
    matcher, pattern = compiled(lark), re.compile(expression)
    for n in range(5):
        for ids in itertools.product(LETTERS, repeat=n):
            matcher.reset()
            whole = all(matcher.accept(i) for i in ids)
            done = whole and (matcher.can_terminate() or matcher.is_terminated())
            text = "".join(LETTERS[i] for i in ids)
            stops = text.endswith("S") and not text.endswith("SS")  # a named stop token that ends the text is the last
            ends = bool(pattern.fullmatch(text)) or (stops and bool(pattern.fullmatch(text[:-1])))
            if ends != done and "T" in text and "11" not in lark and "think" not in lark:
                continue  # <think> is text as well
            assert done == ends, text


@pytest.mark.parametrize("lark", [c[0] for c in CASES])
def test_masks_rollback_forks_and_trees(lark: str) -> None:
    matcher = compiled(lark)
    rng = np.random.default_rng(3)
    words = np.zeros((1, 1), np.int32)
    for _ in range(40):
        allowed = [t for t, ok in enumerate(brute_mask(matcher, len(INFO))) if ok]
        assert matcher.allowed_tokens().tolist() == allowed
        if matcher.is_terminated():
            assert allowed == []
            matcher.reset()
            continue
        matcher._native.fill_bitmask_slowly(words)
        assert [t for t in range(len(INFO)) if words[0, 0] >> t & 1] == allowed
        fork = matcher.fork()
        tree = DraftTree(np.arange(len(INFO), dtype=np.int32), np.full(len(INFO), -1, np.int32))
        rows = np.zeros((len(INFO) + 1, 1), np.int32)
        matcher.fill_tree_bitmasks(tree, rows)
        for t in range(len(INFO)):
            behind = []
            if fork.accept(t):
                behind = fork.allowed_tokens().tolist()
                fork.rollback(1)
            assert [u for u in range(len(INFO)) if rows[t + 1, 0] >> u & 1] == behind
        assert matcher.allowed_tokens().tolist() == allowed
        assert matcher.accept(int(rng.choice(allowed)))


def test_special_tokens_are_allowed_only_where_named() -> None:
    for grammar in (Grammar.from_regex(".*"), Grammar.from_json_schema({}), Grammar.from_lark("start: /(?:.|\\n)*/")):
        matcher = GrammarMatcher(GrammarCompiler(INFO).compile(grammar))
        assert not {X, Y} & set(matcher.allowed_tokens().tolist())
    matcher = compiled("start: <|x|>")
    assert matcher.allowed_tokens().tolist() == [X]
    assert not matcher.accept_bytes(b"<|x|>")  # its bytes are not the token
    assert matcher.jump_forward_bytes() == b""
    assert compiled('start: "ab" <|x|>').jump_forward_bytes() == b"ab"


def test_a_named_stop_token_ends_the_text() -> None:
    matcher = compiled("start: /a/ <[5]>")
    assert matcher.accept(0)
    assert not matcher.can_terminate()
    assert matcher.allowed_tokens().tolist() == [STOP]
    assert matcher.accept(STOP)
    assert matcher.is_terminated()
    assert len(matcher.allowed_tokens()) == 0
    between = compiled("start: /a/ <[5]> /b/")
    assert all(between.accept(t) for t in (0, STOP, 1))
    assert between.can_terminate()


def test_named_tokens_are_saved_batched_and_checked() -> None:
    compiler = GrammarCompiler(INFO)
    grammar = Grammar.from_lark("start: /a/ <|x|> <[^0-9]>")
    again = GrammarMatcher(compiler.deserialize(compiler.compile(grammar).serialize()))
    assert all(again.accept(t) for t in (0, X, 10))
    assert GrammarCompiler(INFO).compile(grammar)._native is not compiler.compile(Grammar.from_lark("start: /a/ <|y|>"))
    batch = BatchMatcher([compiled("start: <|x|>"), compiled("start: <|y|>")])
    rows = np.zeros((2, 1), np.int32)
    batch.fill_bitmasks(rows)
    assert rows[:, 0].tolist() == [1 << X, 1 << Y]
    data = compiler.compile(grammar).serialize()
    with pytest.raises(FormatError):
        compiler.deserialize(data[:-1])
    for lark, message in [
        ("start: <|z|>", r"got '<\|z\|>'"),
        ("start: <[12]>", "< 12, got 12"),
        ("start: <[3-1]>", "token ids"),
    ]:
        with pytest.raises(ValueError, match=message):
            compiled(lark)
    with pytest.raises(ValueError, match="in rules only at line 2, column 4"):
        compiled("start: A\nA: <|x|>")


SUBSTRINGS = [
    ('{"substring_chunks": ["abc", "de", "fg"]}', ["abc", "de", "fg"]),
    ('{"substring_words": "foo bar. baz"}', ["foo", " ", "bar", ".", " ", "baz"]),
    ('{"substring_chars": "abcé"}', list("abcé")),
    ('{"substring_chars": ""}', []),
]


@pytest.mark.parametrize(("options", "chunks"), SUBSTRINGS)
def test_substrings(options: str, chunks: list[str]) -> None:
    matcher = GrammarMatcher(GrammarCompiler(INFO).compile(Grammar.from_lark(f"start: T\nT: %regex {options}")))
    right = {"".join(chunks[i:j]) for i in range(len(chunks) + 1) for j in range(i, len(chunks) + 1)}
    whole = "".join(chunks)
    for text in {whole[i:j] for i in range(len(whole) + 1) for j in range(len(whole) + 1)} | {"abfg", whole + "a"}:
        matcher.reset()
        assert (matcher.accept_bytes(text.encode()) and matcher.can_terminate()) == (text in right), text


@pytest.mark.parametrize(
    ("lark", "matched", "others"),
    [
        ("start: x /c/\nx[lazy]: /.*b/", ["bc", "aabc"], ["bbc", "abab" + "c", "ac", "b"]),
        ('start: x /c*/\nx[capture, suffix="ab"]: /[abc]*/', ["ab", "bcabcc"], ["ba", "abab", "abcab"]),
        ('start: x "ab"\nx[stop="ab", capture="t"]: /[abc]*/', ["ab", "bcab", "aab"], ["abab", "abcab", "ba"]),
        ("start: x\nx[suffix=/[0-9]+;/]: /.*/", ["1;", "a12;"], ["1;2;", "a;", ";"]),
        ('start: x /a/\nx[stop=""]: /b*/', ["a", "bba"], ["b"]),
        ("start: T\nT: /[ab]+/ & ~/.*bb.*/", ["a", "abab"], ["abb", ""]),
        ("start: T\nT: /a/ | /[ab]/ & /[bc]/", ["a", "b"], ["c"]),
        ('start: a-b\na-b: "x"\n%llguidance {"no_forcing": true}', ["x"], ["a-b"]),
    ],
)
def test_attributes_and_operators(lark: str, matched: list[str], others: list[str]) -> None:
    matcher = GrammarMatcher(GrammarCompiler(INFO).compile(Grammar.from_lark(lark)))
    for text in matched + others:
        matcher.reset()
        assert (matcher.accept_bytes(text.encode()) and matcher.can_terminate()) == (text in matched), text


@pytest.mark.parametrize(
    ("lark", "message"),
    [
        ("start[max_tokens=3]: /a/", "one of the attributes lazy, suffix, stop, capture .* line 1, column 7"),
        ("start[suffix=]: /a/", "a text, an expression or a terminal at line 1, column 14"),
        ("start: %regex {}", "one of substring_chunks"),
        ('start: %regex {"substring_words": 1}', "one of substring_chunks"),
        ("start: %regex [", "a JSON object behind %regex at line 1, column 15"),
        ("start: x\nx[lazy]: y\ny: /a/", "terminals only inside a terminal at line 2"),
        ("start: <[a]>", "token ids, ranges of them"),
    ],
)
def test_errors_say_where(lark: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grammar.from_lark(lark)


@given(st.text(alphabet="start:<>[]|xy3-,^* \n/a&~=lazy", max_size=40))
def test_random_text_parses_or_is_refused(text: str) -> None:
    for body in ("start: <" + text, "start[" + text, 'start: "a" ' + text):
        try:
            compiled(body).allowed_tokens()
        except ValueError as error:
            assert str(error)  # noqa: PT017
