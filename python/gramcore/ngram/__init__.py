"""N-gram engines over token sequences: suffix automata and suffix-array indexes."""

from __future__ import annotations

from gramcore._registry import Row, register
from gramcore.ngram.automaton import SuffixAutomaton, SuffixMatcher
from gramcore.ngram.build import BuildReport, accelerate, build_index, suffix_array
from gramcore.ngram.engine import InfiniGramEngine
from gramcore.ngram.index import Index
from gramcore.ngram.results import Distribution, DistributionBatch, Found, Probability, Score

__all__ = [
    "BuildReport",
    "Distribution",
    "DistributionBatch",
    "Found",
    "Index",
    "InfiniGramEngine",
    "Probability",
    "Score",
    "SuffixAutomaton",
    "SuffixMatcher",
    "accelerate",
    "build_index",
    "suffix_array",
]

register(
    Row(
        "SuffixAutomaton",
        "ngram",
        "automaton",
        "gramcore.ngram:SuffixAutomaton",
        "every substring of a growing text, drafts, undo",
        "Blumer et al. 1985",
        {"online": True, "rollback": True},
    ),
    Row(
        "InfiniGram",
        "ngram",
        "index",
        "gramcore.ngram:Index",
        "suffix-array index in infini-gram's file layout",
        "Liu et al. 2024, arXiv:2401.17377",
        {"exact": True},
    ),
)
