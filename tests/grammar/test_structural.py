"""Structural tags against a slow reading of the text; catalogues against plain choices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from gramcore.grammar import (
    Catalogue,
    Grammar,
    GrammarCompiler,
    GrammarMatcher,
    StructuralTag,
    TokenizerInfo,
    constituency_parse,
    disambiguation,
    information_extraction,
)

from tests.reference.grammar import brute_mask

INFO = TokenizerInfo([b"a", b"b", b"<", b">", b"<a", b"a>", b"b<a", b"</s>"], stop=[7])


def read_slowly(text: str, tags: list[tuple[str, str, str]], triggers: list[str]) -> bool:
    """Whether ``text`` is free text with whole tags: at the first trigger to end, one of its tags must stand."""
    ends = [(i + len(t), t) for t in triggers for i in range(len(text)) if text.startswith(t, i)]
    if not ends:
        return True
    end, _ = min(ends)
    for trigger in [t for e, t in ends if e == end]:
        for begin, inside, close in tags:
            if not begin.startswith(trigger):
                continue
            rest = begin[len(trigger) :] + inside + close
            if text.startswith(rest, end) and read_slowly(text[end + len(rest) :], tags, triggers):
                return True
    return False


@pytest.mark.parametrize(
    ("tags", "triggers"),
    [
        ([("<a>", "b", "<")], ["<"]),
        ([("aab", "b", "a")], ["aa"]),
        ([("<a", "bb", ""), ("<b", "", ">")], ["<a", "<b"]),
        ([("ab", "a", "b"), ("ba", "", "")], ["ab", "ba"]),
    ],
)
def test_structural_tags_equal_a_slow_reading(tags: list[tuple[str, str, str]], triggers: list[str]) -> None:
    parts = [StructuralTag(b, Grammar.from_choices([i]), e) for b, i, e in tags]
    compiled = GrammarCompiler(INFO).compile(Grammar.structural(parts, triggers))
    for n in range(7):
        for letters in itertools.product("ab<>", repeat=n):
            text = "".join(letters)
            matcher = GrammarMatcher(compiled)
            found = matcher.accept_bytes(text.encode()) and matcher.can_terminate()
            assert found == read_slowly(text, tags, triggers), text
    matcher = GrammarMatcher(compiled)
    for token in (0, 2):
        allowed = [t for t, ok in enumerate(brute_mask(matcher, len(INFO))) if ok]
        assert matcher.allowed_tokens().tolist() == allowed
        if not matcher.accept(token):
            break


def test_structural_counts_and_bad_arguments() -> None:
    tag = StructuralTag("<", Grammar.from_regex("a"), ">")
    compiler = GrammarCompiler(INFO)
    for text, whole in (("b", False), ("<a>", True), ("<a>b<a>", True), ("<a><a><a>", False)):
        matcher = GrammarMatcher(compiler.compile(Grammar.structural([tag], ["<"], at_least=1, at_most=2)))
        assert (matcher.accept_bytes(text.encode()) and matcher.can_terminate()) == whole
    for tags, triggers in (([], ["<"]), ([tag], []), ([tag], ["x"]), ([tag], [""])):
        with pytest.raises(ValueError, match="must"):
            Grammar.structural(tags, triggers)


def test_catalogue_equals_choices_and_stays_small() -> None:
    rng = np.random.default_rng(0)
    names = ["".join(rng.choice(list("ab<>"), rng.integers(1, 7))) for _ in range(200)]
    compiler = GrammarCompiler(INFO)
    catalogue = Catalogue(names)
    one, other = (GrammarMatcher(compiler.compile(g)) for g in (disambiguation(catalogue), Grammar.from_choices(names)))
    for _ in range(60):
        allowed = one.allowed_tokens()
        np.testing.assert_array_equal(allowed, other.allowed_tokens())
        token = int(rng.choice(allowed))
        assert one.accept(token)
        assert other.accept(token)
        if one.is_terminated() or len(one.allowed_tokens()) == 0:
            one.reset()
            other.reset()
    assert len(catalogue) == len(set(names))
    with pytest.raises(ValueError, match="catalogue must hold"):
        Catalogue([])
    with pytest.raises(ValueError, match="must not use a catalogue"):
        compiler.compile(information_extraction(catalogue, catalogue)).serialize()


def test_constituency_parses_hold_exactly_the_words() -> None:
    grammar = constituency_parse(["a", "b"], ["S"], max_depth=2)
    expected = {"[S a b]", "[S a [S b]]", "[S [S a] b]", "[S [S a] [S b]]", "[S [S a b]]"}
    compiled = GrammarCompiler(TokenizerInfo([bytes([b]) for b in b"[]Sab "])).compile(grammar)
    found, open_texts = set(), [(b"", GrammarMatcher(compiled))]
    while open_texts:
        text, matcher = open_texts.pop()
        if matcher.can_terminate():
            found.add(text.decode())
        for token in matcher.allowed_tokens():
            fork = matcher.fork()
            assert fork.accept(int(token))
            open_texts.append((text + compiled.tokenizer_info.token(int(token)), fork))
    assert found == expected
