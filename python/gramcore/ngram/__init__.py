"""N-gram engines over token sequences: suffix automata and suffix-array indexes."""

from __future__ import annotations

from gramcore._registry import Row, register
from gramcore.ngram.automaton import SuffixAutomaton, SuffixMatcher
from gramcore.ngram.build import BuildReport, accelerate, build_index, suffix_array
from gramcore.ngram.difference import IndexDifference, append_index
from gramcore.ngram.engine import InfiniGramEngine, InfiniGramEngineDiff
from gramcore.ngram.fm import FMIndex
from gramcore.ngram.index import Index
from gramcore.ngram.interpolate import InfinigramLogitsProcessor, Weights, interpolate, tune_weights
from gramcore.ngram.results import Distribution, DistributionBatch, Found, Probability, Score
from gramcore.ngram.seal import SealRetriever

__all__ = [
    "BuildReport",
    "Distribution",
    "DistributionBatch",
    "FMIndex",
    "Found",
    "Index",
    "IndexDifference",
    "InfiniGramEngine",
    "InfiniGramEngineDiff",
    "InfinigramLogitsProcessor",
    "Probability",
    "Score",
    "SealRetriever",
    "SuffixAutomaton",
    "SuffixMatcher",
    "Weights",
    "accelerate",
    "append_index",
    "build_index",
    "interpolate",
    "suffix_array",
    "tune_weights",
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
        {"exact": True, "on_disk": True},
    ),
    Row(
        "FMIndex",
        "ngram",
        "index",
        "gramcore.ngram:FMIndex",
        "compressed index that replaces the text, extended token-wise",
        "Ferragina & Manzini 2000; Claude et al. 2015",
        {"exact": True, "successors": True},
    ),
    Row(
        "SEAL",
        "ngram",
        "retriever",
        "gramcore.ngram:SealRetriever",
        "retrieval by constrained generation of occurring n-grams",
        "Bevilacqua et al. 2022, arXiv:2204.10628",
    ),
    Row(
        "InfinigramInterpolation",
        "ngram",
        "logits_processor",
        "gramcore.ngram:InfinigramLogitsProcessor",
        "infini-gram estimates mixed into a neural model, tuned weights",
        "Liu et al. 2024, arXiv:2401.17377",
    ),
)
