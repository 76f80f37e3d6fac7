"""Grammar-constrained decoding: token masks from regular expressions and JSON Schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gramcore._lazy import attach
from gramcore.grammar.align import AprAD, ASAp, CausalLogits, Sample
from gramcore.grammar.errors import GrammarTooComplex
from gramcore.grammar.grammar import Grammar
from gramcore.grammar.matcher import BatchMatcher, CompiledGrammar, GrammarCompiler, GrammarMatcher
from gramcore.grammar.report import KeywordReport, SchemaReport
from gramcore.grammar.structural import StructuralTag
from gramcore.grammar.tasks import Catalogue, constituency_parse, disambiguation, information_extraction
from gramcore.grammar.tokenizer import TokenizerInfo

if TYPE_CHECKING:
    from gramcore.grammar.bitmask import allocate_bitmask, apply_bitmask_
    from gramcore.grammar.one_call import generate
    from gramcore.grammar.processor import GrammarLogitsProcessor

__all__ = [
    "ASAp",
    "AprAD",
    "BatchMatcher",
    "Catalogue",
    "CausalLogits",
    "CompiledGrammar",
    "Grammar",
    "GrammarCompiler",
    "GrammarLogitsProcessor",
    "GrammarMatcher",
    "GrammarTooComplex",
    "KeywordReport",
    "Sample",
    "SchemaReport",
    "StructuralTag",
    "TokenizerInfo",
    "allocate_bitmask",
    "apply_bitmask_",
    "constituency_parse",
    "disambiguation",
    "generate",
    "information_extraction",
]

#: What imports torch.
__getattr__, __dir__ = attach(
    __name__,
    {
        "bitmask": "allocate_bitmask apply_bitmask_",
        "one_call": "generate",
        "processor": "GrammarLogitsProcessor",
    },
)
