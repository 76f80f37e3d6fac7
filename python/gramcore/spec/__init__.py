"""Speculative decoding: drafters, draft trees, verifiers and one loop.

``generate`` decodes with a transformers model; ``drafter=None`` is plain decoding. See ``docs/spec.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gramcore._lazy import attach
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
from gramcore.spec.cost_policy import CostModelLength
from gramcore.spec.costs import RowCosts, row_costs
from gramcore.spec.default_verifier import DefaultVerifier
from gramcore.spec.host import Host, TreeOutput
from gramcore.spec.learned_drafters import TokenRecycling, TrigramDrafter
from gramcore.spec.match_verifiers import GreedyVerifier, SeededVerifier
from gramcore.spec.meter import AcceptanceMeter
from gramcore.spec.ngram_drafter import NgramDrafter
from gramcore.spec.optimal import optimal_acceptance
from gramcore.spec.picture import RecordingVerifier, draw_tree, save_tree_png
from gramcore.spec.policies import BassLength, FixedLength
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
    "RowCosts",
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
    "row_costs",
    "save_tree_png",
    "sparse_plan",
    "train_acceptance_head",
    "train_disco",
    "tune_threshold",
]

#: What imports torch.
__getattr__, __dir__ = attach(
    __name__,
    {
        "cache": "SlotCache",
        "generation": "generate",
        "hosts_hf": "BatchProposer hf_generate",
        "model_drafter": "ModelDrafter early_exit",
        "stop_training": (
            "AcceptanceTraces acceptance_examples acceptance_loss collect_traces train_acceptance_head train_disco "
            "tune_threshold"
        ),
        "transformers_host": "TransformersHost",
    },
)
