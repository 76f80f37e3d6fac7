"""Rule grammars: what they match, by enumeration; where they do not parse, by line and column."""

from __future__ import annotations

import itertools
import re

import pytest
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, GrammarTooComplex, TokenizerInfo
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.grammar import brute_mask, language

TOY = TokenizerInfo([b"a", b"b", b"c", b"ab", b"ba", b"abc", b"(", b")", b"+", b"(a", b"a)", b"</s>"], stop=[11])


def matcher_of(grammar: Grammar, info: TokenizerInfo = TOY) -> GrammarMatcher:
    return GrammarMatcher(GrammarCompiler(info).compile(grammar))


def matches(grammar: Grammar, text: str) -> bool:
    matcher = matcher_of(grammar)
    return matcher.accept_bytes(text.encode()) and matcher.can_terminate()


def texts(symbols: str, most: int) -> list[str]:
    return ["".join(t) for n in range(most + 1) for t in itertools.product(symbols, repeat=n)]


@pytest.mark.parametrize(
    ("gbnf", "regex"),
    [
        ('root ::= "a" | "b" "c"', "a|bc"),
        ('root ::= x+ y?\nx ::= [ab]\ny ::= "c"  # the end', "[ab]+c?"),
        ('root ::= ("a" | "b"){2,3} "c"*', "(a|b){2,3}c*"),
        ('root ::= "a"{2} "b"{1,}', "aab+"),
        ('root ::= [^a]\n  | "a"\n  "b"', "[^a]|ab"),
        ('root ::= "\\x61" "\\u0062" [\\x63]', "abc"),
        ('root ::= ("a"\n  "b") | .', "ab|."),
        ('root ::= root "a" | "b"', "ba*"),
        ('root ::= list\nlist ::= list "a" | list "b" "c" | "c" | ""', "(c|)(a|bc)*"),
    ],
)
def test_gbnf_matches_the_same_as_an_expression(gbnf: str, regex: str) -> None:
    grammar, pattern = Grammar.from_gbnf(gbnf), re.compile(regex)
    for text in texts("abc", 5):
        assert matches(grammar, text) == (pattern.fullmatch(text) is not None), text


@pytest.mark.parametrize(
    ("ebnf", "regex"),
    [
        ("s ::= 'a' | \"b\" 'c' ;", "a|bc"),
        ("s ::= [a-c] - 'b' /* not\nb */ x*\nx ::= #x61", "[ac]a*"),
        ("x ::= 'a'\nroot ::= x x", "aa"),
        ("s ::= ([a-c]* - ([a-c]* 'bb' [a-c]*)) 'c'", "(?!.*bb.*c$)[abc]*c"),
    ],
)
def test_ebnf_matches_the_same_as_an_expression(ebnf: str, regex: str) -> None:
    grammar, pattern = Grammar.from_ebnf(ebnf), re.compile(regex)
    for text in texts("abc", 4):
        assert matches(grammar, text) == (pattern.fullmatch(text) is not None), text


def balanced(text: str) -> bool:
    """Sums of a and bracketed sums."""
    while True:
        shorter = text.replace("(a)", "a").replace("a+a", "a")
        if shorter == text:
            return text == "a"
        text = shorter


EXPRESSIONS = 'root ::= root "+" term | term\nterm ::= "a" | "(" root ")"'


def test_context_free_expressions() -> None:
    grammar = Grammar.from_gbnf(EXPRESSIONS)
    for text in texts("a+()", 6):
        assert matches(grammar, text) == balanced(text), text


@given(st.lists(st.integers(0, 10), max_size=8))
def test_mask_bit_is_accept_for_every_token(choices: list[int]) -> None:
    matcher = matcher_of(Grammar.from_gbnf(EXPRESSIONS))
    for choice in choices:
        allowed = matcher.allowed_tokens()
        assert allowed.tolist() == [t for t, ok in enumerate(brute_mask(matcher, len(TOY))) if ok]
        if matcher.is_terminated():
            break
        assert matcher.accept(int(allowed[choice % len(allowed)]))


