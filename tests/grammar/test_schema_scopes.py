"""JSON Schema across keywords: keys in any order, what is left unevaluated, references between resources."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from typing import Any

import jsonschema
import pytest
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo

BYTES = TokenizerInfo([bytes([b]) for b in range(256)])


def accepts(matcher: GrammarMatcher, text: str) -> bool:
    matcher.reset()
    return matcher.accept_bytes(text.encode()) and matcher.can_terminate()


@pytest.mark.parametrize("bounds", [(0, None), (2, None), (0, 2), (2, 2), (3, 3), (4, 9)])
@pytest.mark.parametrize("open_keys", [False, True])
def test_any_order_counts_required_and_never_repeats(bounds: tuple[int, int | None], open_keys: bool) -> None:
    least, most = bounds
    one = {"enum": [1]}
    schema = {
        "properties": {"a": one, "b": one, "c": False},
        "required": ["b"],
        "additionalProperties": open_keys and one,
    }
    schema = {"type": "object", **schema, "minProperties": least, **({} if most is None else {"maxProperties": most})}
    checker = jsonschema.Draft202012Validator(schema)
    try:
        compiled = GrammarCompiler(BYTES).compile(Grammar.from_json_schema(schema, spaces=False, any_order=True))
    except ValueError:
        assert least > 2
        assert not open_keys
        return
    found = set()
    for n in range(5):
        for keys in itertools.permutations("abcxy", n):
            text = "{" + ",".join(f'"{k}":1' for k in keys) + "}"
            matcher = GrammarMatcher(compiled)
            accepted = matcher.accept_bytes(text.encode()) and matcher.can_terminate()
            assert accepted == checker.is_valid(json.loads(text)), text
            found |= {text} if accepted else set()
    assert bool(found) == (most is None or most >= 1)
    for twice in ('{"b":1,"b":1', '{"a":1,"b":1,"a":1'):
        assert not GrammarMatcher(compiled).accept_bytes(twice.encode())


A, B = {"properties": {"a": True}, "required": ["a"]}, {"properties": {"b": True}, "required": ["b"]}
CLOSED: dict[str, Any] = {"unevaluatedProperties": False}


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": True}, **CLOSED},
        {"anyOf": [A, B], **CLOSED},
        {"oneOf": [A, B], **CLOSED},
        {"allOf": [A, {"patternProperties": {"^x": True}}], **CLOSED},
        {"allOf": [{**A, **CLOSED}], "properties": {"b": True}},
        {"allOf": [{**A, "unevaluatedProperties": {"type": "null"}}], **CLOSED},
        {"if": A, "then": B, "else": {"properties": {"x": True}}, **CLOSED},
        {"if": A, **CLOSED},
        {"not": {"not": A}, **CLOSED},
        {"dependentSchemas": {"a": B}, "properties": {"a": True}, **CLOSED},
        {"$ref": "#/$defs/a", "$defs": {"a": A}, "unevaluatedProperties": {"enum": [1]}},
        {"anyOf": [A, {"additionalProperties": {"enum": [1]}}], **CLOSED},
        {"prefixItems": [True], "unevaluatedItems": False},
        {"anyOf": [{"prefixItems": [True]}, {"prefixItems": [True, {"enum": [1]}]}], "unevaluatedItems": False},
        {"allOf": [{"items": {"enum": [1, 2]}}], "unevaluatedItems": False},
        {"contains": {"enum": [1]}, "unevaluatedItems": {"enum": [2]}},
        {"contains": True, "minContains": 3, "maxContains": 1},
    ],
)
def test_unevaluated_equals_a_validator(schema: dict[str, Any]) -> None:
    grammar = Grammar.from_json_schema(schema, any_order=True)
    assert grammar.report is not None
    matcher = GrammarMatcher(GrammarCompiler(BYTES).compile(grammar))
    checker = jsonschema.Draft202012Validator(schema)
    instances: list[Any] = [3, [], *([*x] for n in (1, 2, 3) for x in itertools.product([1, 2], repeat=n))]
    for n in range(4):
        for keys in itertools.combinations("abxy", n):
            instances += [dict.fromkeys(keys, v) for v in (1, None)]
    for instance in instances:
        got, expected = accepts(matcher, json.dumps(instance)), checker.is_valid(instance)
        assert got == expected or (got and not grammar.report.is_exact), instance
    assert grammar.report.is_exact or "contains" in schema


def test_references_through_base_uris_anchors_and_resources() -> None:
    resources = {
        "http://other/defs/item.json": {"$anchor": "x", "items": {"$ref": "../leaf.json"}},
        "http://other/leaf.json": {"enum": [5]},
    }
    schema = {
        "$id": "http://here/root.json",
        "$defs": {
            "one": {"$id": "nested/one.json", "$defs": {"t": {"$anchor": "t", "enum": [1]}}, "$ref": "#t"},
            "tree": {"$dynamicAnchor": "node", "properties": {"kid": {"$dynamicRef": "#node"}, "v": {"enum": [2]}}},
        },
        "properties": {
            "a": {"$ref": "nested/one.json"},
            "b": {"$ref": "http://here/nested/one.json#t"},
            "c": {"$ref": "http://other/defs/item.json#x"},
            "d": {"$ref": "#/$defs/tree"},
            "e": {"$ref": "#/$defs/one/$defs/t"},
        },
    }
    matcher = GrammarMatcher(GrammarCompiler(BYTES).compile(Grammar.from_json_schema(schema, resources=resources)))
    for key, good, bad in (
        ("a", 1, 2),
        ("b", 1, 2),
        ("c", [5, 5], [5, 6]),
        ("d", {"kid": {"kid": {"v": 2}}}, {"kid": {"v": 3}}),
        ("e", 1, 2),
    ):
        assert accepts(matcher, json.dumps({key: good})), key
        assert not accepts(matcher, json.dumps({key: bad})), key
    for bad_ref in ("http://nowhere/x", "#/$defs/none", "#none"):
        with pytest.raises(ValueError, match="references must name a part"):
            Grammar.from_json_schema({"$ref": bad_ref})


def test_many_keys_in_any_order_cost_what_is_visited() -> None:
    names = [f"key{i}" for i in range(100)]
    schema = {"properties": {n: {"type": "null"} for n in names}, "required": names, "additionalProperties": False}
    compiled = GrammarCompiler(BYTES).compile(Grammar.from_json_schema({"type": "object", **schema}, any_order=True))
    matcher = GrammarMatcher(compiled)
    for n in names[::-1]:
        assert matcher.accept_bytes((("{" if n == names[-1] else ",") + f'"{n}":null').encode())
    assert matcher.accept_bytes(b"}")
    assert compiled.num_states < 20000
    again = GrammarMatcher(GrammarCompiler(BYTES).deserialize(compiled.serialize()))
    assert again.accept_bytes(b'{"key7":null,"key3":null')
    assert not again.accept_bytes(b',"key7"')
    assert not again.accept_bytes(b"}")


MULTIPLES = ["2", "3", "7", "0.1", "0.25", "1.5", "0.003", "10", "1e3", "12345678901234567890"]
NUMBERS = ["0", "-0", "1", "2", "-6", "7.0", "0.3", "0.25", "-4.5", "1e1", "1e-3", "9.999", "21000", "0.0030",
           "24691357802469135780", "24691357802469135781", "1e30", "-123456789012345678901234567890"]  # fmt: skip


@pytest.mark.parametrize("divisor", MULTIPLES)
@pytest.mark.parametrize("keyword", ["enum", "const"])
def test_listed_numbers_are_held_to_multiple_of(keyword: str, divisor: str) -> None:
    for number in NUMBERS:
        listed = f'{{"const":{number}}}' if keyword == "const" else f'{{"enum":["x",{number}]}}'
        schema = listed[:-1] + f',"multipleOf":{divisor}}}'
        multiple = (Fraction(number) / Fraction(divisor)).denominator == 1
        if keyword == "const" and not multiple:
            with pytest.raises(ValueError, match="matches none"):
                GrammarCompiler(BYTES).compile(Grammar.from_json_schema(schema))
            continue
        matcher = GrammarMatcher(GrammarCompiler(BYTES).compile(Grammar.from_json_schema(schema)))
        assert accepts(matcher, number) == multiple, (number, divisor)
        assert accepts(matcher, '"x"') == (keyword == "enum")


FORMATS = {
    "date": "2024-02-29 2000-02-29 2023-02-28 2023-12-31 | 2023-02-29 1900-02-29 2023-04-31 2023-13-01 23-01-01",
    "duration": "PT1H P1Y P1M P2W P1DT2H3M4S PT36S P1Y2M3DT4H | P PT P1 P1Y2D P1D2H P1WT1H P1YT P2D1Y 1D PT1D",
    "ipv4": "0.0.0.0 255.255.255.255 | 256.0.0.1 1.2.3 01.2.3.4 1.2.3.4.5",
    "ipv6": ":: ::1 1:: 2001:db8::1:2 ::ffff:1.2.3.4 1:2:3:4:5:6:7:8 1:2:3:4:5:6:7:: ::2:3:4:5:6:7:8 1::8 1:2::7:8 "
    "1:2:3:4:5:6:1.2.3.4 1::1.2.3.4 | : ::: 1::2::3 1:2:3:4:5:6:7 1:2:3:4:5:6:7:8:9 12345:: ::1.2.3 1.2.3.4:: "
    "1:2:3:4:5:6:7:1.2.3.4 fe80::1%eth0",
    "hostname": f"a a.b.c.d.e.f.g.h.i.j.k x-1.org {'a' * 63} {'.'.join(['a' * 49] * 5)} {'ab.' * 84}a "
    f"| -a a- a..b .a a. a_b {'a' * 64} {'ab.' * 84}ab ab--c {'a--' * 21}a xn--a",
    "uri": "a: a:b a:/ a:/b//c?d/?e#f/? http://u:p@h:80/x?y#z http://[::1]:8/ http://[v1.a:b]/ http:// urn:a:b%20c "
    "http://1.2.3.4 | : 1:b /a //a a:[b] a:b#c#d a:b%2 http://h:x/ http://[::1/ http://a@b@c/ "
    "http://[1]/ a:\\b é:a a:é",
    "iri": "a:é http://é.ü/𐀀?\ue000#ö | é:a a:\ue000 a:#\ue000 a:\\ /é",
    "email": "joe@example.com joe.b+c@localhost o'neil/x@a.b {~}@c | a..b@c .a@c a.@c @c a@ a@-c a@b@c",
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_accept_what_their_standard_allows(name: str) -> None:
    matcher = GrammarMatcher(GrammarCompiler(BYTES).compile(Grammar.from_json_schema({"format": name}, strict=True)))
    valid, invalid = (part.split() for part in FORMATS[name].split("|"))
    assert [v for v in valid if not accepts(matcher, json.dumps(v, ensure_ascii=False))] == []
    assert [v for v in invalid if accepts(matcher, json.dumps(v, ensure_ascii=False))] == []


def test_hostnames_of_each_draft() -> None:
    """Hyphens in the third and fourth place are reserved for punycode, which strict mode does without."""
    old = {"$schema": "http://json-schema.org/draft-04/schema#", "format": "hostname"}
    for schema, strict, plain, coded in (
        (old, True, True, True),
        ({"format": "hostname"}, False, False, True),
        ({"format": "hostname"}, True, False, False),
    ):
        grammar = Grammar.from_json_schema(schema, strict=strict)
        matcher = GrammarMatcher(GrammarCompiler(BYTES).compile(grammar))
        assert accepts(matcher, '"ab--c.d"') == plain
        assert accepts(matcher, '"xn--bcher-kva.d"') == coded
        assert accepts(matcher, '"ab-c--d.d"')


def test_formats_of_draft_3_are_annotations_elsewhere() -> None:
    for draft, status in (("03", "approximated"), ("04", "annotation")):
        schema = {"$schema": f"http://json-schema.org/draft-{draft}/schema#", "format": "host-name"}
        report = Grammar.from_json_schema(schema).report
        assert report is not None
        assert [(r.keyword, r.status) for r in report.keywords() if r.keyword == "format"] == [("format", status)]
    Grammar.from_json_schema({"format": "utc-millisec"}, strict=True)


def test_dynamic_references_mean_the_outermost_anchor() -> None:
    """A tree whose nodes are extended from outside: its own references follow where it is used from."""
    tree = {
        "$id": "http://x.org/tree",
        "$dynamicAnchor": "node",
        "type": "object",
        "properties": {"v": True, "kids": {"type": "array", "items": {"$dynamicRef": "#node"}}},
    }
    strict = {"$id": "http://x.org/strict", "$dynamicAnchor": "node", "$ref": "tree", "unevaluatedProperties": False}
    given = {"http://x.org/tree": tree}
    compiler = GrammarCompiler(BYTES)
    plain = GrammarMatcher(compiler.compile(Grammar.from_json_schema(tree)))
    extended = GrammarMatcher(compiler.compile(Grammar.from_json_schema(strict, strict=True, resources=given)))
    wrong = '{"v": 1, "kids": [{"vv": 2}]}'
    assert accepts(plain, wrong)
    assert not accepts(extended, wrong)
    assert accepts(extended, '{"v": 1, "kids": [{"v": 2}]}')
