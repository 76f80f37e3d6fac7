"""Optimizers that work out a whole matrix's update before it is applied: one loop for all of them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch

from gramcore import _core
from gramcore.optim.base import FusedOptimizer, next_step
from gramcore.optim.layout import Batch, dense, local

__all__ = ["DirectionOptimizer"]


class DirectionOptimizer(FusedOptimizer):
    """Steps parameters one by one: W ← (1−ηλ) W − η U with U from :meth:`direction`, applied in one native pass."""

    rule = "sgd"
    slots: tuple[str, ...] = ()

    @abstractmethod
    def direction(
        self, group: dict[str, Any], p: torch.Tensor, state: dict[str, Any], g: torch.Tensor, t: int
    ) -> torch.Tensor:
        """The update U for the local gradient ``g`` (scaled, and negated to maximize) at this parameter's step t."""

    def lr_factor(self, group: dict[str, Any], w: torch.Tensor, t: int) -> float:
        """Multiple of lr for this tensor and step; weight decay follows it."""
        return 1.0

    def update(self, group: dict[str, Any], params: list[torch.Tensor]) -> None:
        for p in params:
            self.update_one(group, p)

    def update_one(self, group: dict[str, Any], p: torch.Tensor) -> None:
        """Step one parameter that has a gradient and state."""
        state = self.state[p]
        t = next_step(state)
        batch = Batch([p])
        g = dense(batch.grads[0])
        if self._grad_scale != 1.0 or group["maximize"]:
            g = g * (-self._grad_scale if group["maximize"] else self._grad_scale)
        factor = self.lr_factor(group, batch.params[0], t)
        u = self.direction(group, p, state, g, t)
        w = batch.params[0]
        if u.stride() != w.stride():
            u = torch.empty_like(w, dtype=u.dtype).copy_(u)
        _core.optim.step(
            "sgd",
            {
                "lr": float(group["lr"]) * factor,
                "weight_decay": group["weight_decay"],
                "decay_after": float(group.get("decay", "before") == "after"),
            },
            [w],
            [u],
            [],
            [t],
            [self._index[p]],
            remainders=[state["remainder"]] if "remainder" in state else None,
            stochastic=group["rounding"] == "stochastic",
            seed=group["seed"],
        )
        batch.write_back(False)
        if self.zero_grads and p.grad is not None:
            local(p.grad).zero_()
