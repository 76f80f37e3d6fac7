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


def dynamic_map(bits: int, *, signed: bool) -> Array:
    """The dynamic-exponent map of Dettmers et al. 2022: decades 10^-6 … 1, each cut finer than the one before."""
    values = [0.0]
    exponents = bits - 1  # decades
    for i in range(exponents):
        count = 2**i if signed else 2 ** (i + 1)
        bounds = np.linspace(0.1, 1.0, count + 1)
        means = (bounds[:-1] + bounds[1:]) / 2
        scale = 10.0 ** (i - exponents + 1)
        values += [sign * scale * m for m in means for sign in ((1, -1) if signed else (1,))]
    values.append(1.0)
    return np.sort(np.array(values))


SIGNED_4BIT = np.array(
    [
        -0.8875,
        -0.6625,
        -0.4375,
        -0.2125,
        -0.0775,
        -0.0325,
        -0.0055,
        0,
        0.0055,
        0.0325,
        0.0775,
        0.2125,
        0.4375,
        0.6625,
        0.8875,
        1.0,
    ]
)
LINEAR_4BIT = (np.arange(16) + 1) / 16


def requantise(state: dict[str, Array], bits: int) -> None:
    """Store both moments in blocks of low-bit codes and read them back."""
    for name, signed in (("exp_avg", True), ("exp_avg_sq", False)):
        table = dynamic_map(8, signed=signed) if bits == 8 else SIGNED_4BIT if signed else LINEAR_4BIT
        flat = state[name].reshape(-1)
        block = 256 if bits == 8 else 128
        for start in range(0, flat.size, block):
            part = flat[start : start + block]
            scale = np.abs(part).max()
            codes = np.abs(part[:, None] / (scale or 1) - table[None, :]).argmin(axis=1)
            part[...] = (table[codes] * scale).astype(part.dtype)


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


#: Twins too slow for 100 steps.
SLOW: frozenset[str] = frozenset()
