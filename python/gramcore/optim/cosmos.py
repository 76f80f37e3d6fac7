"""COSMOS."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from gramcore._checks import check_int, check_real
from gramcore.optim.adamw import adam_hyper, check_adam
from gramcore.optim.base import FusedOptimizer
from gramcore.optim.direction import DirectionOptimizer
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
        if hasattr(p, "_local_tensor"):
            raise TypeError("COSMOS needs whole matrices, got a distributed tensor; set project=False")
        rows, columns = p.shape
        state = {"step": torch.zeros((), dtype=torch.float32)}
        shapes = {
            "exp_avg": (rows, columns),
            "exp_avg_sq": (rows, self.rank),
            "basis": (columns, self.rank),
            "spectrum": (self.rank, self.rank),
        }
        state.update({k: torch.zeros(v, dtype=torch.float32, device=p.device) for k, v in shapes.items()})
        if self._compensated(group, p):
            state["remainder"] = torch.zeros_like(p, requires_grad=False)
        return state

    def update(self, group: dict[str, Any], params: list[torch.Tensor]) -> None:
        plain = [p for p in params if not self.projects(group, p)]
        if plain:
            FusedOptimizer.update(self, group, plain)
        for p in params:
            if self.projects(group, p):
                self.update_one(group, p)

    def direction(
        self, group: dict[str, Any], p: torch.Tensor, state: dict[str, Any], g: torch.Tensor, t: int
    ) -> torch.Tensor:
        g = g.float()
        beta1, beta2 = group["betas"]
        m = state["exp_avg"].lerp_(g, 1 - beta1)
        if bool(torch.isfinite(g).all()):
            self._rotate(state, g, beta2, t, generator_for(group["seed"], self._index[p], 0))
        u = state["basis"]
        v = state["exp_avg_sq"].lerp_((g @ u).square_(), 1 - beta2)
        inside = m @ u
        denominator = (v / (1 - beta2**t)).sqrt_().add_(group["eps"])
        a = (inside / (1 - beta1**t) / denominator) @ u.T
        rest = _unit_rms(newton_schulz(m - inside @ u.T))
        return _unit_rms(a + self.gamma * rest).mul_(self.lr_ratio)

    def _rotate(self, state: dict[str, Any], g: torch.Tensor, beta2: float, t: int, generator: torch.Generator) -> None:
        if t == 1:
            state["basis"].copy_(top_basis(g, self.rank, "gram", generator))
            gu = g @ state["basis"]
            state["spectrum"].copy_((1 - beta2) * (gu.T @ gu))
            return
        old, s = state["basis"].clone(), state["spectrum"].clone()
        u = torch.linalg.qr(beta2 * (old @ s) + (1 - beta2) * (g.T @ (g @ old))).Q
        gu, turn = g @ u, old.T @ u
        state["basis"].copy_(u)
        state["spectrum"].copy_(beta2 * (turn.T @ s @ turn) + (1 - beta2) * (gu.T @ gu))


def newton_schulz(x: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Approximately U Vᵀ of x = U Σ Vᵀ, by the quintic iteration of Muon.

    Args: x: (M, N).  steps: >= 1.
    """
    a, b, c = _NEWTON_SCHULZ
    tall = x.shape[0] > x.shape[1]
    y = (x.T if tall else x) / (x.norm() + 1e-7)
    for _ in range(steps):
        square = y @ y.T
        y = a * y + (b * square + c * square @ square) @ y
    return y.T if tall else y


def _unit_rms(x: torch.Tensor) -> torch.Tensor:
    return x * (math.sqrt(x.numel()) / (float(x.norm()) + 1e-8))
