"""Random bits, roundings and low-bit maps, from their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


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


def rounding_word(seed: int, step: int, tensor: int, element: int) -> int:
    """A mix of the element's place in a run of 32768 and the run's Philox key."""
    a, b, _, _ = philox(seed, element // 32768, tensor << 32 | step)
    word = element % 32768 * 0x9E3779B1 + a & 0xFFFFFFFF
    word = (word ^ word >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    word = (word ^ word >> 13 ^ b) * 0xC2B2AE35 & 0xFFFFFFFF
    return word ^ word >> 16


def rounding_bits(seed: int, step: int, tensor: int, element: int, field: int) -> int:
    """The 16 bits that round one field (0 parameter, 1 and 2 moments) of one element."""
    word = rounding_word(seed, step, tensor, element)
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


def rank1_codes(v: Array) -> tuple[Array, Array, Array]:
    """Li et al. 2023, section 4.2, rank-1/linear: codes, row maxima, column maxima of a matrix >= 0."""
    rows, columns = v.max(axis=1), v.max(axis=0)
    codes = np.zeros(v.shape, np.int64)
    for i in range(v.shape[0]):
        for j in range(v.shape[1]):
            bound = min(rows[i], columns[j])
            codes[i, j] = np.abs(v[i, j] / bound - LINEAR_4BIT).argmin() if bound > 0 else 0
    return codes, rows, columns


def rank1_values(codes: Array, rows: Array, columns: Array) -> Array:
    """What :func:`rank1_codes` stands for."""
    return np.asarray(LINEAR_4BIT[codes] * np.minimum(rows[:, None], columns[None, :]))


def gaussian(seed: int, draw: int, tensor: int, element: int) -> float:
    """Box and Muller on the words of elements i and i + 16 of a run of 32: the direction of a zeroth-order step."""
    low = element // 32 * 32 + element % 16
    first, second = (rounding_word(seed ^ 0x9D39247E33776D41, draw, tensor, e) for e in (low, low + 16))
    radius = np.sqrt(-2 * np.log(((first >> 8) + 0.5) / 2**24))
    angle = 2 * np.pi * second / 2**32
    return float(radius * (np.sin(angle) if element % 32 >= 16 else np.cos(angle)))
