"""Bipolar integers: odd, symmetric values without a zero, from bit planes of -1 and +1."""

from __future__ import annotations

import torch

from gramcore._checks import check_int
from gramcore.quant.base import Codec, check_weight
from gramcore.quant.integer import grouped, needs_exact
from gramcore.quant.packed import PackedTensor

__all__ = ["BipolarInt"]


class BipolarInt(Codec):
    """Codes whose bits count as -1 or +1: ``w = s sum_i 2^i (2 b_i - 1)``, the odd numbers ``-(2^b - 1) .. 2^b - 1``.

    ``s`` is the group's largest magnitude over ``2^b - 1``; for one bit, where only signs are left, it is the mean
    magnitude, which has the least squared error.  Codes are the nearest odd numbers.  With ``c`` the unsigned code,
    ``sum_i 2^i (2 b_i - 1) = 2 c - (2^b - 1)``: the value ``2 s (c - 2^(b-1)) + s`` runs in the kernels of other codes
    with a minimum, and one bit needs none.

    Cost: one pass over the weight.  Storage: ``bits + 32 / group_size`` bits per weight; ``1 + 16 / group_size`` for
    one bit.

    Args:
        bits: 1 to 8.
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
        if group_size not in (32, 64, 128):
            raise ValueError(f"group_size must be 32, 64 or 128, got {group_size!r}")
        self.bits = check_int("bits", bits, low=1, high=8)
        self.group_size = group_size

    def quantize(self, weight: torch.Tensor, inputs: torch.Tensor | None = None) -> PackedTensor:
        """Quantise ``weight`` ``(N, K)``; ``inputs`` are not used."""
        w = check_weight(weight)
        groups, top = grouped(w, self.group_size), (1 << self.bits) - 1
        step = groups.abs().amax(2) / top if self.bits > 1 else _mean_magnitude(w, self.group_size)
        exact = needs_exact(groups, step)
        step = step if exact else step.half().float()
        safe = torch.where(step == 0, 1.0, step).unsqueeze(2)
        odd = torch.round((groups / safe + top) / 2).clamp_(0, top) if self.bits > 1 else groups >= 0
        codes = odd.to(torch.uint8)
        return PackedTensor.pack(
            codes.reshape(w.shape[0], -1)[:, : w.shape[1]],
            step if self.bits == 1 else 2 * step,
            None if self.bits == 1 else step,
            bits=self.bits,
            group_size=self.group_size,
            zero=max(1, (top + 1) // 2),
            exact_scales=exact,
        )


def _mean_magnitude(w: torch.Tensor, group: int) -> torch.Tensor:
    """Mean of ``|w|`` over the columns each group really has."""
    k = w.shape[1]
    sums = torch.nn.functional.pad(w.abs(), (0, -k % group)).reshape(w.shape[0], -1, group).sum(2)
    sizes = torch.full((sums.shape[1],), float(group))
    sizes[-1] = k - group * (sums.shape[1] - 1)
    return sums / sizes
