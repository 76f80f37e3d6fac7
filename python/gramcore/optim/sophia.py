"""Sophia."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gramcore._checks import check_real
from gramcore.optim.base import FusedOptimizer, check_betas

__all__ = ["Sophia"]


class Sophia(FusedOptimizer):
    """Momentum divided by a diagonal curvature estimate, clipped element by element.

    m ← β1 m + (1−β1) g;  W ← (1−ηλ) W − η clip(m / max(γ h, ε), 1);  every k steps  h ← β2 h + (1−β2) ĥ

    The estimate ĥ comes from :meth:`update_hessian`, called by the user after a backward pass of its own:
    Sophia-G: labels sampled from the model's own softmax, ĥ = B g² with B the number of examples (tokens) the loss was
    averaged over.  Sophia-H: ĥ = u (∇²L u) with u ~ N(0, I), computed by :meth:`update_hutchinson`.

    State: m and h, two tensors of the parameter's shape.

    Args:
        params: parameters or groups.
        lr: η >= 0.
        betas: (β1, β2), each in [0, 1).
        gamma: γ > 0: 0.05 for Sophia-G, 0.01 for Sophia-H.
        eps: ε > 0.
        weight_decay: λ >= 0.
        options: see :class:`~gramcore.optim.FusedOptimizer`.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: none.  The published code leaves B out of ĥ and multiplies it in ``step``; its learning rate is
    ρ times the paper's, which is used here.  Before the first estimate h = 0 and the step is the sign of m.

    Reference: Liu et al. 2023, arXiv:2305.14342, Alg. 3 (estimators: Alg. 1 and 2).

    Example:
        >>> import torch
        >>> from gramcore.optim import Sophia
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = Sophia([w], lr=0.1, weight_decay=0.0)
        >>> (w * w).sum().backward(); optimizer.update_hessian(batch=1); optimizer.step()
        >>> [round(x, 4) for x in w.tolist()]
        [0.9, 0.9]
    """

    rule = "sophia"
    slots = ("exp_avg", "hessian")

    def __init__(
        self,
        params: Any,
        *,
        lr: Any = 1e-4,
        betas: tuple[float, float] = (0.96, 0.99),
        gamma: float = 0.05,
        eps: float = 1e-12,
        weight_decay: float = 0.1,
        **options: Any,
    ) -> None:
        numbers = {"lr": lr, "betas": betas, "gamma": gamma, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, numbers, options)

    def hyper(self, group: Mapping[str, Any]) -> dict[str, float]:
        return {
            "lr": float(group["lr"]),
            "beta1": group["betas"][0],
            "eps": group["eps"],
            "weight_decay": group["weight_decay"],
            "extra0": group["gamma"],
        }

    def check_hyper(self, group: Mapping[str, Any]) -> None:
        check_betas(group["betas"])
        check_real("gamma", group["gamma"], low=0.0, low_open=True)
        check_real("eps", group["eps"], low=0.0, low_open=True)
        check_real("weight_decay", group["weight_decay"], low=0.0)
        if group["state"] not in ("fp32", "bf16"):
            raise ValueError(f"state must be fp32 or bf16 for Sophia, got {group['state']!r}; h has no low-bit map")

    @torch.no_grad()
    def update_hessian(self, *, batch: int) -> None:
        """Gauss-Newton-Bartlett: fold ``batch`` times the square of the gradients now in place into h.

        Args: batch: number of examples (tokens) over which the sampled-label loss was averaged, >= 1.
        """
        check_real("batch", batch, low=1.0)
        for group, p in self._with_grad():
            assert p.grad is not None
            self._fold(group, p, p.grad.float().square().mul_(float(batch)))

    def update_hutchinson(self, loss: torch.Tensor, *, generator: torch.Generator | None = None) -> None:
        """Hutchinson: fold u (∇²L u) into h.  ``loss`` needs a graph; leaves gradients as they are."""
        params = [(g, p) for g in self.param_groups for p in g["params"] if p.requires_grad]
        grads = torch.autograd.grad(loss, [p for _, p in params], create_graph=True, allow_unused=True)
        used = [(g, p, d) for (g, p), d in zip(params, grads, strict=True) if d is not None]
        probes = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for _, p, _ in used]
        products = torch.autograd.grad([d for _, _, d in used], [p for _, p, _ in used], probes, allow_unused=True)
        with torch.no_grad():
            for (group, p, _), u, hu in zip(used, probes, products, strict=True):
                self._fold(group, p, (u * (torch.zeros_like(u) if hu is None else hu)).float())

    def _with_grad(self) -> list[tuple[dict[str, Any], torch.Tensor]]:
        return [(g, p) for g in self.param_groups for p in g["params"] if p.grad is not None]

    def _fold(self, group: dict[str, Any], p: torch.Tensor, estimate: torch.Tensor) -> None:
        if not self.state[p]:
            self.state[p].update(self.init_state(group, p))
        h = self.state[p]["hessian"]
        h.copy_(h.float().lerp_(estimate, 1 - group["betas"][1]))
