"""Zeroth-order steps: two forward passes, perturbations replayed from a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from gramcore import _core
from gramcore._checks import check_choice, check_int, check_real
from gramcore.optim.base import check_lr, local
from gramcore.optim.subspace import generator_for

__all__ = ["MeZO"]


class MeZO:
    """Memory-efficient zeroth-order optimisation.

    p = (L(W + ε z) − L(W − ε z)) / 2ε with z ~ N(0, I);  W ← W − η (p z + λ W)

    z is never stored: it is drawn again from (seed, query, parameter, step), one tensor at a time.

    State: none; one number, the step.

    Args:
        params: parameters, or groups with their own ``lr`` and ``weight_decay``.
        lr: η >= 0.
        epsilon: ε > 0.
        weight_decay: λ >= 0.
        variant: ``"sgd"``; ``"sign"``, the sign of p in place of p; ``"conservative"``, one step forward and one
            backward are tried and the best of the three weights kept.
        queries: perturbations averaged per step, >= 1.
        seed: in [0, 2⁶³).

    Raises:
        ValueError: a number outside its interval.

    Differs from paper: the random stream; restoring and stepping are one addition, which loses less in low precision.

    Reference: Malladi et al. 2023, arXiv:2305.17333, Alg. 1; variants: Zhang et al. 2024, arXiv:2402.11592.

    Example:
        >>> import torch
        >>> from gramcore.optim import MeZO
        >>> w = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = MeZO([w], lr=0.05)
        >>> losses = [optimizer.step(lambda: (w * w).sum()).item() for _ in range(60)]
        >>> losses[-1] < 0.1 * losses[0]
        True
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 1e-6,
        epsilon: float = 1e-3,
        weight_decay: float = 0.0,
        variant: str = "sgd",
        queries: int = 1,
        seed: int = 0,
    ) -> None:
        items = list(params)
        groups = items if items and isinstance(items[0], dict) else [{"params": items}]
        self.param_groups = [
            {"lr": lr, "weight_decay": weight_decay, **g, "params": [p for p in g["params"] if p.requires_grad]}
            for g in groups
        ]
        if not any(g["params"] for g in self.param_groups):
            raise ValueError("params must hold a trainable parameter, got an empty list")
        for g in self.param_groups:
            check_lr(g["lr"])
            check_real("weight_decay", g["weight_decay"], low=0.0)
        self.epsilon = check_real("epsilon", epsilon, low=0.0, low_open=True)
        self.variant = check_choice("variant", variant, ("sgd", "sign", "conservative"))
        self.queries = check_int("queries", queries, low=1)
        self.seed = check_int("seed", seed, low=0, high=2**63 - 1)
        self.num_steps = 0
        self.projected_gradient = 0.0

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor]) -> torch.Tensor:
        """One step; ``closure`` returns the loss without a backward pass.  Returns the loss at W + ε z."""
        steps = []
        loss = torch.zeros(())
        for query in range(self.queries):
            key = self.num_steps * self.queries + query
            self._move(key, self.epsilon)
            loss = closure()
            self._move(key, -2 * self.epsilon)
            p = (loss - closure()).item() / (2 * self.epsilon)
            self.projected_gradient = p
            amount = (float(p > 0) - float(p < 0)) if self.variant == "sign" else p
            steps.append((key, amount / self.queries))
            last = query == self.queries - 1
            self._move(key, self.epsilon, amount / self.queries if last and self.variant != "conservative" else None)
        if self.variant == "conservative":
            self._conservative(closure, steps)
        else:
            for key, amount in steps[:-1]:
                self._move(key, 0.0, amount, decay=False)
        self.num_steps += 1
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The step count; everything else is given to the constructor."""
        return {"num_steps": self.num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        self.num_steps = check_int("num_steps", state["num_steps"], low=0)

    def _conservative(self, closure: Callable[[], torch.Tensor], steps: list[tuple[int, float]]) -> None:
        losses = [closure().item()]
        for factor in (1.0, -2.0):
            for key, amount in steps:
                self._move(key, 0.0, factor * amount, decay=False)
            losses.append(closure().item())
        back = {0: 1.0, 1: 2.0, 2: 0.0}[losses.index(min(losses))]  # we stand at W - step; 0 and 1 are W and W + step
        for key, amount in steps:
            if back:
                self._move(key, 0.0, back * amount, decay=False)

    def _move(self, key: int, along: float, step: float | None = None, decay: bool = True) -> None:
        """W ← (1 − η λ) W + (along − η step) z; no decay without a step."""
        index = 0
        for group in self.param_groups:
            for p in group["params"]:
                generator = generator_for(self.seed, index, key)
                z = torch.randn(p.shape, generator=generator)
                lr = float(group["lr"])
                shrink = lr * group["weight_decay"] if step is not None and decay else 0.0
                amount = along - (lr * step if step is not None else 0.0)
                w = local(p)
                used = w if w.is_contiguous() else w.contiguous()
                hyper = {"lr": 1.0, "weight_decay": shrink, "grad_scale": -amount}
                _core.optim.step("sgd", hyper, [used], [z], [], [1], [index])
                if used is not w:
                    w.copy_(used)
                index += 1
