"""SGD with momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gramcore._checks import check_real
from gramcore.optim.base import FusedOptimizer

__all__ = ["SGD"]


class SGD(FusedOptimizer):
    """Stochastic gradient descent, with heavy-ball or Nesterov momentum.

    g ← g + λ W;  b ← μ b + (1−d) g  (the first b is g);  W ← W − η (g + μ b if Nesterov, else b)

    State: none without momentum, else one tensor b.

    Args:
        params: parameters or groups.
        lr: η >= 0.
        momentum: μ in [0, 1).
        dampening: d in [0, 1].
        nesterov: needs momentum > 0 and dampening 0.
        weight_decay: λ >= 0, added to the gradient.
        options: see :class:`~gramcore.optim.FusedOptimizer`.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: as torch.optim.SGD defines it.

    Reference: Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning".

    Example:
        >>> import torch
        >>> from gramcore.optim import SGD
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = SGD([w], lr=0.1, momentum=0.9)
        >>> w.sum().backward(); optimizer.step(); optimizer.step()
        >>> [round(x, 4) for x in w.tolist()]
        [0.71, 0.71]
    """

    rule = "sgd"
    slots: tuple[str, ...] = ()

    def __init__(
        self,
        params: Any,
        *,
        lr: Any = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        self.momentum = check_real("momentum", momentum, low=0.0, high=1.0, high_open=True)
        self.dampening = check_real("dampening", dampening, low=0.0, high=1.0)
        self.nesterov = bool(nesterov)
        if nesterov and (momentum == 0 or dampening != 0):
            raise ValueError(
                f"nesterov must come with momentum > 0 and dampening 0, got momentum {momentum}, dampening {dampening}"
            )
        if momentum > 0:
            self.rule, self.slots = "sgd_momentum", ("momentum_buffer",)
        numbers = {"lr": lr, "weight_decay": weight_decay}
        super().__init__(params, numbers, options)

    def hyper(self, group: Mapping[str, Any]) -> dict[str, float]:
        return {
            "lr": float(group["lr"]),
            "beta1": self.momentum,
            "extra0": self.dampening,
            "extra1": float(self.nesterov),
            "weight_decay": group["weight_decay"],
            "coupled_decay": 1.0,
        }

    def check_hyper(self, group: Mapping[str, Any]) -> None:
        check_real("weight_decay", group["weight_decay"], low=0.0)
