"""Slow twins of the grammar engine: masks by asking accept for every token, prefixes by enumeration."""

from __future__ import annotations

import itertools
import re
from typing import Any


def brute_mask(matcher: Any, vocab_size: int) -> list[bool]:
    """Whether each token is accepted, found by accepting it and undoing that."""
    allowed = []
    for token in range(vocab_size):
        ok = matcher.accept(token)
        if ok:
            matcher.rollback(1)
        allowed.append(ok)
    return allowed


def brute_regex_prefixes(pattern: str, letters: str, max_len: int) -> list[str]:
    """All prefixes of all texts over ``letters`` up to ``max_len`` that match the whole pattern."""
    found: set[str] = set()
    for n in range(max_len + 1):
        for text in map("".join, itertools.product(letters, repeat=n)):
            if re.fullmatch(pattern, text, re.ASCII):
                found.update(text[:i] for i in range(n + 1))
    return sorted(found)


def language(rules: dict[str, list[list[str]]], max_len: int) -> dict[str, set[str]]:
    """For every rule of a context-free grammar, its texts of at most ``max_len`` characters.

    ``rules[name]`` lists alternatives, each a list of symbols: names of rules, or texts.
    """
    texts: dict[str, set[str]] = {name: set() for name in rules}
    changed = True
    while changed:
        changed = False
        for name, alternatives in rules.items():
            for symbols in alternatives:
                found = {""}
                for symbol in symbols:
                    more = texts[symbol] if symbol in rules else {symbol}
                    found = {a + b for a in found for b in more if len(a) + len(b) <= max_len}
                if not found <= texts[name]:
                    texts[name] |= found
                    changed = True
    return texts
