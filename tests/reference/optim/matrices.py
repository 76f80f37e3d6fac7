"""Twins of the rules with factored, block-wise and Kronecker-factored statistics."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.optim.codes import requantise
from tests.reference.optim.rules import adamw

Array = np.ndarray[Any, Any]


def mkor_factor(factor: Array, x: Array, decay: float) -> Array:
    """Mozaffari et al. 2023: the averaged factor itself; its inverse is what the optimizer keeps."""
    return decay * factor + (1 - decay) * np.outer(x, x)


def _second_moment(g: Array, state: dict[str, Array], beta: float, eps: float, key: str = "second") -> Array:
    """Full second moment (one axis), or its rank-1 estimate from row and column means over the last two axes."""
    f = g.dtype.type
    if g.ndim < 2:
        v = state.setdefault(key, np.zeros_like(g))
        v[...] = f(beta) * v + f(1 - beta) * (g * g + f(eps))
        return v
    return _factored(g * g + f(eps), state, beta, key)


def _factored(x: Array, state: dict[str, Array], beta: float, key: str) -> Array:
    f = x.dtype.type
    row = state.setdefault(key + "r", np.zeros(x.shape[:-1], x.dtype))
    col = state.setdefault(key + "c", np.zeros(x.shape[:-2] + x.shape[-1:], x.dtype))
    row[...] = f(beta) * row + f(1 - beta) * x.mean(-1)
    col[...] = f(beta) * col + f(1 - beta) * x.mean(-2)
    return (row / row.mean(-1, keepdims=True))[..., :, None] * col[..., None, :]


def _rms(x: Array) -> Array:
    return np.sqrt(np.mean(x * x))


def adafactor(p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, relative_step: bool = True) -> Array:
    """Shazeer and Stern 2018, Alg. 4 and 5, without a first moment; AdaLomo's rule without the relative step."""
    f = p.dtype.type
    u = g / np.sqrt(_second_moment(g, state, 1 - t**-0.8, 1e-30))
    u = u / max(f(1), _rms(u))
    rho = min(lr, t**-0.5) if relative_step else lr
    return p - f(rho) * max(f(1e-3), _rms(p)) * u


def came(p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float) -> Array:
    """Luo et al. 2023, Alg. 2."""
    f = p.dtype.type
    u = g / np.sqrt(_second_moment(g, state, 0.999, 1e-30))
    u = u / max(f(1), _rms(u))
    m = state.setdefault("exp_avg", np.zeros_like(p))
    m[...] = f(0.9) * m + f(1 - 0.9) * u
    if p.ndim < 2:
        return p - f(lr) * m
    return p - f(lr) * m / np.sqrt(_factored((u - m) ** 2 + f(1e-16), state, 0.9999, "instability"))


def factor_4bit(p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, quantise: bool = True) -> Array:
    """Li et al. 2023, 4-bit Factor, with epsilon^2 added to g^2; m is quantised after the step."""
    f = p.dtype.type
    m = state.setdefault("exp_avg", np.zeros_like(p))
    m[...] = f(0.9) * m + f(1 - 0.9) * g
    v = _second_moment(g, state, 0.999, 1e-16) / f(1 - 0.999**t)
    p = p * f(1 - lr * 0.01) - f(lr) * (m / f(1 - 0.9**t)) / np.sqrt(v)
    if quantise and p.size >= 4096:
        held = {"exp_avg": m, "exp_avg_sq": np.zeros_like(m)}
        requantise(held, 4)
        m[...] = held["exp_avg"]
    return p


def adam_mini(p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float) -> Array:
    """Zhang et al. 2024, Alg. 1, one block per row."""
    f = p.dtype.type
    m = state.setdefault("exp_avg", np.zeros_like(p))
    m[...] = f(0.9) * m + f(1 - 0.9) * g
    axes = tuple(range(1, p.ndim))
    v = state.setdefault("v", np.zeros((p.shape[0],) + (1,) * (p.ndim - 1), p.dtype))
    v[...] = f(0.999) * v + f(1 - 0.999) * np.mean(g * g, axis=axes, keepdims=True)
    return p - f(lr) * (m / f(1 - 0.9**t)) / (np.sqrt(v / f(1 - 0.999**t)) + f(1e-8))


def cosmos(p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, rank: int) -> Array:
    """Liu et al. 2025, Alg. 1, with unit-RMS normalisation and a factor 0.1 for matrices."""
    f = p.dtype.type
    if p.ndim != 2 or min(p.shape) <= rank:
        return adamw(p, g, state, t, lr=lr, weight_decay=0.0)
    b1, b2 = f(0.9), f(0.999)
    m = state.setdefault("m", np.zeros_like(p))
    m[...] = b1 * m + (1 - b1) * g
    gram = g.T @ g
    if t == 1:
        u = np.linalg.svd(g, full_matrices=False)[2][:rank].T
        state["s"] = (1 - b2) * (u.T @ gram @ u)
    else:
        old, s = state["u"], state["s"]
        u = np.linalg.qr(b2 * (old @ s) + (1 - b2) * (gram @ old))[0]
        state["s"] = u.T @ (b2 * (old @ s @ old.T) + (1 - b2) * gram) @ u
    state["u"] = u
    v = state.setdefault("v", np.zeros((p.shape[0], rank), p.dtype))
    v[...] = b2 * v + (1 - b2) * (g @ u) ** 2
    a = ((m @ u) / f(1 - 0.9**t) / (np.sqrt(v / f(1 - 0.999**t)) + f(1e-8))) @ u.T
    x = m - m @ u @ u.T
    x = x / (np.sqrt((x * x).sum()) + f(1e-7))
    x = x.T if p.shape[0] > p.shape[1] else x  # the iteration commutes with it
    for _ in range(5):
        square = x @ x.T
        x = f(3.4445) * x + (f(-4.7750) * square + f(2.0315) * square @ square) @ x
    x = x.T if p.shape[0] > p.shape[1] else x
    total = a + f(0.2) * x / _rms(x)
    return p - f(lr * 0.1) * total / _rms(total)
