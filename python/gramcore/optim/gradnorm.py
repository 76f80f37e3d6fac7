"""GradNormLoRP: the low-rank rules on weight-normalised matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from gramcore._checks import check_choice, check_int, check_real
from gramcore.optim.direction import Scaled
from gramcore.optim.lift import DropResidual
from gramcore.optim.projected import ProjectedOptimizer, adam_numbers
from gramcore.optim.rows import Part, rows_of
from gramcore.optim.subspace import SvdSubspace

__all__ = ["NormalisedProjection", "gradnorm_lorp"]

_TINY = 1e-30


class NormalisedProjection(ProjectedOptimizer):
    """A projected optimizer on the direction V and the row magnitudes μ of W = diag(μ) V / ‖V‖, with V = W, μ = ‖W‖.

    G_μ = rows(G ⊙ W/μ);  G_V = G − G_μ W/μ;  V' = W − η lift(Adam(down(G_V)));  μ' = μ − η Adam(G_μ);
    W ← diag(μ') V' / ‖V'‖
    """

    scales_gradients = False

    def init_state(self, group: Mapping[str, Any], p: torch.Tensor) -> dict[str, torch.Tensor]:
        state = super().init_state(group, p)
        if self.projects(group, p):
            rows = rows_of(p)
            state["basis"] = state["basis"].float()  # of gradients that were normalised in fp32
            for name in ("magnitude_avg", "magnitude_avg_sq"):
                state[name] = rows.spread(torch.zeros(rows.count, 1, dtype=torch.float32, device=p.device))
        return state

    def direction(
        self, group: dict[str, Any], part: Part, state: dict[str, Any], g: torch.Tensor, t: int
    ) -> torch.Tensor:
        lr = float(group["lr"])
        w, g = part.w.float(), g.float()
        magnitude = w.norm(dim=1, keepdim=True)
        unit = w / magnitude.clamp_min(_TINY)
        slope = (g * unit).sum(dim=1, keepdim=True)
        g = g.addcmul(slope, unit, value=-1)
        self._refresh(group, part, state, g, t)
        u = self._whole(group, part, state, g, t)
        moved = w - lr * (u.dense() if isinstance(u, Scaled) else u.float())
        wanted = magnitude - lr * self._magnitude_step(group, state, slope, t)
        moved *= wanted / moved.norm(dim=1, keepdim=True).clamp_min(_TINY)
        return (w - moved).div_(lr) if lr > 0 else torch.zeros_like(w)

    def _magnitude_step(
        self, group: dict[str, Any], state: dict[str, Any], slope: torch.Tensor, t: int
    ) -> torch.Tensor:
        beta1, beta2 = group["betas"]
        m = state["magnitude_avg"].lerp_(slope, 1 - beta1)
        v = state["magnitude_avg_sq"].mul_(beta2).addcmul_(slope, slope, value=1 - beta2)
        root = math.sqrt(1 - beta2**t)
        eps = group["eps"] if group["eps_mode"] == "raw" else group["eps"] * root
        return m / (v.sqrt() + eps) * (root / (1 - beta1**t))


def gradnorm_lorp(
    params: Any,
    *,
    lr: Any = 1e-2,
    rank: int = 128,
    refresh_every: int = 250,
    scale: float = 0.25,
    method: str = "iterate",
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    eps_mode: str = "raw",
    decay: str = "after",
    **options: Any,
) -> NormalisedProjection:
    """Weight-normalised low-rank projection: GaLore on row directions, Adam on row magnitudes.

    W = diag(μ) V / ‖V‖ row by row;  G_μ = rows(G ⊙ W/μ);  G_V = G − G_μ W/μ, projected and stepped as in
    :func:`~gramcore.optim.galore`;  μ ← μ − η Adam(G_μ).

    State: as GaLore plus 2 M numbers per matrix; W itself holds V and μ.

    Args:
        params: parameters or groups; ``"project": False`` in a group exempts it.
        lr: η >= 0.
        rank: r >= 1; matrices with min(M, N) <= r are not projected.
        refresh_every: T >= 1 steps between refreshes.
        scale: α >= 0, multiplies the lifted step.
        method: ``"iterate"``, ``"gram"`` or ``"svd"``, as in :func:`~gramcore.optim.galore`.
        betas: (β1, β2), each in [0, 1).
        eps: ε >= 0.
        weight_decay: λ >= 0.
        eps_mode: ``"raw"`` adds ε to √v, ``"corrected"`` to √(v / (1−β2ᵗ)).
        decay: ``"before"`` or ``"after"`` the update.
        options: see :class:`~gramcore.optim.FusedOptimizer`; ``state="int8"`` gives the 8-bit variant.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: none known. The published code keeps a second copy of W, drops the tangential term of G_V and
    forgets the magnitudes it trained; this follows the equations. Rows of zeros stay zero.

    Reference: Huang et al. 2024, arXiv:2412.19616, Alg. 1.

    Example:
        >>> import torch
        >>> from gramcore.optim import gradnorm_lorp
        >>> model = torch.nn.Linear(16, 8)
        >>> optimizer = gradnorm_lorp(model.parameters(), lr=0.01, rank=4)
        >>> model(torch.ones(1, 16)).sum().backward(); optimizer.step()
    """
    check_int("rank", rank, low=1)
    check_int("refresh_every", refresh_every, low=1)
    check_real("scale", scale, low=0.0)
    check_choice("method", method, ("iterate", "gram", "svd"))
    return NormalisedProjection(
        params,
        adam_numbers(lr, betas, eps, weight_decay, eps_mode, decay),
        options,
        subspace=SvdSubspace(rank, method),
        lift=DropResidual(scale),
        refresh_every=refresh_every,
    )
