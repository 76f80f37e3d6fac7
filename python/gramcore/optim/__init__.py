"""Fused optimizers: one native step engine, one row per rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gramcore._lazy import attach

if TYPE_CHECKING:
    from gramcore.optim.adam_mini import AdamMini, adam_mini_groups
    from gramcore.optim.adamw import AdamW
    from gramcore.optim.badam import BAdam
    from gramcore.optim.base import FusedOptimizer, GradientError
    from gramcore.optim.by_name import create, layer_blocks, param_groups, state_bytes
    from gramcore.optim.cosmos import COSMOS
    from gramcore.optim.factored import CAME, Adafactor, Factor4bit
    from gramcore.optim.fused_backward import FusedBackward
    from gramcore.optim.gradnorm import gradnorm_lorp
    from gramcore.optim.grams import Grams
    from gramcore.optim.importance import ImportancePull, path_importance
    from gramcore.optim.lawa import LAWA
    from gramcore.optim.lion import Lion
    from gramcore.optim.lowrank import fira, galore, galore_plus
    from gramcore.optim.mkor import MKOR
    from gramcore.optim.perturb import LoraLayer, LoraPerturbation, lora_layers
    from gramcore.optim.sam import SAM
    from gramcore.optim.sgd import SGD
    from gramcore.optim.sketched import apollo, apollo_mini, frugal, grass, gwt
    from gramcore.optim.sophia import Sophia, sample_labels
    from gramcore.optim.spdf import SparseMask
    from gramcore.optim.spectrum import signal_to_noise, spectrum_freeze, spectrum_select
    from gramcore.optim.zeroth import Estimator, ForwardGradient, OneSided, TwoSided, ZerothOrder
    from gramcore.optim.zo import (
        forward_gradient,
        mezo,
        zo_adam,
        zo_blockwise,
        zo_conservative,
        zo_momentum,
        zo_sign,
        zo_sparse,
    )

__all__ = [
    "CAME",
    "COSMOS",
    "LAWA",
    "MKOR",
    "SAM",
    "SGD",
    "Adafactor",
    "AdamMini",
    "AdamW",
    "BAdam",
    "Estimator",
    "Factor4bit",
    "ForwardGradient",
    "FusedBackward",
    "FusedOptimizer",
    "GradientError",
    "Grams",
    "ImportancePull",
    "Lion",
    "LoraLayer",
    "LoraPerturbation",
    "OneSided",
    "Sophia",
    "SparseMask",
    "TwoSided",
    "ZerothOrder",
    "adam_mini_groups",
    "apollo",
    "apollo_mini",
    "create",
    "fira",
    "forward_gradient",
    "frugal",
    "galore",
    "galore_plus",
    "gradnorm_lorp",
    "grass",
    "gwt",
    "layer_blocks",
    "lora_layers",
    "mezo",
    "param_groups",
    "path_importance",
    "sample_labels",
    "signal_to_noise",
    "spectrum_freeze",
    "spectrum_select",
    "state_bytes",
    "zo_adam",
    "zo_blockwise",
    "zo_conservative",
    "zo_momentum",
    "zo_sign",
    "zo_sparse",
]

#: Using one of these imports torch.
__getattr__, __dir__ = attach(
    __name__,
    {
        "adam_mini": "AdamMini adam_mini_groups",
        "adamw": "AdamW",
        "badam": "BAdam",
        "base": "FusedOptimizer GradientError",
        "by_name": "create layer_blocks param_groups state_bytes",
        "cosmos": "COSMOS",
        "factored": "CAME Adafactor Factor4bit",
        "fused_backward": "FusedBackward",
        "gradnorm": "gradnorm_lorp",
        "grams": "Grams",
        "importance": "ImportancePull path_importance",
        "lawa": "LAWA",
        "lion": "Lion",
        "lowrank": "fira galore galore_plus",
        "mkor": "MKOR",
        "perturb": "LoraLayer LoraPerturbation lora_layers",
        "sam": "SAM",
        "sgd": "SGD",
        "sketched": "apollo apollo_mini frugal grass gwt",
        "sophia": "Sophia sample_labels",
        "spdf": "SparseMask",
        "spectrum": "signal_to_noise spectrum_freeze spectrum_select",
        "zeroth": "Estimator ForwardGradient OneSided TwoSided ZerothOrder",
        "zo": "forward_gradient mezo zo_adam zo_blockwise zo_conservative zo_momentum zo_sign zo_sparse",
    },
)
