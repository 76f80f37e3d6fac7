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
        """Whether the matrix and the moments lie row by row."""
        return all(x.is_contiguous() for x in (self.w, self.g, *self.moments))

    @property
    def floats(self) -> bool:
        """Whether the moments are no codes, too."""
        return self.plain and all(m.dtype is not torch.uint8 for m in self.moments)

    @property
    def moments(self) -> list[torch.Tensor]:
        return [self.state["exp_avg"], self.state["exp_avg_sq"]]

    @property
    def noise(self) -> tuple[int, int, int] | None:
        """What names the bits of stochastic rounding: seed, matrix, step."""
        return (self.group["seed"], self.index, self.t) if self.group["rounding"] == "stochastic" else None

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
            self.moments if rule == "adam" else [],
            rows,
            self.since,
            self.index,
            stochastic=self.group["rounding"] == "stochastic",
            seed=self.group["seed"] + self.t % 2**32 if self.group["rounding"] == "stochastic" else 0,
            remainder=self.state.get("remainder"),
        )

    def other_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows that are not in ``rows``."""
        mask = torch.ones(self.w.shape[0], dtype=torch.bool)
        mask[rows] = False
        return mask.nonzero().flatten()

    def step_columns(self, chosen: torch.Tensor, width: int, update_scale: float, sign_scale: float) -> None:
        """Adam on columns of the matrix, or on those of each row that a mask gives; sign descent on the others."""
        names = ("exp_avg_scale", "exp_avg_sq_scale")
        coded = self.moments[0].dtype is torch.uint8
        _core.optim.step_columns(
            self.numbers(update_scale),
            self.numbers(sign_scale),
            self.w,
            self.g,
            self.moments,
            chosen,
            width,
            self.since,
            scales=[self.state[name] for name in names] if coded else [],
            storage=self.group["state"] if coded else "",
            remainder=self.state.get("remainder"),
            noise=self.noise,
        )

    def haar_norm(self, level: int) -> float:
        """Fold the coarse coefficients into the moments; the norm of the rule's step on them."""
        numbers = {**self.numbers(1.0), "weight_decay": 0.0, "eps": self.eps}
        return float(_core.optim.haar_moments(numbers, self.g, self.moments, level, noise=self.noise) ** 0.5)

    def haar_step(self, level: int, factor: float) -> None:
        """The lifted step, multiplied by ``factor``."""
        lr = float(self.group["lr"])
        decay = -lr * self.group["weight_decay"]
        _core.optim.haar_step(
            self.w,
            self.g,
            self.moments,
            level,
            lr,
            factor,
            self.eps,
            self.grad_scale,
            (0.0, decay) if self.group["decay"] == "after" else (decay, 0.0),
            remainder=self.state.get("remainder"),
            noise=self.noise,
        )
