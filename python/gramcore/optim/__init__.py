"""Fused optimizers: one native step engine, one row per rule."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gramcore._registry import Row, register

if TYPE_CHECKING:
    from gramcore.optim.adamw import AdamW
    from gramcore.optim.base import FusedOptimizer, GradientError

__all__ = ["AdamW", "FusedOptimizer", "GradientError"]

_HOME = {"AdamW": "adamw", "FusedOptimizer": "base", "GradientError": "base"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"gramcore.optim.{_HOME[name]}"), name)
    raise AttributeError(f"module 'gramcore.optim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


register(
    Row(
        name="AdamW",
        family="optim",
        protocol="optimizer",
        factory="gramcore.optim.adamw:AdamW",
        summary="Adam with decoupled weight decay, one pass, any storage",
        paper="Loshchilov and Hutter 2019, arXiv:1711.05101",
        facts={"state_per_param": 2.0, "reference": "adamw"},
        test_kwargs={"lr": 1e-2},
    ),
)
