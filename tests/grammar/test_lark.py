"""Lark's dialect: what it matches, by expressions; where it does not parse, by line and column."""

from __future__ import annotations

import re

import pytest
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, GrammarTooComplex, TokenizerInfo
from hypothesis import given
from hypothesis import strategies as st

INFO = TokenizerInfo([b"x", b"</s>"], stop=[1])


def matches(grammar: Grammar, text: str) -> bool:
    matcher = GrammarMatcher(GrammarCompiler(INFO).compile(grammar))
    return matcher.accept_bytes(text.encode()) and matcher.can_terminate()


@pytest.mark.parametrize(
    ("lark", "regex"),
    [
        ('start: "a" | "b" "c"', "a|bc"),
        ('start: X+ y?\nX: "a".."b"\ny: "c"  // the end', "[ab]+c?"),
        ('start: ("a" | "b")~2..3 "c"*', "(a|b){2,3}c*"),
        ('start: "a"~2 ["b"]', "aab?"),
        ('start: "a"{2} "b"{1,}', "aab+"),
        ('?start: x -> one\n      | start "+" x\n!x.2: /[0-9]+/', r"\d+(\+\d+)*"),
        ('start: "ab"i', "[aA][bB]"),
        ("start: /A[^b]/i", "[aA][^bB]"),
        ('start: _sep{X, ","}\n_sep{x, s}: x (s x)*\nX: "a" | "b"', "[ab](,[ab])*"),
        ("# comment\nstart: WORD\n%import common.WORD", "[a-zA-Z]+"),
        ('start: N "-" N\n%import common.INT -> N\n%ignore " "', r" *\d+ *- *\d+ *"),
        ('start: "\\x61\\n\\"" ', 'a\n"'),
        ('start: %json {"enum": [1, "a"]} "!"', '(1|"a")!'),
        ("start: A B?\nA: B\nB: /b/", "bb?"),
    ],
)
def test_matches_the_same_as_an_expression(lark: str, regex: str) -> None:
    grammar, pattern = Grammar.from_lark(lark), re.compile(regex)
    pieces = ["a", "b", "c", "A", "B", "1", "23", "+", ",", "-", " ", "!", '"a"', 'a\n"']
    texts = {"", *pieces, *(a + b for a in pieces for b in pieces)}
    texts |= {a + b + c for a in pieces for b in pieces for c in pieces}
    matched = {t for t in texts if pattern.fullmatch(t)}
    assert matched
    for text in texts:
        assert matches(grammar, text) == (text in matched), text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "rule named start"),
        ('start: "a', "line 1, column 8"),
        ('start: "a" )', "line 1, column 12"),
        ("start: x", "a defined name at line 1, column 8, got 'x'"),
        ('start: "a"\nstart: "b"', "line 2, column 1, got 'start' again"),
        ("start: A\nA: B\nB: A", "do not use themselves"),
        ('start: A\nA: x\nx: "a"', "terminals only"),
        ("start: /(/", "regular expression at line 1, column 8"),
        ("start: /a/x", "flags i, s or u"),
        ("%import common.NOPE\nstart: NOPE", "import of one of"),
        ("%import other.X\nstart: X", "import from common"),
        ('%declare X\nstart: "a"', "%ignore, %import"),
        ("start: %json {", "a JSON Schema behind %json"),
        ('start: a\n  a: %json {"type": 7}', "a JSON Schema behind %json at line 2, column 6, got .*type"),
        ('start: "b".."a"', "range of single characters"),
        ('start: t{"a"}\nt{x, y}: x y', "2 arguments"),
    ],
)
def test_errors_say_where_and_what(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grammar.from_lark(text)


def test_schemas_inside_report_what_is_not_exact() -> None:
    text = 'start: "a" | b\nb: %json {"format": "idn-hostname"}\n'
    grammar = Grammar.from_lark(text + 'c: %json {"type": "null"}')  # not reachable: not read
    assert list(grammar.reports) == ["line 2, column 4"]
    (entry,) = grammar.reports["line 2, column 4"].inexact
    assert (entry.pointer, entry.keyword) == ("#", "format")


@given(st.text(alphabet='start:XY"ab|()[]{}?*+~.,/%-> \n0\\', max_size=60))
def test_random_text_parses_or_is_refused(text: str) -> None:
    for body in (text, 'start: "a"\n' + text, "start: " + text):
        try:
            GrammarMatcher(GrammarCompiler(INFO).compile(Grammar.from_lark(body))).allowed_tokens()
        except (ValueError, GrammarTooComplex):
            continue
