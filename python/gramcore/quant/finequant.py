"""FineQuant: group sizes chosen per matrix, data-free."""

from __future__ import annotations

import torch

from gramcore._checks import check_real
from gramcore.quant.base import Codec, check_weight
from gramcore.quant.integer import IntCodec, grouped
from gramcore.quant.packed import PackedTensor

__all__ = ["FineQuant"]


class FineQuant(Codec):
    """Integer codes whose group size adapts to the matrix.

    Starting from one group per row, the group is cut (to 128, then 64, then 32 columns) as long as the mean range of
    groups, ``mean_g max |w_g|``, keeps shrinking by more than the factor ``alpha``: matrices with outliers get fine
    groups, smooth ones keep few scales.

    Cost: one pass over the weight per group size.  Storage: ``bits + 16 / group`` bits per weight.

    Args:
        bits: 4 or 8.
        alpha: in (0, 1): a finer group must bring the range below ``(1 - alpha)`` times the coarser one's.
        symmetric: whether groups have no minimum; must be True for 8 bits.

    Shapes:
        weight ``(N, K)`` of any floating-point dtype.

    Raises:
        ValueError: an argument outside its set; a weight that is not a finite matrix.
        TypeError: a weight that is not floating point.

    Differs from paper: group sizes are those the kernels know (row, 128, 64, 32), not every halving of a row.

    Reference: Kim et al. 2023, arXiv:2308.09723, section 3.2.

    Example:
        >>> import torch
        >>> from gramcore.quant import FineQuant
        >>> smooth, spiky = torch.ones(4, 256), torch.ones(4, 256)
        >>> spiky[:, 0] = 50.0
        >>> [FineQuant().quantize(w).group_size for w in (smooth, spiky)]
        [256, 32]
    """

    def __init__(self, *, bits: int = 4, alpha: float = 0.05, symmetric: bool = True) -> None:
        if bits not in (4, 8):
            raise ValueError(f"bits must be 4 or 8, got {bits!r}")
        self.bits = bits
        self.alpha = check_real("alpha", alpha, low=0.0, high=1.0, low_open=True, high_open=True)
        self.symmetric = IntCodec(bits=bits, symmetric=symmetric).symmetric

    def group_size(self, weight: torch.Tensor) -> int | None:
        """The group size chosen for ``weight``; None for one group per row."""
        w = check_weight(weight)
        chosen, best = None, float(w.abs().amax(1).mean())
        for group in (128, 64, 32):
            if group >= w.shape[1]:
                continue
            spread = float(grouped(w, group).abs().amax(2).mean())
            if spread >= (1 - self.alpha) * best:
                break
            chosen, best = group, spread
        return chosen

    def quantize(self, weight: torch.Tensor, inputs: torch.Tensor | None = None) -> PackedTensor:
        """Quantise ``weight`` ``(N, K)``; ``inputs`` are not used."""
        codec = IntCodec(bits=self.bits, group_size=self.group_size(weight), symmetric=self.symmetric)
        return codec.quantize(weight)
