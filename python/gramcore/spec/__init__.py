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
    Dice,
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
from gramcore.spec.chain_verifiers import BlockVerifier, TypicalVerifier
from gramcore.spec.default_verifier import DefaultVerifier
from gramcore.spec.host import Host, TreeOutput
from gramcore.spec.match_verifiers import GreedyVerifier, SeededVerifier
from gramcore.spec.ngram_drafter import NgramDrafter
from gramcore.spec.optimal import optimal_acceptance
from gramcore.spec.policies import BassLength, CostModelLength, FixedLength
from gramcore.spec.residual_verifiers import (
    GreedyTailVerifier,
    KSeqVerifier,
    RecursiveVerifier,
    chain_rejection,
)
from gramcore.spec.stats import GenerationResult, SpecStats
from gramcore.spec.suffix_drafter import SuffixDrafter

if TYPE_CHECKING:
    from gramcore.spec.cache import SlotCache
    from gramcore.spec.generation import generate
    from gramcore.spec.transformers_host import TransformersHost

__all__ = [
    "BassLength",
    "BlockVerifier",
    "Context",
    "CostModelLength",
    "CounterRng",
    "DefaultVerifier",
    "Dice",
    "DraftTree",
    "Drafter",
    "FixedLength",
    "GenerationResult",
    "GreedyTailVerifier",
    "GreedyVerifier",
    "Host",
    "KSeqVerifier",
    "LengthPolicy",
    "Lossless",
    "NgramDrafter",
    "RecursiveVerifier",
    "Sampling",
    "SeededVerifier",
    "SlotCache",
    "SpecStats",
    "StepRecord",
    "SuffixDrafter",
    "TargetRows",
    "TransformersHost",
    "TreeOutput",
    "TypicalVerifier",
    "Verdict",
    "Verifier",
    "chain_rejection",
    "generate",
    "optimal_acceptance",
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
        "Chain rejection",
        "spec",
        "verifier",
        "gramcore.spec:chain_rejection",
        "speculative sampling: accept with probability min(1, p/q)",
        "Leviathan et al. 2022, arXiv:2211.17192",
        {"lossless": "L1", "sampled": True},
    ),
    Row(
        "Recursive rejection",
        "spec",
        "verifier",
        "gramcore.spec:RecursiveVerifier",
        "siblings in turn against the residual, with or without replacement",
        "Jeon et al. 2024, arXiv:2402.14160",
        {"lossless": "L1", "sampled": True},
    ),
    Row(
        "k-SEQ",
        "spec",
        "verifier",
        "gramcore.spec:KSeqVerifier",
        "several i.i.d. drafts with one damped acceptance ratio",
        "Sun et al. 2023, arXiv:2310.15141",
        {"lossless": "L1", "sampled": True},
    ),
    Row(
        "Greedy draft sampling",
        "spec",
        "verifier",
        "gramcore.spec:GreedyTailVerifier",
        "most probable drafts plus one random: optimal acceptance",
        "Hu et al. 2025, arXiv:2502.18779",
        {"lossless": "L1", "sampled": True},
    ),
    Row(
        "Block verification",
        "spec",
        "verifier",
        "gramcore.spec:BlockVerifier",
        "decides a chain as a whole, accepts more",
        "Sun et al. 2024, arXiv:2403.10444",
        {"lossless": "L1", "sampled": True},
    ),
    Row(
        "Typical acceptance",
        "spec",
        "verifier",
        "gramcore.spec:TypicalVerifier",
        "entropy-dependent threshold; changes the output law",
        "Cai et al. 2024, arXiv:2401.10774",
        {"lossless": "L2", "sampled": False},
    ),
    Row(
        "Cost model",
        "spec",
        "policy",
        "gramcore.spec:CostModelLength",
        "learns step times and acceptance; switches off when drafts lose",
        "Leviathan et al. 2022, arXiv:2211.17192",
    ),
    Row(
        "BASS heuristic",
        "spec",
        "policy",
        "gramcore.spec:BassLength",
        "grows on full acceptance, shrinks ever faster otherwise",
        "Qian et al. 2024, arXiv:2404.15778",
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
