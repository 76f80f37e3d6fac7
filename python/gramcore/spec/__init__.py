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
from gramcore.spec.composed_drafters import AdaptiveDrafter, InfinigramDrafter
from gramcore.spec.default_verifier import DefaultVerifier
from gramcore.spec.host import Host, TreeOutput
from gramcore.spec.learned_drafters import TokenRecycling, TrigramDrafter
from gramcore.spec.match_verifiers import GreedyVerifier, SeededVerifier
from gramcore.spec.meter import AcceptanceMeter
from gramcore.spec.ngram_drafter import NgramDrafter
from gramcore.spec.optimal import optimal_acceptance
from gramcore.spec.picture import RecordingVerifier, draw_tree, save_tree_png
from gramcore.spec.policies import BassLength, CostModelLength, FixedLength
from gramcore.spec.random_trees import GreedyTailTree, IidTree, RsdConstantTree, RsdStochasticTree
from gramcore.spec.residual_verifiers import (
    GreedyTailVerifier,
    KSeqVerifier,
    RecursiveVerifier,
    chain_rejection,
)
from gramcore.spec.sparse_trees import SparsePlan, SparseTree, best_sparse_plan, measure_cost, sparse_plan
from gramcore.spec.stats import GenerationResult, SpecStats
from gramcore.spec.stop_rules import (
    AcceptanceHead,
    AcceptanceHeadStop,
    Candidate,
    DiscoClassifier,
    DiscoStop,
    MinProbStop,
    StopRule,
    law_features,
)
from gramcore.spec.stop_strings import StopStrings
from gramcore.spec.suffix_drafter import SuffixDrafter
from gramcore.spec.trees import ChainTree, Eagle2Tree, OptTree, StaticTree, TreeBuilder, best_choices
from gramcore.spec.vocabulary import FrequencyVocabulary

if TYPE_CHECKING:
    from gramcore.spec.cache import SlotCache
    from gramcore.spec.generation import generate
    from gramcore.spec.hosts_hf import BatchProposer, hf_generate
    from gramcore.spec.model_drafter import ModelDrafter, early_exit
    from gramcore.spec.stop_training import (
        AcceptanceTraces,
        acceptance_examples,
        acceptance_loss,
        collect_traces,
        train_acceptance_head,
        train_disco,
        tune_threshold,
    )
    from gramcore.spec.transformers_host import TransformersHost

__all__ = [
    "AcceptanceHead",
    "AcceptanceHeadStop",
    "AcceptanceMeter",
    "AcceptanceTraces",
    "AdaptiveDrafter",
    "BassLength",
    "BatchProposer",
    "BlockVerifier",
    "Candidate",
    "ChainTree",
    "Context",
    "CostModelLength",
    "CounterRng",
    "DefaultVerifier",
    "Dice",
    "DiscoClassifier",
    "DiscoStop",
    "DraftTree",
    "Drafter",
    "Eagle2Tree",
    "FixedLength",
    "FrequencyVocabulary",
    "GenerationResult",
    "GreedyTailTree",
    "GreedyTailVerifier",
    "GreedyVerifier",
    "Host",
    "IidTree",
    "InfinigramDrafter",
    "KSeqVerifier",
    "LengthPolicy",
    "Lossless",
    "MinProbStop",
    "ModelDrafter",
    "NgramDrafter",
    "OptTree",
    "RecordingVerifier",
    "RecursiveVerifier",
    "RsdConstantTree",
    "RsdStochasticTree",
    "Sampling",
    "SeededVerifier",
    "SlotCache",
    "SparsePlan",
    "SparseTree",
    "SpecStats",
    "StaticTree",
    "StepRecord",
    "StopRule",
    "StopStrings",
    "SuffixDrafter",
    "TargetRows",
    "TokenRecycling",
    "TransformersHost",
    "TreeBuilder",
    "TreeOutput",
    "TrigramDrafter",
    "TypicalVerifier",
    "Verdict",
    "Verifier",
    "acceptance_examples",
    "acceptance_loss",
    "best_choices",
    "best_sparse_plan",
    "chain_rejection",
    "collect_traces",
    "draw_tree",
    "early_exit",
    "generate",
    "hf_generate",
    "law_features",
    "measure_cost",
    "optimal_acceptance",
    "save_tree_png",
    "sparse_plan",
    "train_acceptance_head",
    "train_disco",
    "tune_threshold",
]

