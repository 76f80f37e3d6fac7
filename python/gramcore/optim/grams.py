"""Grams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gramcore.optim.adamw import adam_hyper, check_adam
from gramcore.optim.base import FusedOptimizer

__all__ = ["Grams"]


class Grams(FusedOptimizer):
    """Magnitude of Adam's step, direction of the current gradient.

    m, v as Adam;  W ← (1−ηλ) W − η sign(g) |m / (1−β1ᵗ)| / (√(v / (1−β2ᵗ)) + ε).  sign(0) = 0.

    State: two moments, as AdamW; every storage.

    Args:
        params: parameters or groups.
        lr: η >= 0.
        betas: (β1, β2), each in [0, 1).
        eps: ε >= 0.
        weight_decay: λ >= 0.
        eps_mode: ``"corrected"`` or ``"raw"`` (the published code adds ε to √v before the bias correction).
        decay: ``"before"`` or ``"after"`` the update.
        options: see :class:`~gramcore.optim.FusedOptimizer`.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: none.  The published code overwrites the gradients and defaults to ``eps_mode="raw"``; this
    neither.

    Reference: Cao, Li and Song 2024, arXiv:2412.17107, Alg. 1.

    Example:
        >>> import torch
        >>> from gramcore.optim import Grams
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = Grams([w], lr=0.1)
        >>> (w * torch.tensor([1.0, -1.0])).sum().backward(); optimizer.step()
        >>> [round(x, 4) for x in w.tolist()]
        [0.9, 1.1]
    """

    rule = "grams"
    slots = ("exp_avg", "exp_avg_sq")
    storages = (*FusedOptimizer.storages, "int4-rank1")

    def __init__(
        self,
        params: Any,
        *,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        eps_mode: str = "corrected",
        decay: str = "before",
        **options: Any,
    ) -> None:
        numbers = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "eps_mode": eps_mode,
            "decay": decay,
        }
        super().__init__(params, numbers, options)

    def hyper(self, group: Mapping[str, Any]) -> dict[str, float]:
        return adam_hyper(group)

    def check_hyper(self, group: Mapping[str, Any]) -> None:
        check_adam(group)
