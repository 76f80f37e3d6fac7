"""N-gram engines over token sequences: suffix automata and suffix-array indexes."""

from __future__ import annotations

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
