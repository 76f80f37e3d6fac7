"""AdamW."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gramcore._checks import check_choice, check_real
from gramcore.optim.base import FusedOptimizer, check_betas
from gramcore.optim.layout import rms

__all__ = ["AdamW"]


def adam_hyper(group: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of the Adam family as the engine names them."""
    return {
        "lr": float(group["lr"]),
        "beta1": group["betas"][0],
        "beta2": group["betas"][1],
        "eps": group["eps"],
        "weight_decay": group["weight_decay"],
        "raw_eps": float(group["eps_mode"] == "raw"),
        "decay_after": float(group["decay"] == "after"),
    }


def check_adam(group: Mapping[str, Any]) -> None:
    """Raise if a number of the Adam family is out of range."""
    check_betas(group["betas"])
    check_real("eps", group["eps"], low=0.0)
    check_real("weight_decay", group["weight_decay"], low=0.0)
    check_choice("eps_mode", group["eps_mode"], ("corrected", "raw"))
    check_choice("decay", group["decay"], ("before", "after"))


class AdamW(FusedOptimizer):
    """Adam with decoupled weight decay, all tensors in one native pass.

    m ← m + (1−β1)(g − m);  v ← β2 v + (1−β2) g²;  W ← (1−ηλ) W − η (m / (1−β1ᵗ)) / (√(v / (1−β2ᵗ)) + ε)

    State: two moments of the parameter's shape: 8 bytes per parameter in fp32, 4 in bf16, 2.03 in int8, 1.06 in int4.
    Moves 28 bytes per fp32 parameter with fp32 moments, 16 with int8, 14 with int4.

    Args:
        params: parameters or groups, fp32, bf16 or fp16, on the CPU.
        lr: η >= 0; a float or a 0-dim tensor.
        betas: (β1, β2), each in [0, 1).
        eps: ε >= 0.
        weight_decay: λ >= 0.
        eps_mode: ``"corrected"`` adds ε after the bias correction of v; ``"raw"`` adds it to √v, as optimizers derived
            from the Hugging Face AdamW do.
        decay: ``"before"`` shrinks W before the update, ``"after"`` shrinks the updated W.
        rms_scale: multiply lr by max(10⁻³, RMS(W)) per tensor, as nanoT5 does; T5's weights differ much in size.
        options: see :class:`~gramcore.optim.FusedOptimizer`; ``state="int8"`` gives 8-bit AdamW, ``state="int4-rank1"``
            the 4-bit AdamW of arXiv:2309.01507, which looks at each second moment twice per step.

    Raises:
        ValueError: a number outside its interval.  TypeError: a parameter or gradient of another kind.

    Differs from paper: none.  ``lr`` multiplies the decay, as in torch.

    Reference: Loshchilov and Hutter 2019, arXiv:1711.05101, Alg. 2.

    Example:
        >>> import torch
        >>> from gramcore.optim import AdamW
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = AdamW([w], lr=0.1, weight_decay=0.0)
        >>> w.sum().backward(); optimizer.step()
        >>> [round(x, 4) for x in w.tolist()]
        [0.9, 0.9]
    """

    rule = "adam"
    slots = ("exp_avg", "exp_avg_sq")
    storages = (*FusedOptimizer.storages, "int4-rank1")

    def __init__(
        self,
        params: Any,
        *,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        eps_mode: str = "corrected",
        decay: str = "before",
        rms_scale: bool = False,
        **options: Any,
    ) -> None:
        numbers = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(
            params, {**numbers, "eps_mode": eps_mode, "decay": decay, "rms_scale": bool(rms_scale)}, options
        )

    def hyper(self, group: Mapping[str, Any]) -> dict[str, float]:
        return adam_hyper(group)

    def check_hyper(self, group: Mapping[str, Any]) -> None:
        check_adam(group)

    def lr_scales(self, group: Mapping[str, Any], params: list[torch.Tensor]) -> list[float]:
        if not group["rms_scale"]:
            return []
        return [max(1e-3, rms(p)) for p in params]