def test_choices_are_exactly_the_texts() -> None:
    names = ["a", "ab", "abc", "b", "bab"]
    grammar = Grammar.from_choices(names)
    assert {t for t in texts("abc", 4) if matches(grammar, t)} == set(names)
    assert matches(Grammar.from_choices(["日本", b"\xff"]), "日本")
    with pytest.raises(ValueError, match="must not be empty"):
        Grammar.from_choices([])
    with pytest.raises(TypeError, match="collection"):
        Grammar.from_choices("abc")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a rule .* line 1, column 1, got the end"),
        ("root = 1", r"'::=' behind the rule name at line 1, column 6"),
        ('root ::= "a', "closing quote at line 1, column 12"),
        ('root ::= ("a"', r"'\)' at line 1, column 14"),
        ('root ::= "a")', "'|', another item or a new rule at line 1, column 13"),
        ("root ::= [a", r"'\]' at line 1"),
        ("root ::= [b-a]", "ascending order"),
        ('root ::= "a"{3,2}', "minimum <= maximum"),
        ('root ::= "a"{', "a repetition count"),
        ('root ::= "\\q"', "an escape among"),
        ('root ::= "\\ud800"', "not a surrogate"),
        ('root ::= "a"\nroot ::= "b"', "'root' again at line 2, column 1"),
        ('root ::=\n  other "a"', "'other' without a definition .used at line 2, column 3"),
        ('start ::= "a"', "a rule named root"),
    ],
)
def test_errors_say_where_and_what(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grammar.from_gbnf(text)


SYMBOLS = st.sampled_from(["root", "x", "y", "a", "b", ""])
RULES = st.fixed_dictionaries(
    {name: st.lists(st.lists(SYMBOLS, max_size=3), min_size=1, max_size=3) for name in ("root", "x", "y")}
)


@given(RULES)
def test_any_recursion_matches_the_texts_of_the_grammar(rules: dict[str, list[list[str]]]) -> None:
    """Left, right, hidden, mutual and unit recursion, empty texts, rules that match nothing."""
    wanted = language(rules, 4)["root"]
    lines = []
    for name, alternatives in rules.items():
        sequences = (" ".join(s if s in rules else f'"{s}"' for s in a) or '""' for a in alternatives)
        lines.append(f"{name} ::= " + " | ".join(sequences))
    grammar = Grammar.from_gbnf("\n".join(lines))
    if not language(rules, 12)["root"]:
        with pytest.raises(ValueError, match="at least one text"):
            GrammarCompiler(TOY).compile(grammar)
        return
    compiled = GrammarCompiler(TOY).compile(grammar)
    for text in texts("ab", 4):
        matcher = GrammarMatcher(compiled)
        found = matcher.accept_bytes(text.encode()) and matcher.can_terminate()
        assert found == (text in wanted), (text, lines)
    matcher = GrammarMatcher(compiled)
    mask = brute_mask(matcher, len(TOY))
    assert [t for t, ok in enumerate(mask) if ok] == matcher.allowed_tokens().tolist()


def test_grammars_of_expressions_with_left_recursion() -> None:
    grammar = Grammar.from_gbnf('root ::= root "+" t | t\nt ::= t "c" f | f\nf ::= "(" root ")" | "a" | "b"')
    for text, whole in (("a+b", True), ("(a+bca)+a", True), ("a+", False), ("ca", False), ("((a))cb", True)):
        assert matches(grammar, text) == whole


def test_empty_languages_and_deep_nesting_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one text"):
        matcher_of(Grammar.from_gbnf('root ::= root "a"'))
    with pytest.raises(GrammarTooComplex):
        Grammar.from_gbnf("root ::= " + "(" * 5000 + '"a"' + ")" * 5000)


@given(st.text(alphabet="root:=ab\"'[]()|*+?{}0,9-^\\xu#/;. \n", max_size=60))
def test_random_text_parses_or_is_refused(text: str) -> None:
    for parse in (Grammar.from_gbnf, Grammar.from_ebnf):
        for body in (text, "root ::= " + text):
            try:
                matcher_of(parse(body)).allowed_tokens()
            except (ValueError, GrammarTooComplex):
                continue
