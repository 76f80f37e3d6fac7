"""Hierarchical regularisation: weights important for an earlier task are pulled back to their values there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from gramcore._checks import check_real

__all__ = ["ImportancePull", "path_importance"]


@contextmanager
def path_importance(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, damping: float = 1e-3
) -> Iterator[dict[str, torch.Tensor]]:
    """Measure, over the steps of ``optimizer`` inside, how much each weight lowered the loss.

    ω_i += −g_i Δθ_i each step;  Ω_i = max(0, ω_i) / ((θ_i^end − θ_i^start)² + ξ)

    Needs two copies of the trainable parameters while it runs; hooks exist only inside the block.

    Args:
        model: its trainable parameters are followed.
        optimizer: steps them and leaves gradients as they are.
        damping: ξ > 0.

    Yields:
        A dict that holds Ω by parameter name once the block has ended.

    Differs from paper: none known; negative path integrals count as 0.

    Reference: Song et al. 2025, arXiv:2501.13669, section 3.

    Example:
        >>> import torch
        >>> from gramcore.optim import SGD, path_importance
        >>> layer = torch.nn.Linear(2, 1, bias=False)
        >>> optimizer = SGD(layer.parameters(), lr=0.1)
        >>> with path_importance(layer, optimizer) as importance:
        ...     layer(torch.tensor([[1.0, 0.0]])).square().sum().backward(); optimizer.step()
        >>> [x > 0 for x in importance["weight"].flatten().tolist()]
        [True, False]
    """
    check_real("damping", damping, low=0.0, low_open=True)
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    start = {name: p.detach().clone() for name, p in params.items()}
    before: dict[str, torch.Tensor] = {}
    path = {name: torch.zeros_like(p, dtype=torch.float32, requires_grad=False) for name, p in params.items()}

    def remember(*_: Any) -> None:
        before.update({name: p.detach().clone() for name, p in params.items() if p.grad is not None})

    @torch.no_grad()
    def add(*_: Any) -> None:
        for name, old in before.items():
            grad = params[name].grad
            if grad is not None:
                path[name].addcmul_(grad.float(), (params[name] - old).float(), value=-1)
        before.clear()

    handles = [optimizer.register_step_pre_hook(remember), optimizer.register_step_post_hook(add)]
    importance: dict[str, torch.Tensor] = {}
    try:
        yield importance
        with torch.no_grad():
            for name, p in params.items():
                moved = (p - start[name]).float().square()
                importance[name] = path[name].clamp_min(0.0) / (moved + damping)
    finally:
        for handle in handles:
            handle.remove()


class ImportancePull:
    """After each step, pull every weight back to its anchor in proportion to its importance.

    θ ← θ − 2 η λ c_l Ω (θ − θ*),  c_l = ‖Ω_l‖ / mean over layers of ‖Ω‖: element-wise importance, weighted by layer.

    State: Ω and θ*, given; kept in their dtypes.

    Args:
        model: its parameters named in ``importance`` are pulled.
        optimizer: its step is hooked until :meth:`close`; η is the lr of each parameter's group.
        importance: Ω by parameter name, see :func:`path_importance`.
        strength: λ >= 0.
        anchors: θ* by name; None for the values now.

    Raises:
        ValueError: a number outside its interval, or names and shapes that are not the model's.

    Differs from paper: the pull is decoupled from the loss, as weight decay in AdamW; a pull never goes past the
    anchor.

    Reference: Song et al. 2025, arXiv:2501.13669, section 3.

    Example:
        >>> import torch
        >>> from gramcore.optim import SGD, ImportancePull
        >>> layer = torch.nn.Linear(1, 1, bias=False)
        >>> optimizer = SGD(layer.parameters(), lr=0.1)
        >>> zero = {"weight": torch.zeros(1, 1)}
        >>> pull = ImportancePull(layer, optimizer, {"weight": torch.ones(1, 1)}, strength=1e9, anchors=zero)
        >>> layer(torch.ones(1, 1)).sum().backward(); optimizer.step()
        >>> layer.weight.item()
        0.0
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        importance: Mapping[str, torch.Tensor],
        *,
        strength: float,
        anchors: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.strength = check_real("strength", strength, low=0.0)
        params = dict(model.named_parameters())
        wrong = [n for n, x in importance.items() if n not in params or x.shape != params[n].shape]
        if wrong or not importance:
            raise ValueError(f"importance must have names and shapes of the model's parameters, got {wrong[:3]}")
        values = anchors if anchors is not None else {n: params[n].detach().clone() for n in importance}
        if any(n not in values or values[n].shape != params[n].shape for n in importance):
            raise ValueError("anchors must hold a tensor of the same shape for each name of importance")
        norms = {n: float(x.float().norm()) for n, x in importance.items()}
        mean = sum(norms.values()) / len(norms)
        self.coefficients = {n: norm / mean if mean > 0 else 0.0 for n, norm in norms.items()}
        self._items = [(params[n], importance[n], values[n], self.coefficients[n]) for n in importance]
        self._optimizer = optimizer
        self._handle: Any = optimizer.register_step_post_hook(self._pull)

    def close(self) -> None:
        """Leave the optimizer's step as it was."""
        self._handle.remove()

    @torch.no_grad()
    def _pull(self, *_: Any) -> None:
        rates = {p: float(g["lr"]) for g in self._optimizer.param_groups for p in g["params"]}
        for p, omega, anchor, coefficient in self._items:
            if p in rates:
                share = (2 * rates[p] * self.strength * coefficient * omega.float()).clamp_max_(1.0)
                p.lerp_(anchor.to(p.dtype), share.to(p.dtype))
