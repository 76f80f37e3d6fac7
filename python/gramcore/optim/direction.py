"""Optimizers that work out a whole matrix's update before it is applied: one loop for all of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gramcore import _core
from gramcore.optim.base import FusedOptimizer, next_step
from gramcore.optim.layout import Batch, dense, local
from gramcore.optim.rows import Part, Rows, rows_of

__all__ = ["DirectionOptimizer", "Scaled", "fold_matrix"]


@dataclass(frozen=True)
class Scaled:
    """The update factor · row · column · x of a matrix (M, N), which the engine forms block by block while it steps.

    Attributes: row: (M,) or None for ones.  column: (N,) or None for ones.
    """

    x: torch.Tensor
    row: torch.Tensor | None = None
    column: torch.Tensor | None = None
    factor: float = 1.0

    def dense(self) -> torch.Tensor:
        """The update as a tensor."""
        u = self.x.float() * self.factor
        if self.row is not None:
            u = u * self.row.unsqueeze(-1)
        return u if self.column is None else u * self.column.unsqueeze(-2)


def fold_matrix(
    x: torch.Tensor,
    scaled: Scaled | None = None,
    *,
    scale: float = 1.0,
    moment: torch.Tensor | None = None,
    weight: float = 0.0,
    eps: float = 0.0,
    residual: bool = False,
    rows: Rows | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One pass over (…, M, N), with u = scale · row · column · x: moment ← moment + weight (u − moment), and the means
    of u² + eps, or of (u − moment)² + eps with ``residual``, over columns (…, M) and over rows (…, N).

    Args: x: contiguous.  scaled: gives row and column; its x and factor are not looked at.  rows: which rows x are.
    """
    means = torch.empty(x.shape[:-1], dtype=torch.float32)
    columns = torch.empty((*x.shape[:-2], x.shape[-1]), dtype=torch.float32)
    _core.optim.factored_pass(
        x,
        means,
        columns,
        moment=moment,
        row=scaled.row if scaled else None,
        column=scaled.column if scaled else None,
        scale=scale,
        weight=weight,
        eps=eps,
        residual=residual,
    )
    return means, rows.mean_of_means(columns) if rows and x.ndim == 2 else columns


class DirectionOptimizer(FusedOptimizer):
    """Steps parameters one by one: W ← (1−ηλ) W − η U with U from :meth:`direction`, applied in one native pass."""

    rule = "sgd"
    slots: tuple[str, ...] = ()
    #: Whether :meth:`direction` multiplies g by :meth:`gradient_scale` itself.
    scales_gradients = False

    @abstractmethod
    def direction(
        self, group: dict[str, Any], part: Part, state: dict[str, Any], g: torch.Tensor, t: int
    ) -> torch.Tensor | Scaled | None:
        """The update U of the rows here at this parameter's step t, or None after stepping ``part.w`` itself.

        Args: state: local tensors, to be changed in place.  g: local gradient (scaled, and negated to maximize).
        """

    def works_on_matrices(self, group: Mapping[str, Any], p: torch.Tensor) -> bool:
        """Whether this parameter needs :meth:`direction`, and with it whole rows."""
        return True

    def check_param(self, group: Mapping[str, Any], p: torch.Tensor) -> None:
        super().check_param(group, p)
        if self.works_on_matrices(group, p):
            rows_of(p)

    def gradient_scale(self, group: dict[str, Any]) -> float:
        """What multiplies gradients: clipping and loss scale, negative to maximize."""
        return -self._grad_scale if group["maximize"] else self._grad_scale

    def lr_factor(self, group: dict[str, Any], part: Part, t: int) -> float:
        """Multiple of lr for this tensor and step; weight decay follows it."""
        return 1.0

    def update(self, group: dict[str, Any], params: list[torch.Tensor]) -> None:
        plain = [p for p in params if not self.works_on_matrices(group, p)]
        if plain:
            super().update(group, plain)
        for p in params:
            if self.works_on_matrices(group, p):
                self.update_one(group, p)

    def update_one(self, group: dict[str, Any], p: torch.Tensor) -> None:
        """Step one parameter that has a gradient and state."""
        state = {name: local(value) for name, value in self.state[p].items()}
        t = next_step(state)
        batch = Batch([p])
        g = dense(batch.grads[0])
        if self.gradient_scale(group) != 1.0 and not self.scales_gradients:
            g = g * self.gradient_scale(group)
        part = Part(p, batch.params[0], rows_of(p), self._index[p])
        u = self.direction(group, part, state, g, t)
        if u is not None:
            self._apply(group, part, state, u, self.lr_factor(group, part, t))
        batch.write_back(False)
        if self.zero_grads and p.grad is not None:
            local(p.grad).zero_()

    def _apply(
        self, group: dict[str, Any], part: Part, state: dict[str, Any], u: torch.Tensor | Scaled, factor: float
    ) -> None:
        """W ← (1−ηλ) W − η U with η = lr factor."""
        w = part.w
        scaled = u if isinstance(u, Scaled) and w.ndim == 2 and w.is_contiguous() and u.x.is_contiguous() else Scaled(w)
        u = scaled.x if u is scaled else u.dense() if isinstance(u, Scaled) else u
        if u.stride() != w.stride():
            u = torch.empty_like(w, dtype=u.dtype).copy_(u)
        _core.optim.step(
            "sgd",
            {
                "lr": float(group["lr"]) * factor,
                "weight_decay": group["weight_decay"],
                "decay_after": float(group.get("decay", "before") == "after"),
                "grad_scale": scaled.factor,
            },
            [w],
            [u],
            [],
            [int(state["step"])],
            [part.index],
            remainders=[state["remainder"]] if "remainder" in state else None,
            stochastic=group["rounding"] == "stochastic",
            seed=group["seed"],
            row=scaled.row,
            column=scaled.column,
        )
