"""Trainable draft heads: modules, trees from them, training, files. See ``docs/spec.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gramcore._lazy import attach
from gramcore._registry import Row, register

if TYPE_CHECKING:
    from gramcore.spec.heads.base import DraftHeads, TrainableDraft
    from gramcore.spec.heads.blockwise import BlockwiseDrafter
    from gramcore.spec.heads.clover import Clover
    from gramcore.spec.heads.drafter import HeadDrafter
    from gramcore.spec.heads.files import load_heads, save_heads
    from gramcore.spec.heads.lexical_units import LexicalUnitLoss, LexicalUnitTree, LexicalUnitVerifier
    from gramcore.spec.heads.losses import AdversarialLoss, DistillLoss, HiddenLoss, NextTokenLoss
    from gramcore.spec.heads.mlp_speculator import MLPSpeculator
    from gramcore.spec.heads.prompt_tokens import PromptTokenHeads, PromptTokenHost
    from gramcore.spec.heads.rescorers import ModelRescorer, NgramRescorer, Rescorer
    from gramcore.spec.heads.residual import BlockHeads, Koala
    from gramcore.spec.heads.text import ReadText, own_text, read_text
    from gramcore.spec.heads.training import TrainReport, evaluate_heads, train_heads

__all__ = [
    "AdversarialLoss",
    "BlockHeads",
    "BlockwiseDrafter",
    "Clover",
    "DistillLoss",
    "DraftHeads",
    "HeadDrafter",
    "HiddenLoss",
    "Koala",
    "LexicalUnitLoss",
    "LexicalUnitTree",
    "LexicalUnitVerifier",
    "MLPSpeculator",
    "ModelRescorer",
    "NextTokenLoss",
    "NgramRescorer",
    "PromptTokenHeads",
    "PromptTokenHost",
    "ReadText",
    "Rescorer",
    "TrainReport",
    "TrainableDraft",
    "evaluate_heads",
    "load_heads",
    "own_text",
    "read_text",
    "save_heads",
    "train_heads",
]

#: Importing one of these imports torch.
__getattr__, __dir__ = attach(
    __name__,
    {
        "base": "DraftHeads TrainableDraft",
        "blockwise": "BlockwiseDrafter",
        "clover": "Clover",
        "drafter": "HeadDrafter",
        "files": "load_heads save_heads",
        "lexical_units": "LexicalUnitLoss LexicalUnitTree LexicalUnitVerifier",
        "losses": "AdversarialLoss DistillLoss HiddenLoss NextTokenLoss",
        "mlp_speculator": "MLPSpeculator",
        "prompt_tokens": "PromptTokenHeads PromptTokenHost",
        "rescorers": "ModelRescorer NgramRescorer Rescorer",
        "residual": "BlockHeads Koala",
        "text": "ReadText own_text read_text",
        "training": "TrainReport evaluate_heads train_heads",
    },
)


register(
    Row(
        "Draft heads",
        "spec",
        "drafter",
        "gramcore.spec.heads:HeadDrafter",
        "any trained heads with any tree",
        "Cai et al. 2024, arXiv:2401.10774",
        {"random": False, "needs": "heads"},
    ),
    Row(
        "Blockwise rescoring",
        "spec",
        "drafter",
        "gramcore.spec.heads:BlockwiseDrafter",
        "independent heads' lattice rescored by n-grams or a model",
        "Kim et al. 2024, arXiv:2404.09221",
        {"random": False, "needs": "heads and rescorer"},
    ),
    Row(
        "Blockwise heads",
        "spec",
        "draft_head",
        "gramcore.spec.heads:BlockHeads",
        "independent heads on the last hidden state",
        "Stern et al. 2018, arXiv:1811.03115",
        {"regressive": False},
        {"num_heads": 3},
    ),
    Row(
        "KOALA",
        "spec",
        "draft_head",
        "gramcore.spec.heads:Koala",
        "several layers per head, adversarial training",
        "Zhang et al. 2024, arXiv:2408.08146",
        {"regressive": False},
        {"num_heads": 3},
    ),
    Row(
        "MLP speculator",
        "spec",
        "draft_head",
        "gramcore.spec.heads:MLPSpeculator",
        "state and last token mixed by small MLPs",
        "Wertheimer et al. 2024, arXiv:2404.19124",
        {"regressive": True},
        {"num_heads": 3},
    ),
    Row(
        "Clover",
        "spec",
        "draft_head",
        "gramcore.spec.heads:Clover",
        "regressive heads, attention decoder, augmenting block",
        "Xiao et al. 2024, arXiv:2405.00263",
        {"regressive": True},
        {"num_heads": 3, "attention_heads": 4},
    ),
    Row(
        "PPD",
        "spec",
        "draft_head",
        "gramcore.spec.heads:PromptTokenHeads",
        "trained prompt tokens guess further tokens while verifying",
        "Chen et al. 2024, arXiv:2405.18628",
        {"regressive": False, "states": "own"},
        {"num_heads": 3, "ensemble": 2},
    ),
    Row(
        "PPD tree",
        "spec",
        "tree",
        "gramcore.spec:SparseTree",
        "deep where prompt tokens were, size from measured costs",
        "Chen et al. 2024, arXiv:2405.18628",
    ),
    Row(
        "LUD spans",
        "spec",
        "tree",
        "gramcore.spec.heads:LexicalUnitTree",
        "a chain of tokens the draft is sure of",
        "Sun et al. 2024, arXiv:2405.15208",
        {},
        {"alpha": 0.05},
    ),
    Row(
        "LUD acceptance",
        "spec",
        "verifier",
        "gramcore.spec.heads:LexicalUnitVerifier",
        "takes drafted spans unverified; changes the output",
        "Sun et al. 2024, arXiv:2405.15208",
        {"lossless": "L2", "sampled": True},
    ),
    Row(
        "FR-Spec",
        "spec",
        "vocabulary",
        "gramcore.spec:FrequencyVocabulary.from_counts",
        "drafts over the most frequent ids only",
        "Zhao et al. 2025, arXiv:2502.14856",
        {},
        {"counts": [3, 0, 7, 7, 1, 2] * 5 + [0, 9], "r": 6, "keep": [1]},
    ),
)
