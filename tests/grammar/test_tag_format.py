"""Structural tags as JSON against expressions over short texts, and what is wrong with bad ones."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, StructuralTag, TokenizerInfo
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.grammar import brute_mask

INFO = TokenizerInfo([b"a", b"b", b"<", b">", b"<a", b"a>", b"b<a", b"</s>"], stop=[7])
CONST = {"type": "const_string", "value": "a"}
TEXT = {"type": "any_text"}
TAG = {"begin": "<a", "content": CONST, "end": ">"}
ONCE = {"type": "triggered_tags", "triggers": ["<"], "tags": [TAG]}
LIST = {"type": "tags_with_separator", "tags": [TAG], "separator": "b"}

CASES: list[tuple[Any, str]] = [
    (CONST, "a"),
    ({"type": "regex", "pattern": "[ab]+"}, "[ab]+"),
    ({"type": "grammar", "grammar": 'root ::= "a" root "b" | ""'}, "|ab|aabb"),
    (TEXT, "[ab<>]*"),
    ({"type": "any_text", "excludes": ["a<", "b"]}, "(?!.*a<)[a<>]*"),
    ({"type": "sequence", "elements": [CONST, TEXT]}, "a[ab<>]*"),
    ({"type": "or", "elements": [CONST, {"type": "const_string", "value": "<"}]}, "a|<"),
    ({"type": "tag", **TAG}, "<aa>"),
    ({"type": "tag", "begin": "<", "content": TEXT, "end": "a>"}, "<(?!.*a>.)[ab<>]*a>"),
    ({"type": "tag", "begin": "", "content": {**TEXT, "excluded_str": ["b"]}, "end": ">"}, "[a<]*>"),
    ({"type": "tag", "begin": "<", "content": TEXT, "end": [">", "b"]}, "<[a<]*[>b]"),
    (ONCE, "[ab>]*(<aa>[ab>]*)*"),
    ({**ONCE, "at_least_one": True}, "<aa>[ab>]*(<aa>[ab>]*)*"),
    ({**ONCE, "stop_after_first": True}, "[ab>]*(<aa>)?"),
    ({**ONCE, "at_least_one": True, "stop_after_first": True}, "<aa>"),
    ({**ONCE, "excludes": ["b"]}, "[a>]*(<aa>[a>]*)*"),
    (LIST, "(<aa>(b<aa>)*)?"),
    ({**LIST, "at_least_one": True}, "<aa>(b<aa>)*"),
    ({**LIST, "stop_after_first": True}, "(<aa>)?"),
    ({"type": "sequence", "elements": [{"type": "tag", "begin": "<", "content": TEXT, "end": ">"}, ONCE]},
     "<[ab<]*>[ab>]*(<aa>[ab>]*)*"),
]  # fmt: skip


def matcher_of(form: Any) -> GrammarMatcher:
    grammar = Grammar.from_structural_tag({"type": "structural_tag", "format": form})
    return GrammarMatcher(GrammarCompiler(INFO).compile(grammar))


@pytest.mark.parametrize(("form", "expression"), CASES, ids=[e for _, e in CASES])
def test_texts_and_masks(form: Any, expression: str) -> None:
    matcher, pattern = matcher_of(form), re.compile(expression)
    texts = ["".join(t) for n in range(6) for t in itertools.product("ab<>", repeat=n)]
    texts += ["<aa>b<aa>", "<aa><aa>", "a<aa>a", "<b>a<aa>", "<aa>a<a>"]
    for text in texts:
        matcher.reset()
        whole = matcher.accept_bytes(text.encode()) and matcher.can_terminate()
        assert whole == bool(pattern.fullmatch(text)), text
    for text in ("", "<", "a", "<a", "<aa>"):
        matcher.reset()
        if matcher.accept_bytes(text.encode()):
            allowed = [t for t, ok in enumerate(brute_mask(matcher, len(INFO))) if ok]
            assert matcher.allowed_tokens().tolist() == allowed


def test_tokens_around_text() -> None:
    elements = [
        {"type": "token", "token": 5},
        {"type": "const_string", "value": "b"},
        {"type": "token", "token": "b<a"},
    ]
    matcher = matcher_of({"type": "sequence", "elements": elements})
    for token in (5, 1, 6):
        assert matcher.allowed_tokens().tolist() == [token]
        assert matcher.accept(token)
    assert matcher.can_terminate()


def test_tool_calls_behind_reasoning() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    call = {"begin": "<f=g>", "content": {"type": "json_schema", "json_schema": schema}, "end": "</f>"}
    tools = {"type": "triggered_tags", "triggers": ["<f="], "tags": [call], "stop_after_first": True}
    think = {"type": "tag", "begin": "<think>", "content": TEXT, "end": "</think>"}
    matcher = matcher_of({"type": "sequence", "elements": [think, tools]})
    assert matcher.accept_bytes(b'<think>f(<f=1>)</think>so: <f=g>{"x": 1}')
    assert matcher.jump_forward_bytes() == b"</f>"
    assert matcher.accept_bytes(b"</f>")
    assert not matcher.accept_bytes(b"x")


def test_schemas_inside_report_what_is_not_exact() -> None:
    loose = {"type": "json_schema", "json_schema": {"format": "idn-hostname"}}
    made = Grammar.from_structural_tag({"type": "structural_tag", "format": {"type": "or", "elements": [CONST, loose]}})
    assert [entry.keyword for entry in made.reports["format.elements[1]"].inexact] == ["format"]
    tag = StructuralTag("<a>", Grammar.from_json_schema({"format": "idn-hostname"}), "</a>")
    assert not Grammar.structural([tag], ["<a>"]).reports["<a>"].is_exact


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("[1]", "structural_tag"),
        ('{"type": "structural_tag"}', "structural_tag"),
        ({"type": "nope"}, "type const_string, .* at format, got 'nope'"),
        ({"type": "sequence", "elements": [CONST, {"type": "regex"}]}, r"at format.elements\[1\], got no pattern"),
        ({"type": "token", "token": -1}, "a text at format.token, got int"),
        ({**CONST, "values": 1}, "at format, got 'values'"),
        ({**ONCE, "triggers": [""]}, "triggers that are not empty at format"),
        ({**ONCE, "triggers": ["x"]}, r"exactly one trigger, got \[\] for '<a'"),
        ({**ONCE, "tags": []}, "a list that is not empty at format"),
        ({**LIST, "separator": 1}, "a text at format.separator, got int"),
        ({"type": "tag", **TAG, "content": {"type": "regex", "pattern": "("}}, "line 1"),
        ({"type": "json_schema", "json_schema": {"type": 7}}, "JSON Schema at format.json_schema: .*type"),
    ],
)  # fmt: skip
def test_errors_say_where(tag: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grammar.from_structural_tag(tag if isinstance(tag, str) else {"type": "structural_tag", "format": tag})


junk = st.recursive(
    st.one_of(
        st.none(), st.integers(0, 2), st.sampled_from(["", "a", "<", "tag", "any_text", "regex", "sequence", "or"])
    ),
    lambda x: st.one_of(
        st.lists(x, max_size=3),
        st.dictionaries(
            st.sampled_from(["type", "elements", "begin", "content", "end", "tags", "triggers", "pattern"]),
            x,
            max_size=5,
        ),
    ),
    max_leaves=12,
)


@given(junk)
def test_anything_is_made_or_refused(value: Any) -> None:
    for form in (value, {"type": "or", "elements": value}, {"type": "tag", "begin": "a", "content": value, "end": ""}):
        try:
            Grammar.from_structural_tag(json.dumps({"type": "structural_tag", "format": form}))
        except ValueError as error:
            assert str(error)  # noqa: PT017