_LAZY = {"generate": "generation", "SlotCache": "cache", "TransformersHost": "transformers_host"}
_LAZY |= {"BatchProposer": "hosts_hf", "hf_generate": "hosts_hf"}
_LAZY |= dict.fromkeys(
    [
        "AcceptanceTraces",
        "acceptance_examples",
        "acceptance_loss",
        "collect_traces",
        "train_acceptance_head",
        "train_disco",
        "tune_threshold",
    ],
    "stop_training",
)
_LAZY |= {"ModelDrafter": "model_drafter", "early_exit": "model_drafter"}  # these import torch


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"gramcore.spec.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'gramcore.spec' has no attribute {name!r}")


importlib.import_module("gramcore.spec.heads")  # its rows; no torch yet

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
        "Infini-gram drafts",
        "spec",
        "drafter",
        "gramcore.spec:InfinigramDrafter",
        "most frequent continuation in an on-disk index",
        "Liu et al. 2024, arXiv:2401.17377",
        {"random": False, "needs": "index"},
    ),
    Row(
        "Token recycling",
        "spec",
        "drafter",
        "gramcore.spec:TokenRecycling",
        "tree from the target's last top-k after each token",
        "Luo et al. 2024, arXiv:2408.08696",
        {"random": False},
    ),
    Row(
        "ADED",
        "spec",
        "drafter",
        "gramcore.spec:TrigramDrafter",
        "adaptive tri-gram with a draft search",
        "Liu et al. 2024, arXiv:2407.12021",
        {"random": False},
    ),
    Row(
        "SAM with fallback",
        "spec",
        "drafter",
        "gramcore.spec:AdaptiveDrafter",
        "suffix match when long, another drafter otherwise",
        "Hu et al. 2024, arXiv:2411.10666",
        {"random": False, "needs": "fallback"},
    ),
    Row(
        "Model drafts",
        "spec",
        "drafter",
        "gramcore.spec:ModelDrafter",
        "small model, early exit or short context; any tree",
        "Leviathan et al. 2022, arXiv:2211.17192",
        {"random": False, "needs": "model"},
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
        "Chain",
        "spec",
        "tree",
        "gramcore.spec:ChainTree",
        "one sequence, greedy or sampled",
        "Leviathan et al. 2022, arXiv:2211.17192",
    ),
    Row(
        "Static tree",
        "spec",
        "tree",
        "gramcore.spec:StaticTree",
        "fixed rank paths",
        "Cai et al. 2024, arXiv:2401.10774",
    ),
    Row(
        "OPT-Tree",
        "spec",
        "tree",
        "gramcore.spec:OptTree",
        "largest expected accepted length for its size",
        "Wang et al. 2024, arXiv:2406.17276",
    ),
    Row(
        "EAGLE-2 tree",
        "spec",
        "tree",
        "gramcore.spec:Eagle2Tree",
        "expand top-k per layer, re-rank all candidates",
        "Li et al. 2024, arXiv:2406.16858",
    ),
    Row(
        "RSD-C",
        "spec",
        "tree",
        "gramcore.spec:RsdConstantTree",
        "children without replacement by Gumbel-top-k",
        "Jeon et al. 2024, arXiv:2402.14160",
    ),
    Row(
        "RSD-S",
        "spec",
        "tree",
        "gramcore.spec:RsdStochasticTree",
        "stochastic beam search without replacement",
        "Jeon et al. 2024, arXiv:2402.14160",
    ),
    Row(
        "I.i.d. tree",
        "spec",
        "tree",
        "gramcore.spec:IidTree",
        "independent children, duplicates kept",
        "Sun et al. 2023, arXiv:2310.15141",
    ),
    Row(
        "Greedy-tail tree",
        "spec",
        "tree",
        "gramcore.spec:GreedyTailTree",
        "most probable children plus one random",
        "Hu et al. 2025, arXiv:2502.18779",
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
    Row(
        "DISCO",
        "spec",
        "stop",
        "gramcore.spec:DiscoStop",
        "classifier on the draft's law ends a draft",
        "Mamou et al. 2024, arXiv:2405.04304",
        {"needs": "classifier"},
    ),
    Row(
        "SpecDec++",
        "spec",
        "stop",
        "gramcore.spec:AcceptanceHeadStop",
        "ends a draft when a rejection is probable by now",
        "Huang et al. 2024, arXiv:2405.19715",
        {"needs": "head"},
    ),
    Row(
        "Confidence stop",
        "spec",
        "stop",
        "gramcore.spec:MinProbStop",
        "ends a draft before an improbable token",
    ),
)
