"""multipleOf with any divisor, bounds and complements against exact fractions; its masks against accept."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo

from tests.reference.grammar import brute_mask

LETTERS = "-0125.9"
INFO = TokenizerInfo([c.encode() for c in LETTERS] + [b"00", b"1.", b"25", b".5", b"</s>"], stop=[len(LETTERS) + 4])
TEXTS = ["".join(t) for n in range(1, 6) for t in itertools.product(LETTERS, repeat=n)]


def number(text: str) -> Fraction | None:
    """The value of a JSON number without exponent."""
    whole, point, rest = text.removeprefix("-").partition(".")
    leading = len(whole) > 1 and whole[0] == "0"
    if not whole.isdigit() or leading or (point and not rest.isdigit()):
        return None
    return Fraction(text)


@pytest.mark.parametrize("divisor", ["1", "2", "7", "25", "1000", "0.5", "1.5", "0.01", "2.50", "1e-2", "12e1"])
@pytest.mark.parametrize(
    ("keywords", "allowed"),
    [
        ('"multipleOf": D', lambda v, m: m),
        ('"multipleOf": D, "minimum": -10, "exclusiveMaximum": 90.5', lambda v, m: m and -10 <= v < Fraction(181, 2)),
        ('"type": "number", "not": {"multipleOf": D}', lambda v, m: not m),
        ('"not": {"multipleOf": D}, "maximum": 25, "type": "number"', lambda v, m: not m and v <= 25),
        ('"multipleOf": D, "not": {"const": 0}, "type": "number"', lambda v, m: m and v != 0),
    ],
    ids=["free", "bounds", "not", "not-bounds", "excluded"],
)
def test_multiples_of_all_short_numbers(divisor: str, keywords: str, allowed: object) -> None:
    assert callable(allowed)
    grammar = Grammar.from_json_schema("{" + keywords.replace("D", divisor) + "}", strict=True)
    matcher = GrammarMatcher(GrammarCompiler(INFO).compile(grammar))
    for text in TEXTS:
        value = number(text)
        got = matcher.accept_bytes(text.encode())
        whole = got and matcher.can_terminate()
        if got:
            matcher.rollback(1)
        if value is None:
            assert not whole, text
        else:
            assert whole == allowed(value, value % Fraction(divisor) == 0), text


@pytest.mark.parametrize(
    "schema", ['{"multipleOf": 0.25, "maximum": 2}', '{"type": "number", "not": {"multipleOf": 5}}']
)
def test_masks_of_multiples(schema: str) -> None:
    matcher = GrammarMatcher(GrammarCompiler(INFO).compile(Grammar.from_json_schema(schema, strict=True)))
    for text in ("", "1", "1.", "1.2", "-", "0", "0.0", "2"):
        assert not text or matcher.accept_bytes(text.encode())
        allowed = [t for t, ok in enumerate(brute_mask(matcher, len(INFO))) if ok]
        assert matcher.allowed_tokens().tolist() == allowed
        matcher.reset()


@pytest.mark.parametrize("divisor", ["1.5", "0.3", "2.5", "0.75", "12.5"])
def test_no_prefix_of_a_multiple_is_a_dead_end(divisor: str) -> None:
    places = len(divisor.partition(".")[2])  # digits behind the point that count; further ones are zeros
    grammar = Grammar.from_json_schema(f'{{"type": "number", "multipleOf": {divisor}}}', strict=True)
    compiled = GrammarCompiler(INFO).compile(grammar)
    for whole in range(40):
        for length in range(places + 1):
            for digits in ("".join(d) for d in itertools.product("0123456789", repeat=length)):
                ends = [f"{whole}.{digits}{rest:0{places - length}d}" for rest in range(10 ** (places - length))]
                alive = any(Fraction(end if end[-1] != "." else end + "0") % Fraction(divisor) == 0 for end in ends)
                assert GrammarMatcher(compiled).accept_bytes(f"{whole}.{digits}".encode()) == alive, (whole, digits)


def test_integers_stay_without_point_and_large_divisors_are_reported() -> None:
    matcher = GrammarMatcher(
        GrammarCompiler(INFO).compile(Grammar.from_json_schema('{"type": "integer", "multipleOf": 0.5}'))
    )
    assert matcher.accept_bytes(b"12")
    assert matcher.can_terminate()
    assert not matcher.accept_bytes(b".")
    report = Grammar.from_json_schema('{"multipleOf": 123456789012}').report
    assert report is not None
    assert [r.keyword for r in report.inexact] == ["multipleOf"]
