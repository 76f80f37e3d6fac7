"""Projected steps that need no array of the matrix's size: parts of a matrix stepped by the engine where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gramcore import _core
from gramcore.optim.adamw import adam_hyper

__all__ = ["MatrixJob"]


@dataclass(frozen=True)
class MatrixJob:
    """One step of one matrix.

    Attributes:
        w: the matrix.  g: its gradient.  state: moments and basis.  group: the optimizer's numbers.
        grad_scale: multiplies g.  index: names the random bits.  t: the step.  since: the step since a reset.
        eps: as it stands beside √v.  correction: √(1−β2ᵗ)/(1−β1ᵗ).
    """

    w: torch.Tensor
    g: torch.Tensor
    state: dict[str, Any]
    group: Mapping[str, Any]
    grad_scale: float
    index: int
    t: int
    since: int
    eps: float
    correction: float

    @property
    def plain(self) -> bool:
        """Whether the matrix lies row by row and the moments are floats."""
        moments = [self.state[name] for name in ("exp_avg", "exp_avg_sq")]
        floats = all(m.dtype is not torch.uint8 and m.is_contiguous() for m in moments)
        return floats and "remainder" not in self.state and self.w.is_contiguous() and self.g.is_contiguous()

    @property
    def single(self) -> bool:
        """Whether everything is fp32 too."""
        tensors = (self.w, self.g, self.state["exp_avg"], self.state["exp_avg_sq"])
        return self.plain and all(t.dtype is torch.float32 for t in tensors)

    def numbers(self, update_scale: float) -> dict[str, float]:
        """AdamW's numbers for the engine, with the update (not the decay) multiplied."""
        return {**adam_hyper(self.group), "grad_scale": self.grad_scale, "update_scale": update_scale}

    def step_rows(self, rule: str, rows: torch.Tensor, update_scale: float) -> None:
        """``adam`` (with moments, one row per selected row) or ``sign`` on rows of the matrix."""
        _core.optim.step_rows(
            rule,
            self.numbers(update_scale),
            self.w,
            self.g,
            [self.state["exp_avg"], self.state["exp_avg_sq"]] if rule == "adam" else [],
            rows,
            self.since,
            self.index,
            stochastic=self.group["rounding"] == "stochastic",
            seed=self.group["seed"] + self.t % 2**32 if self.group["rounding"] == "stochastic" else 0,
        )

    def other_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows that are not in ``rows``."""
        mask = torch.ones(self.w.shape[0], dtype=torch.bool)
        mask[rows] = False
        return mask.nonzero().flatten()

    def step_columns(self, columns: torch.Tensor, update_scale: float, sign_scale: float) -> None:
        """Adam on columns of the matrix, sign descent on the others."""
        inside, outside = self.numbers(update_scale), self.numbers(sign_scale)
        m, v = self.state["exp_avg"], self.state["exp_avg_sq"]
        _core.optim.step_columns(inside, outside, self.w, self.g, m, v, columns, self.since)

    def haar_norm(self, level: int) -> float:
        """Fold the coarse coefficients into the moments; the norm of the rule's step on them."""
        m, v = self.state["exp_avg"], self.state["exp_avg_sq"]
        numbers = {**self.numbers(1.0), "weight_decay": 0.0, "eps": self.eps}
        return float(_core.optim.haar_moments(numbers, self.g, m, v, level) ** 0.5)

    def haar_step(self, level: int, factor: float) -> None:
        """The lifted step, multiplied by ``factor``."""
        m, v, lr = self.state["exp_avg"], self.state["exp_avg_sq"], float(self.group["lr"])
        decay = -lr * self.group["weight_decay"]
        decays = (0.0, decay) if self.group["decay"] == "after" else (decay, 0.0)
        _core.optim.haar_step(self.w, self.g, m, v, level, lr, factor, self.eps, self.grad_scale, decays)
