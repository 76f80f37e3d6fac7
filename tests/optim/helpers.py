"""What several optimizer tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (7,), (3, 5), (4, 3, 3, 3), (33, 130), (1027,), (0,), (2100,))


def make_params(
    shapes: Iterable[Sequence[int]] = SHAPES, dtype: torch.dtype = torch.float32, seed: int = 0
) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(tuple(s), generator=generator).to(dtype)) for s in shapes]


def set_grads(params: Iterable[torch.Tensor], t: int, seed: int = 1) -> None:
    """Gradients that depend on the step alone, with magnitudes spread over four decades."""
    generator = torch.Generator().manual_seed(1000 * seed + t)
    for p in params:
        size = 10 ** (4 * torch.rand(p.shape, generator=generator) - 4)
        p.grad = (torch.randn(p.shape, generator=generator) * size).to(p.dtype)


def run_reference(
    step: Callable[..., Any],
    params: Sequence[torch.Tensor],
    steps: int,
    dtype: type,
    stored: torch.dtype | None = None,
    **numbers: Any,
) -> list[np.ndarray[Any, Any]]:
    """``steps`` steps of a reference rule over the gradients of :func:`set_grads`, all in ``dtype``.

    Args: stored: the type to which parameters are rounded after each step, or None.
    """
    shadow = [torch.nn.Parameter(p.detach().clone()) for p in params]
    values = [p.detach().float().numpy().astype(dtype) for p in params]
    states: list[dict[str, Any]] = [{"index": i} for i in range(len(params))]
    for t in range(1, steps + 1):
        set_grads(shadow, t)
        for i, p in enumerate(shadow):
            assert p.grad is not None
            values[i] = np.asarray(step(values[i], p.grad.float().numpy().astype(dtype), states[i], t, **numbers))
            if stored is not None:
                values[i] = torch.from_numpy(values[i].copy()).to(stored).float().numpy().astype(dtype)
    return values


def run_optimizer(optimizer: torch.optim.Optimizer, params: Sequence[torch.Tensor], steps: int, first: int = 1) -> None:
    for t in range(first, first + steps):
        set_grads(params, t)
        optimizer.step()


def assert_as_good_as_naive(
    got: Sequence[torch.Tensor], naive: Sequence[Any], exact: Sequence[Any], start: Sequence[torch.Tensor]
) -> None:
    """err(ours, fp64) <= 2 err(naive of the same type, fp64) + a few units in the last place, over all tensors."""
    ours_error = naive_error = size = moved = 0.0
    for a, b, c, p in zip(got, naive, exact, start, strict=True):
        ours_error += float(np.square(a.detach().double().numpy() - c).sum())
        naive_error += float(np.square(np.asarray(b, np.float64) - c).sum())
        size += float(np.square(c).sum())
        moved += float(np.square(c - p.detach().double().numpy()).sum())
    tiny = 1e-7 * size**0.5
    assert moved > 0
    assert ours_error**0.5 <= 2 * naive_error**0.5 + tiny, (ours_error**0.5, naive_error**0.5, moved**0.5)
