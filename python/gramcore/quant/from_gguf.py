"""Tensors of GGUF files as packed weights, codes and scales exactly as stored."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from gramcore.quant.gguf import GgufTensor
from gramcore.quant.packed import PackedTensor
from gramcore.quant.table import SixBitTensor

__all__ = ["packed_from_gguf"]


def packed_from_gguf(
    tensor: GgufTensor, rows: npt.NDArray[np.int64] | None = None
) -> PackedTensor | SixBitTensor | None:
    """The packed form of a quantised matrix of a GGUF file, or None for floating-point formats.

    Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 keep their fp16 scales; scales and minima of Q4_K, Q5_K and Q6_K are products of two
    stored numbers and are kept as exact fp32 (6, 7 and 8 bits per weight).

    Args:
        tensor: a two-dimensional tensor of the file.
        rows: order in which to take its rows; None keeps theirs.

    Raises:
        ValueError: the tensor is not a matrix, or a scale is not finite.
    """
    if len(tensor.shape) != 2:
        raise ValueError(f"tensor {tensor.name!r} must be a matrix, got shape {tensor.shape}")
    if tensor.type.groups is None:
        return None
    g = tensor.type.groups(tensor.data)
    n, k = tensor.shape
    size = g.codes.shape[1]
    order = slice(None) if rows is None else rows
    values = [v if v is None else v.reshape(n, k // size)[order].astype(np.float32) for v in (g.scales, g.mins)]
    if any(v is not None and not np.isfinite(v).all() for v in values):
        raise ValueError(f"scales of tensor {tensor.name!r} must be finite; the file is corrupt")
    codes = np.ascontiguousarray(g.codes.reshape(n, k)[order])
    scales, mins = (None if v is None else torch.from_numpy(np.ascontiguousarray(v)) for v in values)
    assert scales is not None
    if size == 16:
        return SixBitTensor.pack(torch.from_numpy(codes), scales)
    exact = g.scales.dtype == np.float32
    return PackedTensor.pack(
        torch.from_numpy(codes), scales, mins, bits=g.bits, group_size=32, zero=g.zero, exact_scales=exact
    )
