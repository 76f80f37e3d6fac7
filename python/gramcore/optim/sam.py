"""Sharpness-aware minimisation, dense (SAM) or on the weights of largest Fisher information (FSAM)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from gramcore._checks import check_int, check_real
from gramcore.optim.layout import global_norm

__all__ = ["SAM"]


class SAM:
    """Step with the gradient taken at the worst nearby weights.

    e = ρ g / ‖g‖, kept where the mask allows;  g' = ∇L(W + e);  W ← base step from W with g'.

    With ``keep_frac`` < 1 the mask keeps that share of all matrix entries, those with the largest squared gradient,
    chosen again every ``refresh_every`` steps (FSAM).  Vectors are then not perturbed.  Inside :meth:`fisher` backward
    passes only add their squared gradients up, and the mask is chosen from the sum: the empirical Fisher diagonal.

    State: none of its own (weights are copied during a step); FSAM keeps one byte per matrix entry.

    Args:
        base: the optimizer that takes the step.
        rho: ρ > 0.
        keep_frac: share of entries perturbed, in (0, 1].
        refresh_every: steps between masks, >= 1.

    Raises:
        ValueError: a number outside its interval.

    Differs from paper: without :meth:`fisher` the Fisher diagonal is the squared gradient of the current batch, as in
    the published code; vectors are left alone under a mask, where that code perturbs them densely.

    Reference: Foret et al. 2021, arXiv:2010.01412, Alg. 1; Zhong et al. 2022, arXiv:2210.05497, Alg. 1.

    Example:
        >>> import torch
        >>> from gramcore.optim import SAM, SGD
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> sam = SAM(SGD([w], lr=0.1), rho=0.5)
        >>> def closure():
        ...     loss = (w * w).sum()
        ...     loss.backward()
        ...     return loss
        >>> round(sam.step(closure).item(), 3), [round(x, 4) for x in w.tolist()]
        (2.0, [0.7293, 0.7293])
    """

    def __init__(
        self, base: torch.optim.Optimizer, *, rho: float = 0.05, keep_frac: float = 1.0, refresh_every: int = 100
    ) -> None:
        self.base = base
        self.rho = check_real("rho", rho, low=0.0, low_open=True)
        self.keep_frac = check_real("keep_frac", keep_frac, low=0.0, high=1.0, low_open=True)
        self.refresh_every = check_int("refresh_every", refresh_every, low=1)
        self._masks: dict[torch.Tensor, torch.Tensor] = {}
        self._since_mask = 0

    def step(self, closure: Callable[[], Any]) -> Any:
        """Run ``closure`` (which computes the loss and its gradients) twice and step; returns the first loss."""
        self.base.zero_grad()
        with torch.enable_grad():
            loss = closure()
        params = [p for g in self.base.param_groups for p in g["params"] if p.grad is not None]
        before = [p.detach().clone() for p in params]
        with torch.no_grad():
            self._refresh(params)
            scale = self.rho / (global_norm([p.grad for p in params if p.grad is not None]) + 1e-12)
            for p in params:
                self._perturb(p, scale)
        try:
            self.base.zero_grad()
            with torch.enable_grad():
                closure()
        finally:
            with torch.no_grad():
                for p, old in zip(params, before, strict=True):
                    p.copy_(old)
        self.base.step()
        self._since_mask += 1
        return loss

    def _perturb(self, p: torch.Tensor, scale: float) -> None:
        assert p.grad is not None
        if self.keep_frac < 1.0:
            if p in self._masks:
                p.add_(p.grad * self._masks[p], alpha=scale)
        else:
            p.add_(p.grad, alpha=scale)

    @contextmanager
    def fisher(self) -> Iterator[None]:
        """Choose the mask from the squared gradients of the backward passes inside, one per example or small batch.

        Gradients are freed as they come; on exit they are what they were before and no hook is left.
        """
        params = [p for g in self.base.param_groups for p in g["params"] if p.requires_grad and p.ndim >= 2]
        sums = {p: torch.zeros_like(p, dtype=torch.float32, requires_grad=False) for p in params}
        kept = [p.grad for p in params]
        for p in params:
            p.grad = None

        def add(p: torch.Tensor) -> None:
            if p.grad is not None:
                sums[p].addcmul_(p.grad, p.grad)
                p.grad = None

        handles = [p.register_post_accumulate_grad_hook(add) for p in params]
        try:
            yield
            self._choose(params, [sums[p] for p in params])
            self._since_mask = 0
        finally:
            for handle in handles:
                handle.remove()
            for p, grad in zip(params, kept, strict=True):
                p.grad = grad

    def _refresh(self, params: list[torch.Tensor]) -> None:
        if self.keep_frac == 1.0 or (self._masks and self._since_mask < self.refresh_every):
            return
        matrices = [p for p in params if p.ndim >= 2]
        self._choose(matrices, [p.grad.float().square() for p in matrices if p.grad is not None])
        self._since_mask = 0

    def _choose(self, matrices: list[torch.Tensor], squares: list[torch.Tensor]) -> None:
        fisher = torch.cat([x.flatten() for x in squares])
        keep = max(1, round(self.keep_frac * fisher.numel()))
        chosen = torch.zeros(fisher.numel(), dtype=torch.bool)
        chosen[fisher.topk(keep).indices] = True
        parts = torch.split(chosen, [p.numel() for p in matrices])
        self._masks = {p: part.reshape(p.shape) for p, part in zip(matrices, parts, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """State of the base optimizer and the masks, in parameter order."""
        params = [p for g in self.base.param_groups for p in g["params"]]
        masks = {i: self._masks[p] for i, p in enumerate(params) if p in self._masks}
        return {"base": self.base.state_dict(), "masks": masks, "since_mask": self._since_mask}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        params = [p for g in self.base.param_groups for p in g["params"]]
        self.base.load_state_dict(state["base"])
        self._masks = {params[i]: mask for i, mask in state["masks"].items()}
        self._since_mask = int(state["since_mask"])
