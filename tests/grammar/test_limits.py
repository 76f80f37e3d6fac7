"""What nests too deep, repeats too often or branches too much: refused or made, in little time and memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, GrammarTooComplex, TokenizerInfo

COMPILER = GrammarCompiler(TokenizerInfo([*(bytes([b]) for b in range(256)), b"aa", b"</s>"], stop=[257]))


def nested(inner: Any, wrap: Callable[[Any], Any], depth: int) -> Any:
    for _ in range(depth):
        inner = wrap(inner)
    return inner


DEEP: dict[str, Callable[[], Grammar]] = {
    "schema text": lambda: Grammar.from_json_schema('{"items":' * 100_000),
    "schema": lambda: Grammar.from_json_schema(nested({}, lambda s: {"items": s}, 5000)),
    "expression": lambda: Grammar.from_regex("(" * 50_000 + "a" + ")" * 50_000),
    "rules": lambda: Grammar.from_gbnf("root ::= " + "(" * 50_000 + '"a"' + ")" * 50_000),
    "groups of Lark": lambda: Grammar.from_lark("start: " + "(" * 3000 + '"a"' + ")" * 3000),
    "complements of Lark": lambda: Grammar.from_lark("start: A\nA: " + "~" * 3000 + '"a"'),
    "terminals of Lark": lambda: Grammar.from_lark(
        "start: A0\n" + "\n".join(f"A{i}: A{i + 1}" for i in range(500)) + '\nA500: "a"'
    ),
    "JSON in Lark": lambda: Grammar.from_lark("start: %json " + "[" * 100_000),
    "tag": lambda: Grammar.from_structural_tag(
        {
            "type": "structural_tag",
            "format": nested({"type": "any_text"}, lambda f: {"type": "or", "elements": [f]}, 500),
        }
    ),
    "tag text": lambda: Grammar.from_structural_tag('{"type": "structural_tag", "format": ' + "[" * 100_000),
}


@pytest.mark.parametrize("make", DEEP.values(), ids=DEEP)
def test_deep_nesting_is_refused(make: Callable[[], Grammar]) -> None:
    with pytest.raises(GrammarTooComplex, match="nest"):
        make()


def test_nesting_below_the_limit_is_read() -> None:
    assert COMPILER.compile(Grammar.from_lark("start: " + "(" * 99 + '"a"' + ")" * 99)).num_states
    grammar = Grammar.from_json_schema('{"items":' * 400 + '{"maxLength": 1}' + "}" * 400)
    assert grammar.report is not None
    keywords = [entry.keyword for entry in grammar.report.keywords()]
    assert keywords == ["items"] * 400 + ["maxLength"]
    nothing = '{"type": "object", "required": ["a"], "properties": {"a":' * 300 + "false" + "}}" * 300
    with pytest.raises(ValueError, match="matches none"):
        COMPILER.compile(Grammar.from_json_schema(nothing))


MANY: dict[str, Callable[[], Grammar]] = {
    "repetitions": lambda: Grammar.from_regex("((a{1000}){1000}){1000}"),
    "repeated rules": lambda: Grammar.from_gbnf('root ::= ("a"{0,1000000}){1000000}'),
    "repeated terminals": lambda: Grammar.from_lark('start: ("a"~1000000)~1000000'),
    "items": lambda: Grammar.from_json_schema({"items": {}, "minItems": 10**6, "maxItems": 10**6}),
    "letters": lambda: Grammar.from_json_schema({"type": "string", "minLength": 10**9}),
    "values": lambda: Grammar.from_json_schema(
        {"items": {"enum": list(range(1000))}, "uniqueItems": True, "minItems": 900}
    ),
    "alternatives": lambda: Grammar.from_json_schema(
        {"allOf": [{"anyOf": [{"required": [f"{i}{j}"]} for j in range(8)]} for i in range(12)]}
    ),
    "subsets": lambda: Grammar.from_regex("(a|b)*a(a|b){60}"),
}


@pytest.mark.parametrize("make", MANY.values(), ids=MANY)
def test_many_of_something_stay_small(make: Callable[[], Grammar]) -> None:
    compiled = COMPILER.compile(make())
    matcher = GrammarMatcher(compiled)
    for step in range(40):
        allowed = matcher.allowed_tokens()
        assert len(allowed)
        assert matcher.accept(int(allowed[7 * step % len(allowed)]))
        if matcher.is_terminated():
            break
    assert compiled.num_states < 5000
    assert compiled.num_bytes < 16_000_000
