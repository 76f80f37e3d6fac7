"""Storage formats of GGUF tensors: how their bytes decode to integer codes, scales and minima, without loss.

Every quantised format here is ``w = scale * (code - zero) + minimum`` with one scale (and minimum) per group of
consecutive elements of a row.  :meth:`BlockType.groups` returns exactly those numbers, so a repack keeps them; nothing
is dequantised and quantised again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK_TYPES", "OTHER_TYPES", "BlockType", "Groups"]

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Groups:
    """Codes of consecutive elements: ``w[i, j] = scales[i] * (codes[i, j] - zero) + mins[i]``.

    Attributes:
        codes: ``(num_groups, group_size)`` unsigned codes.
        scales: ``(num_groups,)`` float16 when the format stores them so, else float32 (exact products).
        mins: ``(num_groups,)`` in the type of ``scales``, or None for formats without minima.
        zero: code of the value zero of formats without minima.
        bits: bits of a code.
    """

    codes: U8
    scales: npt.NDArray[np.floating]
    mins: npt.NDArray[np.floating] | None
    zero: int
    bits: int

    def dequantize(self) -> F32:
        """fp32 values, ``(num_groups, group_size)``."""
        q = self.codes.astype(np.float32) - np.float32(self.zero)
        w = self.scales.astype(np.float32)[:, None] * q
        return w if self.mins is None else w + self.mins.astype(np.float32)[:, None]


@dataclass(frozen=True)
class BlockType:
    """One storage format: ``block_len`` elements in ``block_bytes`` bytes.

    Attributes:
        name: the format's name in GGUF.
        code: its number in GGUF.
        groups: decoder to codes and scales; None for plain floating-point formats.
    """

    name: str
    code: int
    block_len: int
    block_bytes: int
    groups: Callable[[U8], Groups] | None
    plain: Callable[[U8], F32] | None = None

    def dequantize(self, data: U8) -> F32:
        """All elements of ``data`` as a flat fp32 array."""
        if self.groups is not None:
            return self.groups(data).dequantize().reshape(-1)
        assert self.plain is not None
        return self.plain(data)


def _halves(x: U8) -> npt.NDArray[np.float16]:
    """Two bytes per row -> float16."""
    return np.ascontiguousarray(x).view(np.float16).reshape(-1)


def _nibbles(qs: U8) -> U8:
    """``(n, b)`` bytes -> ``(n, 2b)``: all low nibbles, then all high ones."""
    return np.concatenate([qs & 15, qs >> 4], axis=1).astype(np.uint8, copy=False)


def _q4_0(data: U8) -> Groups:
    b = data.reshape(-1, 18)
    return Groups(_nibbles(b[:, 2:]), _halves(b[:, :2]), None, 8, 4)


def _q4_1(data: U8) -> Groups:
    b = data.reshape(-1, 20)
    return Groups(_nibbles(b[:, 4:]), _halves(b[:, :2]), _halves(b[:, 2:4]), 0, 4)


def _fifth_bits(qs: U8, qh: U8) -> U8:
    """Nibbles ``(n, 16)`` and the fifth bits of their 32 elements, four bytes per block, lowest bit first."""
    return _nibbles(qs) | (np.unpackbits(qh, axis=1, bitorder="little") << np.uint8(4))


def _q5_0(data: U8) -> Groups:
    b = data.reshape(-1, 22)
    return Groups(_fifth_bits(b[:, 6:], b[:, 2:6]), _halves(b[:, :2]), None, 16, 5)


def _q5_1(data: U8) -> Groups:
    b = data.reshape(-1, 24)
    return Groups(_fifth_bits(b[:, 8:], b[:, 4:8]), _halves(b[:, :2]), _halves(b[:, 2:4]), 0, 5)


def _q8_0(data: U8) -> Groups:
    b = data.reshape(-1, 34)
    return Groups(b[:, 2:] ^ np.uint8(0x80), _halves(b[:, :2]), None, 128, 8)


def _k_scales(b: U8) -> tuple[F32, F32]:
    """Scales and minima of eight groups: d, dmin (f16), then eight 6-bit factors of each in 12 bytes."""
    d, dmin = (_halves(b[:, i : i + 2]).astype(np.float32)[:, None] for i in (0, 2))
    low, mid, high = b[:, 4:8], b[:, 8:12], b[:, 12:16]
    scale = np.concatenate([low & 63, (high & 15) | ((low >> 6) << 4)], axis=1)
    minimum = np.concatenate([mid & 63, (high >> 4) | ((mid >> 6) << 4)], axis=1)
    return (d * scale).reshape(-1), (-(dmin * minimum)).reshape(-1)


def _k_nibbles(qs: U8) -> U8:
    """Bytes 32 i .. 32 i + 31 hold groups 2 i (low) and 2 i + 1 (high): ``(n, 8, 32)``."""
    quarters = qs.reshape(-1, 4, 1, 32)
    return np.concatenate([quarters & 15, quarters >> 4], axis=2).astype(np.uint8).reshape(-1, 8, 32)


def _q4_k(data: U8) -> Groups:
    # 256 elements: scales and minima, then 128 bytes of nibbles.
    b = data.reshape(-1, 144)
    return Groups(_k_nibbles(b[:, 16:]).reshape(-1, 32), *_k_scales(b), 0, 4)


def _q5_k(data: U8) -> Groups:
    # The same with 32 bytes before the nibbles: bit g of byte i is the fifth bit of element i of group g.
    b = data.reshape(-1, 176)
    fifth = (b[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
    return Groups((_k_nibbles(b[:, 48:]) | (fifth << 4)).astype(np.uint8).reshape(-1, 32), *_k_scales(b), 0, 5)


def _q6_k(data: U8) -> Groups:
    # 256 elements: 128 bytes of low nibbles, 64 bytes of high pairs, sixteen int8 scales, d (f16).  Each half of
    # 128 elements has four runs of 32: low nibbles of its two 32-byte parts, then the high ones.
    b = data.reshape(-1, 210)
    ql = b[:, :128].reshape(-1, 2, 1, 64)
    low = np.concatenate([ql & 15, ql >> 4], axis=2).reshape(-1, 2, 4, 32)
    qh = b[:, 128:192].reshape(-1, 2, 1, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    codes: U8 = (low | (((qh >> shifts) & 3) << 4)).astype(np.uint8).reshape(-1, 16)
    scale = np.ascontiguousarray(b[:, 192:208]).view(np.int8).astype(np.float32)
    d = _halves(b[:, 208:210]).astype(np.float32)[:, None]
    return Groups(codes, (d * scale).reshape(-1), None, 32, 6)


def _bf16(data: U8) -> F32:
    return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


#: GGUF type code -> format.
BLOCK_TYPES: dict[int, BlockType] = {
    t.code: t
    for t in (
        BlockType("F32", 0, 1, 4, None, lambda d: d.view(np.float32).copy()),
        BlockType("F16", 1, 1, 2, None, lambda d: d.view(np.float16).astype(np.float32)),
        BlockType("Q4_0", 2, 32, 18, _q4_0),
        BlockType("Q4_1", 3, 32, 20, _q4_1),
        BlockType("Q5_0", 6, 32, 22, _q5_0),
        BlockType("Q5_1", 7, 32, 24, _q5_1),
        BlockType("Q8_0", 8, 32, 34, _q8_0),
        BlockType("Q4_K", 12, 256, 144, _q4_k),
        BlockType("Q5_K", 13, 256, 176, _q5_k),
        BlockType("Q6_K", 14, 256, 210, _q6_k),
        BlockType("BF16", 30, 1, 2, None, _bf16),
    )
}

#: GGUF type code -> name of formats that are not read, for messages.
OTHER_TYPES = {
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
