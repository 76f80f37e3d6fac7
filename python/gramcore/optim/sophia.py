"""Sophia."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from gramcore._checks import check_int, check_real
from gramcore.optim.base import FusedOptimizer, check_betas
from gramcore.optim.layout import local
from gramcore.optim.subspace import generator_for

__all__ = ["Sophia", "sample_labels"]


class Sophia(FusedOptimizer):
    """Momentum divided by a diagonal curvature estimate, clipped element by element.

    m ← β1 m + (1−β1) g;  W ← (1−ηλ) W − η clip(m / max(γ h, ε), 1);  every k steps  h ← β2 h + (1−β2) ĥ

    The estimate ĥ comes from a backward pass of its own, in a context that gives the gradients back on exit:
    Sophia-G: :meth:`gauss_newton_bartlett`, labels sampled from the model's own softmax, ĥ = B g² with B the number of
    examples (tokens) the loss was averaged over.  Sophia-H: :meth:`hutchinson`, ĥ = u (∇²L u) with u ~ N(0, I), or
    :meth:`hutchinson_difference`, which needs no graph of the gradients.

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
        >>> with optimizer.gauss_newton_bartlett(batch=1):
        ...     (w * w).sum().backward()
        >>> (w * w).sum().backward(); optimizer.step()
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

    @contextmanager
    def gauss_newton_bartlett(self, *, batch: int) -> Iterator[None]:
        """Fold ``batch`` times the square of the gradients of the backward passes inside into h.

        The loss inside must use labels drawn from the model, see :func:`sample_labels`.  On exit the gradients are
        what they were before; after an error h is unchanged.

        Args: batch: number of examples (tokens) over which that loss was averaged, >= 1.
        """
        check_real("batch", batch, low=1.0)
        with self._own_gradients() as params:
            yield
            with torch.no_grad():
                for group, p in params:
                    if p.grad is not None:
                        self._fold(group, p, p.grad.float().square().mul_(float(batch)))

    @contextmanager
    def hutchinson(self, *, generator: torch.Generator | None = None) -> Iterator[None]:
        """Fold u (∇²L u) into h; inside, run ``loss.backward(create_graph=True)``.

        On exit the gradients are what they were before and the graph is freed; after an error h is unchanged.

        Args: generator: of u; None for torch's own.
        """
        if any(hasattr(p, "_local_tensor") for g in self.param_groups for p in g["params"]):
            raise TypeError(
                "hutchinson needs whole parameters, got distributed ones, whose backward passes keep no graph; use "
                "hutchinson_difference or gauss_newton_bartlett"
            )
        with self._own_gradients() as params, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Using backward.. with create_graph=True")
            yield
            used = [(g, p) for g, p in params if p.grad is not None and p.grad.grad_fn is not None]
            if not used:
                raise ValueError("gradients must have a graph, got none; run loss.backward(create_graph=True) inside")
            probes = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for _, p in used]
            grads = [p.grad for _, p in used if p.grad is not None]
            products = torch.autograd.grad(grads, [p for _, p in used], probes, allow_unused=True)
            with torch.no_grad():
                for (group, p), u, hu in zip(used, probes, products, strict=True):
                    self._fold(group, p, (u * (torch.zeros_like(u) if hu is None else hu)).float())

    def hutchinson_difference(self, closure: Callable[[], Any], *, seed: int, epsilon: float = 1e-3) -> None:
        """Fold u (∇L(W + εu) − ∇L(W − εu)) / 2ε into h: Hutchinson's estimate from two plain backward passes.

        For models whose gradients have no graph: FSDP2, activation checkpointing, fused attention.  Weights and
        gradients are then what they were before, bit for bit; after an error h is unchanged too.  Meanwhile there are a
        copy of the weights and two of the gradients.

        Args:
            closure: computes the loss and its gradients, the same function of the weights both times.
            seed: names u ~ N(0, I), the same in every process; give another one each time.  In [0, 2⁶⁴).
            epsilon: ε > 0; for bf16 weights well above 2⁻⁸ times their size.
        """
        check_int("seed", seed, low=0, high=2**64 - 1)
        check_real("epsilon", epsilon, low=0.0, low_open=True)
        with self._own_gradients() as params:
            weights = [local(p.detach()) for _, p in params]
            before = [w.clone() for w in weights]

            def gradients(shift: float) -> list[torch.Tensor | None]:
                with torch.no_grad():
                    for (_, p), w, old in zip(params, weights, before, strict=True):
                        w.copy_(old.add(self._probe(p, seed), alpha=shift))
                        p.grad = None
                with torch.enable_grad():
                    closure()
                return [None if p.grad is None else local(p.grad).float() for _, p in params]

            try:
                ahead, behind = gradients(epsilon), gradients(-epsilon)
            finally:
                for w, old in zip(weights, before, strict=True):
                    w.copy_(old)
            if not any(g is not None for g in ahead):
                raise ValueError("closure must compute gradients, got none; call loss.backward() in it")
            for (group, p), a, b in zip(params, ahead, behind, strict=True):
                if a is not None and b is not None:
                    self._fold(group, p, (a - b).mul_(self._probe(p, seed)).div_(2 * epsilon))

    def _probe(self, p: torch.Tensor, seed: int) -> torch.Tensor:
        """The part of u that belongs to the values here."""
        whole = torch.randn(p.shape, generator=generator_for(seed, self._index[p], 0))
        if not hasattr(p, "_local_tensor"):
            return whole
        from torch.distributed.tensor import distribute_tensor

        return local(distribute_tensor(whole, p.device_mesh, p.placements, src_data_rank=None))  # type: ignore[attr-defined]

    @contextmanager
    def _own_gradients(self) -> Iterator[list[tuple[dict[str, Any], torch.Tensor]]]:
        params = [(g, p) for g in self.param_groups for p in g["params"] if p.requires_grad]
        kept = [p.grad for _, p in params]
        for _, p in params:
            p.grad = None
        try:
            yield params
        finally:
            for (_, p), grad in zip(params, kept, strict=True):
                p.grad = grad

    def _fold(self, group: dict[str, Any], p: torch.Tensor, estimate: torch.Tensor) -> None:
        if not self.state[p]:
            self.state[p].update(self.init_state(group, p))
        h = local(self.state[p]["hessian"])
        h.copy_(h.float().lerp_(local(estimate), 1 - group["betas"][1]))


def sample_labels(logits: torch.Tensor, *, generator: torch.Generator | None = None) -> torch.Tensor:
    """Labels drawn from softmax(logits), for the loss inside :meth:`Sophia.gauss_newton_bartlett`.

    Args: logits: (..., V).  generator: of the draws; None for torch's own.  Returns: int64 (...).

    Example:
        >>> import torch
        >>> from gramcore.optim import sample_labels
        >>> sample_labels(torch.tensor([[0.0, 100.0], [100.0, 0.0]])).tolist()
        [1, 0]
    """
    probs = torch.softmax(logits.detach().float(), dim=-1).reshape(-1, logits.shape[-1])
    return torch.multinomial(probs, 1, generator=generator).reshape(logits.shape[:-1])
