"""Slow twins of the CUDA kernels, from their definitions."""

from __future__ import annotations

from dataclasses import dataclass

import gramcore._core as _core
import numpy as np
import numpy.typing as npt


def apply_bitmask(logits: np.ndarray, bitmask: np.ndarray, rows: list[int]) -> np.ndarray:
    """logits with -inf where bit t % 32 of word t // 32 is 0, in the given rows; float32."""
    out = logits.copy()
    for r in rows:
        for t in range(logits.shape[1]):
            if not int(bitmask[r, t // 32]) >> (t % 32) & 1:
                out[r, t] = -np.inf
    return out


@dataclass
class AdamwHyper:
    """Hyper-parameters of one step, named as in the paper and torch."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    maximize: bool = False


Array = npt.NDArray[np.float64]


def adamw(p: Array, g: Array, m: Array, v: Array, step: int, h: AdamwHyper) -> tuple[Array, Array, Array]:
    """Loshchilov and Hutter 2019, Alg. 2, in float64: new parameter and moments."""
    if h.maximize:
        g = -g
    p = p - h.lr * h.weight_decay * p
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * g * g
    m_hat = m / (1 - h.beta1**step)
    v_hat = v / (1 - h.beta2**step)
    return p - h.lr * m_hat / (np.sqrt(v_hat) + h.eps), m, v


def rounding_noise(seed: int, step: int, tensor: int, numel: int, field: int) -> npt.NDArray[np.uint32]:
    """The 16 random bits of each element: a mix of its place in a run of 32768 and the run's Philox key.

    Field 0, the parameter, takes the low half; 2 the high half; 1 the high half of the word times an odd constant.
    """
    bits = []
    for e in range(numel):
        a, b, _, _ = _core.philox4x32(seed, e // 32768, tensor << 32 | step)
        w = e % 32768 * 0x9E3779B1 + a & 0xFFFFFFFF
        w = (w ^ w >> 16) * 0x85EBCA6B & 0xFFFFFFFF
        w = (w ^ w >> 13 ^ b) * 0xC2B2AE35 & 0xFFFFFFFF
        w ^= w >> 16
        bits.append((w & 0xFFFF, (w * 0x9E3779B1 & 0xFFFFFFFF) >> 16, w >> 16)[field])
    return np.array(bits, dtype=np.uint32)


def stochastic_bf16_bits(x: npt.NDArray[np.float32], noise: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint16]:
    """Adds the noise below the kept bits and truncates; for finite values below the largest bfloat16."""
    return ((x.view(np.uint32) + noise) >> 16).astype(np.uint16)


def round_blocks(x: npt.NDArray[np.float32]) -> Array:
    """x with every block of 32 columns rounded to multiples of its largest magnitude / 127, for finite values."""
    out = np.zeros(x.shape)
    for row in range(x.shape[0]):
        for begin in range(0, x.shape[1], 32):
            block = x[row, begin : begin + 32]
            largest = np.abs(block).max()
            if largest >= 1e-30:
                codes = np.rint(block * np.float32(np.float32(127) / largest))
                out[row, begin : begin + 32] = codes.astype(np.float64) * np.float64(largest / np.float32(127))
    return out
