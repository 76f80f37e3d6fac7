"""Grammar-constrained decoding: token masks from regular expressions and JSON Schema."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gramcore.grammar.errors import GrammarTooComplex
from gramcore.grammar.grammar import Grammar
from gramcore.grammar.matcher import CompiledGrammar, GrammarCompiler, GrammarMatcher
from gramcore.grammar.report import KeywordReport, SchemaReport
from gramcore.grammar.tokenizer import TokenizerInfo

if TYPE_CHECKING:
    from gramcore.grammar.bitmask import allocate_bitmask, apply_bitmask_
    from gramcore.grammar.processor import GrammarLogitsProcessor

__all__ = [
    "CompiledGrammar",
    "Grammar",
    "GrammarCompiler",
    "GrammarLogitsProcessor",
    "GrammarMatcher",
    "GrammarTooComplex",
    "KeywordReport",
    "SchemaReport",
    "TokenizerInfo",
    "allocate_bitmask",
    "apply_bitmask_",
]

#: names that need torch: imported when first used
_LAZY = {
    "GrammarLogitsProcessor": "gramcore.grammar.processor",
    "allocate_bitmask": "gramcore.grammar.bitmask",
    "apply_bitmask_": "gramcore.grammar.bitmask",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
