"""Grammar-constrained decoding: token masks from regular expressions and JSON Schema."""

from __future__ import annotations

from gramcore.grammar.errors import GrammarTooComplex
from gramcore.grammar.grammar import Grammar
from gramcore.grammar.matcher import CompiledGrammar, GrammarCompiler, GrammarMatcher
from gramcore.grammar.tokenizer import TokenizerInfo

__all__ = [
    "CompiledGrammar",
    "Grammar",
    "GrammarCompiler",
    "GrammarMatcher",
    "GrammarTooComplex",
    "TokenizerInfo",
]
