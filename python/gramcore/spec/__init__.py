"""Speculative decoding: drafters, draft trees, verifiers and one loop.

``generate`` decodes with a transformers model; ``drafter=None`` is plain decoding. See ``docs/spec.md``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gramcore._registry import Row, register
from gramcore.spec.base import (
    Context,
    CounterRng,
    Drafter,
    DraftTree,
    LengthPolicy,
    Lossless,
    Sampling,
    StepRecord,
    TargetRows,
    Verdict,
    Verifier,
)
from gramcore.spec.host import Host, TreeOutput
from gramcore.spec.ngram_drafter import NgramDrafter
from gramcore.spec.policies import FixedLength
from gramcore.spec.stats import GenerationResult, SpecStats
from gramcore.spec.suffix_drafter import SuffixDrafter
from gramcore.spec.verifiers import GreedyVerifier, SeededVerifier

if TYPE_CHECKING:
    from gramcore.spec.cache import SlotCache
    from gramcore.spec.generation import generate
    from gramcore.spec.transformers_host import TransformersHost

__all__ = [
    "Context",
    "CounterRng",
    "DraftTree",
    "Drafter",
    "FixedLength",
    "GenerationResult",
    "GreedyVerifier",
    "Host",
    "LengthPolicy",
    "Lossless",
    "NgramDrafter",
    "Sampling",
    "SeededVerifier",
    "SlotCache",
    "SpecStats",
    "StepRecord",
    "SuffixDrafter",
    "TargetRows",
    "TransformersHost",
    "TreeOutput",
    "Verdict",
    "Verifier",
    "generate",
]

_LAZY = {"generate": "generation", "SlotCache": "cache", "TransformersHost": "transformers_host"}  # these import torch


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"gramcore.spec.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'gramcore.spec' has no attribute {name!r}")


register(
    Row(
        "ANPD",
        "spec",
        "drafter",
        "gramcore.spec:NgramDrafter",
        "adaptive multi-level n-gram drafts from the request's text",
        "Ou, Chen, Tian 2024, arXiv:2404.08698",
        {"random": False, "own_text": True},
    ),
    Row(
        "SAM decoding",
        "spec",
        "drafter",
        "gramcore.spec:SuffixDrafter",
        "longest earlier match by suffix automaton, optional corpus",
        "Hu et al. 2024, arXiv:2411.10666",
        {"random": False, "own_text": True},
    ),
    Row(
        "Greedy verification",
        "spec",
        "verifier",
        "gramcore.spec:GreedyVerifier",
        "accepts drafts equal to the target's argmax",
        "Stern et al. 2018, arXiv:1811.03115",
        {"lossless": "L0", "sampled": False},
    ),
    Row(
        "Seeded sampling verification",
        "spec",
        "verifier",
        "gramcore.spec:SeededVerifier",
        "accepts drafts equal to the target's counter-seeded sample",
        "Leviathan et al. 2022, arXiv:2211.17192",
        {"lossless": "L0", "sampled": True},
    ),
    Row(
        "Fixed length",
        "spec",
        "policy",
        "gramcore.spec:FixedLength",
        "the same number of draft nodes every step",
        "Leviathan et al. 2022, arXiv:2211.17192",
    ),
)
