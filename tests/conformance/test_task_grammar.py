"""Grammars of tasks: every row's constructor refuses empty inputs and compiles a small instance."""

from __future__ import annotations

from typing import Any

import pytest
from gramcore._registry import Row, rows
from gramcore.grammar import Catalogue, GrammarCompiler, GrammarMatcher, TokenizerInfo

from tests.reference.grammar import brute_mask

INFO = TokenizerInfo([*(bytes([b]) for b in range(32, 127)), b"Pa", b"ris", b"[s] ", b"</s>"], stop=[98])
NAMES = ["Paris", "Pau", "Po"]
#: name of the row -> (arguments, a whole text, a text that leaves the grammar, arguments that are refused)
CASES: dict[str, tuple[tuple[Any, ...], str, str, tuple[Any, ...]]] = {
    "Closed information extraction": (
        (Catalogue(NAMES), Catalogue(["on", "near"])),
        "[s] Pau [r] near [o] Paris [e] [s] Po [r] on [o] Pau [e]",
        "[s] Pau [r] near [o] Pat",
        (Catalogue(NAMES), Catalogue(["on"]), "x"),
    ),
    "Entity disambiguation": ((NAMES,), "Paris", "Pari ", ([],)),
    "Constituency parsing": ((["he", "is"], ["S", "NP"]), "[S [NP he] is]", "[S he is he", ([], ["S"])),
}


@pytest.mark.parametrize("row", rows(protocol="task_grammar"), ids=lambda r: r.name)
def test_rows(row: Row) -> None:
    arguments, whole, wrong, refused = CASES[row.name]
    grammar = row.load()(*arguments)
    compiled = GrammarCompiler(INFO).compile(grammar)
    matcher = GrammarMatcher(compiled)
    assert matcher.accept_bytes(whole.encode())
    assert matcher.can_terminate()
    matcher.reset()
    assert not matcher.accept_bytes(wrong.encode())
    for byte in whole.encode():
        allowed = set(matcher.allowed_tokens().tolist())
        assert allowed == {t for t, ok in enumerate(brute_mask(matcher, len(INFO))) if ok}
        assert matcher.accept_bytes(bytes([byte]))
    with pytest.raises((ValueError, TypeError)):
        row.load()(*refused)
