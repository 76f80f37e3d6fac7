"""Lion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gramcore._checks import check_real
from gramcore.optim.base import FusedOptimizer, check_betas

__all__ = ["Lion"]


class Lion(FusedOptimizer):
    """Sign of an interpolated momentum.

    W ← (1−ηλ) W − η sign(β1 m + (1−β1) g);  m ← β2 m + (1−β2) g

    State: one moment: 4 bytes per parameter in fp32, 1.02 in int8.

    Args:
        params: parameters or groups.
        lr: η >= 0, about a tenth of AdamW's.
        betas: (β1, β2), each in [0, 1).
        weight_decay: λ >= 0.
        options: see :class:`~gramcore.optim.FusedOptimizer`.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: none.

    Reference: Chen et al. 2023, arXiv:2302.06675, Alg. 2.

    Example:
        >>> import torch
        >>> from gramcore.optim import Lion
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = Lion([w], lr=0.1)
        >>> (w * 5).sum().backward(); optimizer.step()
        >>> [round(x, 4) for x in w.tolist()]
        [0.9, 0.9]
    """

    rule = "lion"
    slots = ("exp_avg",)

    def __init__(
        self,
        params: Any,
        *,
        lr: Any = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        numbers = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        super().__init__(params, numbers, options)

    def hyper(self, group: Mapping[str, Any]) -> dict[str, float]:
        return {
            "lr": float(group["lr"]),
            "beta1": group["betas"][0],
            "beta2": group["betas"][1],
            "weight_decay": group["weight_decay"],
        }

    def check_hyper(self, group: Mapping[str, Any]) -> None:
        check_betas(group["betas"])
        check_real("weight_decay", group["weight_decay"], low=0.0)
