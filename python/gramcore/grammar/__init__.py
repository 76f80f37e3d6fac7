"""Grammar-constrained decoding: token masks from regular expressions and JSON Schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gramcore._lazy import attach
from gramcore._registry import Row, register
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


register(
    Row(
        "GBNF",
        "grammar",
        "grammar_front_end",
        "gramcore.grammar:Grammar.from_gbnf",
        "rules in llama.cpp's notation",
        "",
        {"context_free": True},
        {"text": 'root ::= "a" root? "b"'},
    ),
    Row(
        "EBNF",
        "grammar",
        "grammar_front_end",
        "gramcore.grammar:Grammar.from_ebnf",
        "rules in the W3C's notation",
        "",
        {"context_free": True},
        {"text": "s ::= 'a' s? 'b' ;"},
    ),
    Row(
        "Lark",
        "grammar",
        "grammar_front_end",
        "gramcore.grammar:Grammar.from_lark",
        "rules and terminals in Lark's notation, JSON Schemas inline",
        "",
        {"context_free": True},
        {"text": 'start: "a" start? "b"'},
    ),
    Row(
        "Closed information extraction",
        "grammar",
        "task_grammar",
        "gramcore.grammar:information_extraction",
        "triplets over catalogues of any size, compiled per input",
        "Geng et al. 2023, arXiv:2305.13971",
    ),
    Row(
        "Entity disambiguation",
        "grammar",
        "task_grammar",
        "gramcore.grammar:disambiguation",
        "one of the candidates of a mention",
        "Geng et al. 2023, arXiv:2305.13971",
    ),
    Row(
        "Constituency parsing",
        "grammar",
        "task_grammar",
        "gramcore.grammar:constituency_parse",
        "bracketed trees over exactly the given words",
        "Geng et al. 2023, arXiv:2305.13971",
    ),
    Row(
        "ASAp",
        "grammar",
        "aligner",
        "gramcore.grammar:ASAp",
        "masked sampling whose law converges to the conditioned one",
        "Park et al. 2024, arXiv:2405.21047",
        {"law": "converges", "needs_mask": True},
        {"vocab_size": 4},
    ),
    Row(
        "AprAD",
        "grammar",
        "aligner",
        "gramcore.grammar:AprAD",
        "backtracks as far as an exclusion changed the law",
        "Melcer et al. 2024, arXiv:2410.01103",
        {"law": "approximate", "needs_mask": False},
        {"vocab_size": 4},
    ),
)

register(
    Row(
        "Regex",
        "grammar",
        "grammar_front_end",
        "gramcore.grammar:Grammar.from_regex",
        "regular expressions with intersection, complement, counted repetition",
        "Brzozowski 1964",
        {"context_free": False},
        {"text": "(?:ab|[0-9]{1,30})*x?"},
    ),
    Row(
        "JSON Schema",
        "grammar",
        "grammar_front_end",
        "gramcore.grammar:Grammar.from_json_schema",
        "drafts 4 to 2020-12, report per keyword",
        "",
        {"context_free": True},
        {"schema": '{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}'},
    ),
)
