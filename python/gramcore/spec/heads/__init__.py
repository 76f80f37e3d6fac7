"""Trainable draft heads: modules, trees from them, training, files. See ``docs/spec.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gramcore._lazy import attach

if TYPE_CHECKING:
    from gramcore.spec.heads.base import DraftHeads, TrainableDraft
    from gramcore.spec.heads.blockwise import BlockwiseDrafter
    from gramcore.spec.heads.clover import Clover
    from gramcore.spec.heads.drafter import HeadDrafter
    from gramcore.spec.heads.eagle import Eagle
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
    "Eagle",
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
        "eagle": "Eagle",
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
