"""Bipolar integers: odd, symmetric values without a zero, from bit planes of -1 and +1."""

from __future__ import annotations

import torch

from gramcore.quant.base import Codec, check_weight
from gramcore.quant.integer import grouped, needs_exact
from gramcore.quant.packed import PackedTensor

__all__ = ["BipolarInt"]


class BipolarInt(Codec):
    """Codes whose bits count as -1 or +1: ``w = s sum_i 2^i (2 b_i - 1)``, the odd numbers ``-(2^b - 1) .. 2^b - 1``.

    ``s`` is the group's largest magnitude over ``2^b - 1``; codes are the nearest odd numbers.  As
    ``sum_i 2^i (2 b_i - 1) = 2 c - (2^b - 1)`` with ``c`` the unsigned code, the value is ``2 s c - s (2^b - 1)`` and
    runs in the same kernels as other codes with a minimum.

    Cost: one pass over the weight.  Storage: ``bits + 32 / group_size`` bits per weight.

    Args:
        bits: 2, 3 or 4.
        group_size: 32, 64 or 128.

    Shapes:
        weight ``(N, K)`` of any floating-point dtype.

    Raises:
        ValueError: an argument outside its set; a weight that is not a finite matrix.
        TypeError: a weight that is not floating point.

    Differs from paper: weights only, with activations int8 or fp32; byte dot products instead of bit-plane popcounts.

    Reference: Fang et al. 2024, arXiv:2409.17870, section 3.1.

    Example:
        >>> import torch
        >>> from gramcore.quant import BipolarInt
        >>> q = BipolarInt(bits=2).quantize(torch.tensor([[3.0, 0.9, -1.2, -2.5]]))
        >>> q.dequantize().tolist()
        [[3.0, 1.0, -1.0, -3.0]]
    """

    def __init__(self, *, bits: int = 3, group_size: int = 32) -> None:
        if bits not in (2, 3, 4):
            raise ValueError(f"bits must be 2, 3 or 4, got {bits!r}")
        if group_size not in (32, 64, 128):
            raise ValueError(f"group_size must be 32, 64 or 128, got {group_size!r}")
        self.bits = bits
        self.group_size = group_size

    def quantize(self, weight: torch.Tensor, inputs: torch.Tensor | None = None) -> PackedTensor:
        """Quantise ``weight`` ``(N, K)``; ``inputs`` are not used."""
        w = check_weight(weight)
        groups, top = grouped(w, self.group_size), (1 << self.bits) - 1
        step = groups.abs().amax(2) / top
        exact = needs_exact(groups, step)
        # 2 s and top * s must both be what is stored: round s so that the products need no rounding of their own.
        step = step if exact else _few_bits(step, 11 - self.bits)
        safe = torch.where(step == 0, 1.0, step).unsqueeze(2)
        codes = torch.round((groups / safe + top) / 2).clamp_(0, top)
        return PackedTensor.pack(
            codes.reshape(w.shape[0], -1)[:, : w.shape[1]].to(torch.uint8),
            2 * step,
            -top * step,
            bits=self.bits,
            group_size=self.group_size,
            zero=0,
            exact_scales=exact,
        )


def _few_bits(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Round to ``bits`` significant bits, so that small integer multiples are exact in fp16."""
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp(torch.round(mantissa * 2.0**bits) / 2.0**bits, exponent)
