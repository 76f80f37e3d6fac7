"""COSMOS."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from gramcore import _core
from gramcore._checks import check_int, check_real
from gramcore.optim.adamw import adam_hyper, check_adam
from gramcore.optim.direction import DirectionOptimizer
from gramcore.optim.rows import Part, Rows, rows_of
from gramcore.optim.subspace import generator_for, top_basis

__all__ = ["COSMOS"]

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class COSMOS(DirectionOptimizer):
    """Adam in the leading eigenspace of GᵀG, an orthogonalised step in the rest.

    M ← β1 M + (1−β1) G;  U ← qr(β2 U S + (1−β2) GᵀG U);  S ← Uᵀ(β2 U' S U'ᵀ + (1−β2) GᵀG) U with U' the old U;
    V ← β2 V + (1−β2) (G U)²;  A = ((M U / (1−β1ᵗ)) / (√(V / (1−β2ᵗ)) + ε)) Uᵀ;  B = norm(ns5(M − M U Uᵀ));
    W ← (1−ηλ) W − η κ norm(A + γ B),  norm(X) = X / RMS(X)

    State: M·N + N·rank + M·rank + rank² fp32 numbers per matrix; other tensors get AdamW.

    Args:
        params: parameters or groups; ``"project": False`` in a group exempts it.
        lr: η >= 0.
        betas: (β1, β2), each in [0, 1).
        eps: ε >= 0.
        weight_decay: λ >= 0.
        rank: r >= 1; matrices with min(M, N) <= r get AdamW.
        gamma: γ >= 0, weight of the orthogonalised part.
        lr_ratio: κ >= 0, of matrices against other tensors.
        options: see :class:`~gramcore.optim.FusedOptimizer`.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: normalisation to unit RMS and κ follow the published code; its Nesterov mixing, which changes
    the gradients in place, is left out.

    Reference: Liu et al. 2025, arXiv:2502.17410, Alg. 1.

    Example:
        >>> import torch
        >>> from gramcore.optim import COSMOS
        >>> layer = torch.nn.Linear(16, 8)
        >>> optimizer = COSMOS(layer.parameters(), lr=0.01, rank=4)
        >>> layer(torch.ones(1, 16)).sum().backward(); optimizer.step()
    """

    rule = "adam"
    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Any,
        *,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        rank: int = 64,
        gamma: float = 0.2,
        lr_ratio: float = 0.1,
        **options: Any,
    ) -> None:
        self.rank = check_int("rank", rank, low=1)
        self.gamma = check_real("gamma", gamma, low=0.0)
        self.lr_ratio = check_real("lr_ratio", lr_ratio, low=0.0)
        numbers = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**numbers, "eps_mode": "corrected", "decay": "before", "project": True}, options)

    def hyper(self, group: Mapping[str, Any]) -> dict[str, float]:
        return adam_hyper(group)

    def check_hyper(self, group: Mapping[str, Any]) -> None:
        check_adam(group)
        if group["state"] != "fp32":
            raise ValueError(f"state must be fp32 for COSMOS, got {group['state']!r}")

    def projects(self, group: Mapping[str, Any], p: torch.Tensor) -> bool:
        """Whether this parameter is stepped as a matrix."""
        return bool(group["project"]) and p.ndim == 2 and min(p.shape) > self.rank

    def init_state(self, group: Mapping[str, Any], p: torch.Tensor) -> dict[str, torch.Tensor]:
        if not self.projects(group, p):
            return super().init_state(group, p)
        rows, columns = rows_of(p), p.shape[1]
        state = {"step": torch.zeros((), dtype=torch.float32)}
        shapes = {
            "exp_avg": (rows.count, columns),
            "exp_avg_sq": (rows.count, self.rank),
            "basis": (columns, self.rank),
            "spectrum": (self.rank, self.rank),
        }
        for name, shape in shapes.items():
            zeros = torch.zeros(shape, dtype=torch.float32, device=p.device)
            state[name] = rows.spread(zeros) if name.startswith("exp_avg") else zeros
        if self._compensated(group, p):
            state["remainder"] = torch.zeros_like(p, requires_grad=False)
        return state

    def works_on_matrices(self, group: Mapping[str, Any], p: torch.Tensor) -> bool:
        return self.projects(group, p)

    def direction(
        self, group: dict[str, Any], part: Part, state: dict[str, Any], g: torch.Tensor, t: int
    ) -> torch.Tensor:
        g = g.float()
        beta1, beta2 = group["betas"]
        m = state["exp_avg"].lerp_(g, 1 - beta1)
        rows = part.rows
        generator = generator_for(group["seed"], part.index, 0)
        if not rows.total_of(0.0 if math.isfinite(_core.optim.sum_squares([g])) else 1.0):
            gu = self._rotate(state, g, beta2, t, generator, rows)
        else:
            gu = g @ state["basis"]
        u = state["basis"]
        v = state["exp_avg_sq"].lerp_(gu.square_(), 1 - beta2)
        inside = m @ u
        update = newton_schulz(torch.addmm(m, inside, u.T, alpha=-1.0), rows)
        update *= self.gamma * _unit(update, rows)
        denominator = (v / (1 - beta2**t)).sqrt_().add_(group["eps"])
        update.addmm_(inside.div_(1 - beta1**t).div_(denominator), u.T)
        return update.mul_(self.lr_ratio * _unit(update, rows))

    def _rotate(
        self, state: dict[str, Any], g: torch.Tensor, beta2: float, t: int, generator: torch.Generator, rows: Rows
    ) -> torch.Tensor:
        """Turn the basis towards g; g times the new one."""
        if t == 1:
            state["basis"].copy_(top_basis(rows.whole(g), self.rank, "gram", generator))
            gu = g @ state["basis"]
            state["spectrum"].copy_((1 - beta2) * rows.sum(gu.T @ gu))
            return gu
        old, s = state["basis"].clone(), state["spectrum"].clone()
        u = torch.linalg.qr(beta2 * (old @ s) + (1 - beta2) * rows.sum(g.T @ (g @ old))).Q
        gu, turn = g @ u, old.T @ u
        state["basis"].copy_(u)
        state["spectrum"].copy_(beta2 * (turn.T @ s @ turn) + (1 - beta2) * rows.sum(gu.T @ gu))
        return gu


def newton_schulz(x: torch.Tensor, rows: Rows, steps: int = 5) -> torch.Tensor:
    """Approximately U Vᵀ of X = U Σ Vᵀ, by the quintic iteration of Muon; the rows here.

    Args: x: the rows here of X (M, N).  rows: which those are.  steps: >= 1.
    """
    a, b, c = _NEWTON_SCHULZ
    tall = rows.total > x.shape[1]
    if rows.split and not tall:
        return rows.part(newton_schulz(rows.whole(x), Rows(rows.total), steps))
    y = (x.T if tall else x) / (_norm(x, rows) + 1e-7)
    for _ in range(steps):
        square = rows.sum(y @ y.T)
        y = torch.addmm(y, torch.addmm(square, square, square, beta=b, alpha=c), y, beta=a)
    return y.T if tall else y


def _norm(x: torch.Tensor, rows: Rows) -> float:
    return math.sqrt(rows.total_of(_core.optim.sum_squares([x])))


def _unit(x: torch.Tensor, rows: Rows) -> float:
    """What makes the RMS of all rows one."""
    return math.sqrt(rows.total * x.shape[1]) / (_norm(x, rows) + 1e-8)
