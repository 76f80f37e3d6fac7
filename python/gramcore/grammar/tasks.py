"""Grammars that depend on the input of a task: extraction over a catalogue, disambiguation, parsing of given words."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence

from gramcore._checks import check_int
from gramcore._core import grammar as _native
from gramcore.grammar.grammar import Grammar

__all__ = ["Catalogue", "constituency_parse", "disambiguation", "information_extraction"]


class Catalogue:
    """A large set of names, sorted into a trie once; grammars refer to it without copying.

    Cost: O(total length log n) to build; about 12 bytes per trie node; a grammar over it compiles in microseconds.

    Args:
        names: at least one text; duplicates count once.

    Raises:
        ValueError: no names. TypeError: not texts.

    Example:
        >>> from gramcore.grammar import Catalogue
        >>> len(Catalogue(["Paris", "Pau", "Paris"]))
        2
    """

    def __init__(self, names: Iterable[str | bytes]) -> None:
        if isinstance(names, (str, bytes)):
            raise TypeError("names must be a collection of texts, got a single text; put it into a list")
        self._native = _native.Catalogue([n.encode() if isinstance(n, str) else bytes(n) for n in names])

    def __len__(self) -> int:
        return len(self._native)

    @property
    def num_bytes(self) -> int:
        """Memory of the trie."""
        return self._native.num_bytes


def information_extraction(
    entities: Catalogue,
    relations: Catalogue,
    *,
    template: str = "[s] {subject} [r] {relation} [o] {object} [e]",
    at_least: int = 0,
    at_most: int | None = None,
) -> Grammar:
    """Closed information extraction: triplets whose parts come from catalogues.

    Text: ``triplet (" " triplet)*``, each written by ``template``.

    Args:
        entities, relations: the catalogues.
        template: holds ``{subject}``, ``{relation}`` and ``{object}`` once each.
        at_least, at_most: number of triplets; ``at_most`` None: any.

    Raises:
        ValueError: another template, or ``at_most`` below ``at_least``.

    Reference: Geng et al. 2023, arXiv:2305.13971, section 3.

    Example:
        >>> from gramcore.grammar import Catalogue, GrammarCompiler, GrammarMatcher, TokenizerInfo
        >>> from gramcore.grammar import information_extraction
        >>> grammar = information_extraction(Catalogue(["Pau", "Gave"]), Catalogue(["on river"]))
        >>> matcher = GrammarMatcher(GrammarCompiler(TokenizerInfo([b"x"])).compile(grammar))
        >>> matcher.accept_bytes(b"[s] Pau [r] on"), matcher.jump_forward_bytes()
        (True, b' river [o] ')
    """
    check_int("at_least", at_least, low=0)
    if at_most is not None:
        check_int("at_most", at_most, low=max(at_least, 1))
    build = _native.Builder()
    parts = {
        "subject": build.one_of(entities._native),
        "relation": build.one_of(relations._native),
        "object": build.one_of(entities._native),
    }
    triplet = build.cat(_fill(build, template, parts))
    again = build.cat([build.literal(b" "), triplet])
    least, most = max(at_least - 1, 0), None if at_most is None else at_most - 1
    some = build.cat([triplet, build.repeat(again, least, most)])
    return Grammar(build.finish(some if at_least else build.repeat(some, 0, 1)))


def disambiguation(candidates: Iterable[str] | Catalogue, *, prefix: str = "", suffix: str = "") -> Grammar:
    """Entity disambiguation: exactly one of the candidates of a mention, between fixed texts.

    Args:
        candidates: names of this input, or a catalogue of all names.
        prefix, suffix: texts around the name.

    Raises:
        ValueError: no candidates.

    Reference: Geng et al. 2023, arXiv:2305.13971, section 3.
    """
    build = _native.Builder()
    if isinstance(candidates, Catalogue):
        name = build.one_of(candidates._native)
    else:
        texts = [c.encode() for c in candidates]
        if not texts:
            raise ValueError("candidates must not be empty, got none")
        name = build.choice(texts)
    return Grammar(build.finish(build.cat([build.literal(prefix.encode()), name, build.literal(suffix.encode())])))


def constituency_parse(
    words: Sequence[str], labels: Sequence[str] | Catalogue, *, max_depth: int = 24, separator: str = " "
) -> Grammar:
    """Constituency parsing: bracketed trees over exactly the given words, in their order.

    Text: ``[S [NP word …] …]``: a bracket opens with a label and holds at least one word or bracket. A rule B(i, d)
    says what may follow when i words are written and d brackets are open, so the grammar is right-linear.

    Args:
        words: the sentence, at least one word.
        labels: names of constituents.
        max_depth: brackets open at once, >= 1.
        separator: what stands between parts.

    Raises:
        ValueError: no words or labels, or a word with a bracket.

    Reference: Geng et al. 2023, arXiv:2305.13971, section 3 (B_{i,j}).

    Example:
        >>> from gramcore.grammar import GrammarCompiler, GrammarMatcher, TokenizerInfo, constituency_parse
        >>> grammar = constituency_parse(["I", "ran"], ["S", "NP", "VP"])
        >>> matcher = GrammarMatcher(GrammarCompiler(TokenizerInfo([b"x"])).compile(grammar))
        >>> matcher.accept_bytes(b"[S [NP I] [VP ran]]"), matcher.can_terminate()
        (True, True)
    """
    if not words or any(not w or set("[]") & set(w) for w in words):
        raise ValueError(f"words must be texts without brackets, at least one, got {list(words)!r}")
    check_int("max_depth", max_depth, low=1)
    build = _native.Builder()
    if isinstance(labels, Catalogue):
        label = build.one_of(labels._native)
    elif labels:
        label = build.choice([x.encode() for x in labels])
    else:
        raise ValueError("labels must not be empty, got none")
    n = len(words)
    gap, close = build.literal(separator.encode()), build.literal(b"]")
    # inside[i, d]: i words written, d brackets open, something in the innermost; opened[i, d]: nothing in it yet
    inside = {(i, d): build.rule(f"B({i},{d})") for i in range(n + 1) for d in range(1, max_depth + 1)}
    opened = {(i, d): build.rule(f"O({i},{d})") for i in range(n) for d in range(1, max_depth + 1)}
    bracket = build.cat([build.literal(b"["), label])

    def parts(i: int, d: int) -> list[int]:
        """The next word or bracket."""
        word = build.cat([gap, build.literal(words[i].encode()), build.call(inside[i + 1, d])])
        deeper = [build.cat([gap, bracket, build.call(opened[i, d + 1])])] if d < max_depth else []
        return [word, *deeper]

    for (i, d), rule in opened.items():
        build.define(rule, build.alt(parts(i, d)))
    for (i, d), rule in inside.items():
        kids = parts(i, d) if i < n else []
        if d > 1:
            kids.append(build.cat([close, build.call(inside[i, d - 1])]))
        elif i == n:
            kids.append(close)
        build.define(rule, build.alt(kids))
    return Grammar(build.finish(build.cat([bracket, build.call(opened[0, 1])])))


def _fill(build: _native.Builder, template: str, parts: dict[str, int]) -> list[int]:
    """The texts and parts of a template, in order."""
    out: list[int] = []
    seen = []
    for literal, name, spec, conversion in string.Formatter().parse(template):
        out.append(build.literal(literal.encode()))
        if name is None:
            continue
        if name not in parts or name in seen or spec or conversion:
            raise ValueError(f"template must hold {sorted(parts)} once each, got {template!r}")
        seen.append(name)
        out.append(parts[name])
    if len(seen) != len(parts):
        raise ValueError(f"template must hold {sorted(parts)} once each, got {template!r}")
    return out
