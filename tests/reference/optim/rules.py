"""Twins of the elementwise rules."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def adamw(
    p: Array,
    g: Array,
    state: dict[str, Array],
    t: int,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    maximize: bool = False,
    eps_mode: str = "corrected",
    decay: str = "before",
) -> Array:
    """Loshchilov and Hutter 2019, Alg. 2, with the decay multiplied by lr."""
    f = p.dtype.type
    b1, b2 = betas
    m = state.setdefault("exp_avg", np.zeros_like(p))
    v = state.setdefault("exp_avg_sq", np.zeros_like(p))
    if maximize:
        g = -g
    if decay == "before":
        p = p * f(1 - lr * weight_decay)
    m[...] = f(b1) * m + f(1 - b1) * g
    v[...] = f(b2) * v + f(1 - b2) * g * g
    if eps_mode == "corrected":
        p = p - f(lr) * (m / f(1 - b1**t)) / (np.sqrt(v / f(1 - b2**t)) + f(eps))
    else:
        p = p - f(lr * np.sqrt(1 - b2**t) / (1 - b1**t)) * m / (np.sqrt(v) + f(eps))
    return p if decay == "before" else p - f(lr * weight_decay) * p


def adamw_scale(p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, **numbers: Any) -> Array:
    """nanoT5: AdamW with lr multiplied by the RMS of the weight, at least 10^-3."""
    rms = max(1e-3, float(np.sqrt(np.mean(np.square(p.astype(np.float64))))) if p.size else 1e-3)
    numbers.pop("rms_scale", None)
    return adamw(p, g, state, t, lr=lr * rms, **numbers)


def grams(p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, eps: float = 1e-6) -> Array:
    """Cao et al. 2024, Alg. 1."""
    zero = np.zeros_like(p)
    step = np.abs(adamw(zero, g, state, t, lr=lr, eps=eps, weight_decay=0.0))
    return p - np.sign(g) * step


def lion(
    p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, betas: tuple[float, float] = (0.9, 0.99)
) -> Array:
    """Chen et al. 2023, Alg. 2."""
    f = p.dtype.type
    m = state.setdefault("exp_avg", np.zeros_like(p))
    p = p - f(lr) * np.sign(f(betas[0]) * m + f(1 - betas[0]) * g)
    m[...] = f(betas[1]) * m + f(1 - betas[1]) * g
    return p


def sgd(
    p: Array,
    g: Array,
    state: dict[str, Array],
    t: int,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> Array:
    """torch.optim.SGD's definition."""
    f = p.dtype.type
    g = g + f(weight_decay) * p
    if momentum:
        b = state["b"] = g.copy() if t == 1 else f(momentum) * state["b"] + f(1 - dampening) * g
        g = g + f(momentum) * b if nesterov else b
    return p - f(lr) * g


def sophia(
    p: Array,
    g: Array,
    state: dict[str, Array],
    t: int,
    *,
    lr: float,
    betas: tuple[float, float] = (0.96, 0.99),
    gamma: float = 0.05,
    eps: float = 1e-12,
    weight_decay: float = 0.1,
) -> Array:
    """Liu et al. 2023, Alg. 3, with h given in state (zero before the first estimate)."""
    f = p.dtype.type
    m = state.setdefault("exp_avg", np.zeros_like(p))
    h = state.setdefault("hessian", np.zeros_like(p))
    m[...] = f(betas[0]) * m + f(1 - betas[0]) * g
    return p * f(1 - lr * weight_decay) - f(lr) * np.clip(m / np.maximum(f(gamma) * h, f(eps)), -1, 1)
