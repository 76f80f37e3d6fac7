"""Zeroth-order optimizers: MeZO and the variants of its benchmark, each a composition over one engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gramcore.optim.adamw import AdamW
from gramcore.optim.sgd import SGD
from gramcore.optim.zeroth import ForwardGradient, OneSided, TwoSided, ZerothOrder

__all__ = [
    "forward_gradient",
    "mezo",
    "zo_adam",
    "zo_blockwise",
    "zo_conservative",
    "zo_momentum",
    "zo_sign",
    "zo_sparse",
]


def _estimator(epsilon: float, one_sided: bool = False) -> OneSided | TwoSided:
    return OneSided(epsilon) if one_sided else TwoSided(epsilon)


def mezo(
    params: Any,
    *,
    lr: Any = 1e-6,
    epsilon: float = 1e-3,
    weight_decay: float = 0.0,
    queries: int = 1,
    one_sided: bool = False,
    seed: int = 0,
    **options: Any,
) -> ZerothOrder:
    """Memory-efficient zeroth-order SGD: two forward passes per direction and a seed.

    p = (L(W + ε z) − L(W − ε z)) / 2ε with z ~ N(0, I);  W ← (1−ηλ) W − η p z

    State: none; one number, the step.

    Args:
        params: parameters or groups.
        lr: η >= 0.
        epsilon: ε > 0.
        weight_decay: λ >= 0.
        queries: directions averaged per step, >= 1.
        one_sided: estimate p as (L(W + ε z) − L(W)) / ε.
        seed: of the directions, in [0, 2⁶⁴).
        options: see :class:`~gramcore.optim.FusedOptimizer`.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: the random stream.

    Reference: Malladi et al. 2023, arXiv:2305.17333, Alg. 1.

    Example:
        >>> import torch
        >>> from gramcore.optim import mezo
        >>> w = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = mezo([w], lr=0.05)
        >>> losses = [optimizer.step(lambda: (w * w).sum()).item() for _ in range(60)]
        >>> losses[-1] < 0.1 * losses[0]
        True
    """
    base = SGD(params, lr=lr, weight_decay=weight_decay, **options)
    return ZerothOrder(base, _estimator(epsilon, one_sided), queries=queries, seed=seed)


def zo_momentum(
    params: Any,
    *,
    lr: Any = 1e-6,
    momentum: float = 0.9,
    epsilon: float = 1e-3,
    weight_decay: float = 0.0,
    queries: int = 1,
    seed: int = 0,
    **options: Any,
) -> ZerothOrder:
    """SGD with momentum on two-sided estimates (ZO-SGD-MMT).

    b ← μ b + p z;  W ← W − η (b + λ W)

    State: the momentum, one tensor of the parameter's shape; 1 byte per parameter with ``state="int8"``.

    Args:
        params: parameters or groups.
        lr: η >= 0.
        momentum: μ in [0, 1).
        epsilon: ε > 0.
        weight_decay: λ >= 0, part of the gradient.
        queries: directions averaged per step, >= 1.
        seed: of the directions, in [0, 2⁶⁴).
        options: see :class:`~gramcore.optim.FusedOptimizer`.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: the random stream.

    Reference: Zhang et al. 2024, arXiv:2402.11592, section 3.

    Example:
        >>> import torch
        >>> from gramcore.optim import zo_momentum
        >>> w = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = zo_momentum([w], lr=0.01)
        >>> losses = [optimizer.step(lambda: (w * w).sum()).item() for _ in range(60)]
        >>> losses[-1] < 0.3 * losses[0]
        True
    """
    base = SGD(params, lr=lr, momentum=momentum, weight_decay=weight_decay, **options)
    return ZerothOrder(base, _estimator(epsilon), queries=queries, seed=seed)


def zo_sign(
    params: Any,
    *,
    lr: Any = 1e-6,
    epsilon: float = 1e-3,
    weight_decay: float = 0.0,
    queries: int = 1,
    seed: int = 0,
    **options: Any,
) -> ZerothOrder:
    """SGD on the sign of the two-sided slope (ZO-SGD-Sign).

    W ← (1−ηλ) W − η sign(p) z: the sign of one number, not of each element.

    State: none; one number, the step.

    Args:
        params: parameters or groups.
        lr: η >= 0.
        epsilon: ε > 0.
        weight_decay: λ >= 0.
        queries: directions averaged per step, >= 1.
        seed: of the directions, in [0, 2⁶⁴).
        options: see :class:`~gramcore.optim.FusedOptimizer`.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: the random stream.

    Reference: Zhang et al. 2024, arXiv:2402.11592, section 3.

    Example:
        >>> import torch
        >>> from gramcore.optim import zo_sign
        >>> w = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = zo_sign([w], lr=0.05)
        >>> losses = [optimizer.step(lambda: (w * w).sum()).item() for _ in range(60)]
        >>> losses[-1] < 0.3 * losses[0]
        True
    """
    base = SGD(params, lr=lr, weight_decay=weight_decay, **options)
    return ZerothOrder(base, _estimator(epsilon), queries=queries, sign=True, seed=seed)


def zo_conservative(
    params: Any, *, lr: Any = 1e-6, epsilon: float = 1e-3, queries: int = 1, seed: int = 0, **options: Any
) -> ZerothOrder:
    """SGD that tries a step forward and one backward and keeps the best of three (ZO-SGD-Cons).

    W ← argmin of L over W − η p z, W, W + η p z.  Five forward passes per step.

    State: none; one number, the step.

    Args:
        params: parameters or groups.
        lr: η >= 0.
        epsilon: ε > 0.
        queries: directions averaged per step, >= 1.
        seed: of the directions, in [0, 2⁶⁴).
        options: see :class:`~gramcore.optim.FusedOptimizer`.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: the random stream.

    Reference: Zhang et al. 2024, arXiv:2402.11592, section 3.

    Example:
        >>> import torch
        >>> from gramcore.optim import zo_conservative
        >>> w = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = zo_conservative([w], lr=0.05)
        >>> losses = [optimizer.step(lambda: (w * w).sum()).item() for _ in range(60)]
        >>> losses[-1] < 0.1 * losses[0]
        True
    """
    base = SGD(params, lr=lr, **options)
    return ZerothOrder(base, _estimator(epsilon), queries=queries, conservative=True, seed=seed)


def zo_adam(
    params: Any,
    *,
    lr: Any = 1e-4,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    epsilon: float = 1e-3,
    weight_decay: float = 0.0,
    queries: int = 1,
    seed: int = 0,
    **options: Any,
) -> ZerothOrder:
    """AdamW on two-sided estimates (ZO-Adam).

    g = p z;  W ← AdamW(W, g)

    State: two moments of the parameter's shape, 2.03 bytes per parameter with ``state="int8"``.

    Args:
        params: parameters or groups.
        lr: η >= 0.
        betas: (β1, β2), each in [0, 1).
        eps: of Adam, >= 0.
        epsilon: ε > 0, of the estimate.
        weight_decay: λ >= 0.
        queries: directions averaged per step, >= 1.
        seed: of the directions, in [0, 2⁶⁴).
        options: see :class:`~gramcore.optim.FusedOptimizer`.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: the random stream.

    Reference: Zhang et al. 2024, arXiv:2402.11592, section 3.

    Example:
        >>> import torch
        >>> from gramcore.optim import zo_adam
        >>> w = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = zo_adam([w], lr=0.05)
        >>> losses = [optimizer.step(lambda: (w * w).sum()).item() for _ in range(60)]
        >>> losses[-1] < 0.3 * losses[0]
        True
    """
    base = AdamW(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, **options)
    return ZerothOrder(base, _estimator(epsilon), queries=queries, seed=seed)


def zo_sparse(
    params: Any,
    *,
    lr: Any = 1e-6,
    keep_frac: float = 0.1,
    epsilon: float = 1e-3,
    weight_decay: float = 0.0,
    queries: int = 1,
    seed: int = 0,
    **options: Any,
) -> ZerothOrder:
    """MeZO along sparse directions: each element of z is kept with probability ``keep_frac``, else zero.

    State: none; one number, the step.  The mask is drawn again from the seed, as z is.

    Args:
        params: parameters or groups.
        lr: η >= 0.
        keep_frac: in (0, 1].
        epsilon: ε > 0.
        weight_decay: λ >= 0.
        queries: directions averaged per step, >= 1.
        seed: of the directions and masks, in [0, 2⁶⁴).
        options: see :class:`~gramcore.optim.FusedOptimizer`.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: one share for all tensors; the published code compares normal values with the share, which keeps
    another number of elements.

    Reference: Zhang et al. 2024, arXiv:2402.11592, section 5.

    Example:
        >>> import torch
        >>> from gramcore.optim import zo_sparse
        >>> w = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = zo_sparse([w], lr=0.05, keep_frac=0.5)
        >>> losses = [optimizer.step(lambda: (w * w).sum()).item() for _ in range(90)]
        >>> losses[-1] < 0.3 * losses[0]
        True
    """
    base = SGD(params, lr=lr, weight_decay=weight_decay, **options)
    return ZerothOrder(base, _estimator(epsilon), queries=queries, keep_frac=keep_frac, seed=seed)


def zo_blockwise(
    blocks: Sequence[Sequence[torch.Tensor]],
    *,
    lr: Any = 1e-6,
    epsilon: float = 1e-3,
    weight_decay: float = 0.0,
    seed: int = 0,
    **options: Any,
) -> ZerothOrder:
    """MeZO on one block of parameters after the other, each with a slope of its own.

    Two forward passes per block: the variance of an estimate grows with the number of elements it covers.

    State: none; one number, the step.

    Args:
        blocks: lists of parameters, for example :func:`~gramcore.optim.layer_blocks` of a model.
        lr: η >= 0.
        epsilon: ε > 0.
        weight_decay: λ >= 0.
        seed: of the directions, in [0, 2⁶⁴).
        options: see :class:`~gramcore.optim.FusedOptimizer`.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: a block is stepped before the next is perturbed (its "coordinate" mode).

    Reference: Zhang et al. 2024, arXiv:2402.11592, section 5.

    Example:
        >>> import torch
        >>> from gramcore.optim import zo_blockwise
        >>> a, b = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
        >>> optimizer = zo_blockwise([[a], [b]], lr=0.05)
        >>> losses = [optimizer.step(lambda: (a * a + b * b).sum()).item() for _ in range(60)]
        >>> losses[-1] < 0.1 * losses[0]
        True
    """
    blocks = [list(block) for block in blocks]
    base = SGD([p for block in blocks for p in block], lr=lr, weight_decay=weight_decay, **options)
    return ZerothOrder(base, _estimator(epsilon), blocks=blocks, seed=seed)


def forward_gradient(
    model: torch.nn.Module,
    *,
    lr: Any = 1e-6,
    weight_decay: float = 0.0,
    queries: int = 1,
    seed: int = 0,
    **options: Any,
) -> ZerothOrder:
    """SGD on forward gradients: the exact slope along a direction from one pass of forward-mode differentiation.

    W ← (1−ηλ) W − η (∇L·z) z.  The closure must run ``model``, with attention that has a forward derivative
    (``attn_implementation="eager"`` in transformers).

    State: none; one number, the step.  During the pass z exists beside the parameters.

    Args:
        model: whose trainable parameters are stepped.
        lr: η >= 0.
        weight_decay: λ >= 0.
        queries: directions averaged per step, >= 1.
        seed: of the directions, in [0, 2⁶⁴).
        options: see :class:`~gramcore.optim.FusedOptimizer`.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: the random stream.

    Reference: Zhang et al. 2024, arXiv:2402.11592, section 3; Baydin et al. 2022, arXiv:2202.08587.

    Example:
        >>> import torch
        >>> from gramcore.optim import forward_gradient
        >>> layer = torch.nn.Linear(2, 1)
        >>> optimizer = forward_gradient(layer, lr=0.05)
        >>> loss = lambda: (layer(torch.ones(1, 2)) - 3).square().sum()
        >>> losses = [optimizer.step(loss).item() for _ in range(60)]
        >>> losses[-1] < 0.1 * losses[0]
        True
    """
    base = SGD([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=weight_decay, **options)
    return ZerothOrder(base, ForwardGradient(model), queries=queries, seed=seed)
