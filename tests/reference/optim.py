"""Slow, obvious twins of the optimizers, from the papers: one function per rule, on NumPy arrays of any float type.

``step(p, g, state, t, **numbers)`` returns the new parameter and changes ``state`` (a dict of arrays) in place.
The arrays' dtype decides the precision: float64 is the oracle, float32 the naive twin of the same type.
"""

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


def philox(seed: int, lo: int, hi: int) -> list[int]:
    """Philox4x32-10 (Salmon et al. 2011) with Python integers."""
    mask = 0xFFFFFFFF
    c = [lo & mask, lo >> 32, hi & mask, hi >> 32]
    k0, k1 = seed & mask, seed >> 32
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & mask, (p0 >> 32) ^ c[3] ^ k1, p0 & mask]
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return c


def rounding_bits(seed: int, step: int, tensor: int, element: int, field: int) -> int:
    """The 16 bits that round one field (0 parameter, 1 and 2 moments) of one element."""
    word = philox(seed, element // 4, tensor << 32 | step)[element % 4]
    return (word & 0xFFFF, (word * 0x9E3779B1 & 0xFFFFFFFF) >> 16, word >> 16)[field]


def bf16_stochastic(x: Array, noise: Array) -> Array:
    """float32 values rounded to bf16 (as float32): up with probability (low 16 bits of x) / 2^16."""
    u = x.astype(np.float32).view(np.uint32)
    return ((u + noise.astype(np.uint32)) & np.uint32(0xFFFF0000)).view(np.float32)
