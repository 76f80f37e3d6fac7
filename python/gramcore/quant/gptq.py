"""GPTQ: integer codes whose rounding errors are made up for by the columns not yet rounded."""

from __future__ import annotations

import torch

from gramcore._checks import check_int, check_real
from gramcore.quant.base import Codec, check_inputs, check_weight
from gramcore.quant.hessian import inverse_factor
from gramcore.quant.integer import check_format, grouped, round_groups
from gramcore.quant.packed import PackedTensor

__all__ = ["GPTQ"]

_BATCH = 64  # columns whose errors reach the columns after them together


class GPTQ(Codec):
    """Integer codes chosen column by column for least output error ``|| X (W - Q)^T ||`` on sample inputs X.

    With ``H = X^T X`` and ``U`` the upper Cholesky factor of its damped inverse, columns are rounded in the order of
    falling ``H[c, c]``; the error of column c moves every later column d by ``-(w_c - q_c) U[c, d] / U[c, c]``, the
    least-squares answer.  Scales and minima per group are fixed before, by a search for the ranges of least error
    weighted by ``diag H``, so the packed form is that of :class:`IntCodec` and so are the kernels.

    Cost: one Cholesky factorisation ``O(K^3)``, ``O(N K^2)`` for the errors, ``search`` passes over the weight.
    Storage: as for :class:`IntCodec`; 4.5 bits per weight by default.

    Args:
        bits: 2 to 8.
        group_size: 32, 64 or 128 columns; None for one group per row.
        symmetric: whether groups have no minimum.
        search: number of shrunk ranges tried per group, ``>= 0``.
        damping: in (0, 1]: added to the diagonal of H as a share of its mean.

    Shapes:
        weight ``(N, K)``; inputs ``(T, K)``.

    Raises:
        ValueError: an argument outside its set; inputs missing or of the wrong width; a weight that is not a finite
            matrix.
        TypeError: a weight that is not floating point.

    Differs from paper: ranges of groups are fixed from the original weight instead of when their first column is
        reached, which lets columns go in any order; the order by ``diag H`` is that of the authors' later code.

    Reference: Frantar et al. 2022, arXiv:2210.17323, Alg. 1.

    Example:
        >>> import torch
        >>> from gramcore.quant import GPTQ
        >>> w, x = torch.randn(8, 128), torch.randn(256, 128)
        >>> GPTQ().quantize(w, x).bits_per_weight()  # 16 rows are stored for 8
        9.0
    """

    needs_inputs = True

    def __init__(
        self,
        *,
        bits: int = 4,
        group_size: int | None = 64,
        symmetric: bool = False,
        search: int = 20,
        damping: float = 0.01,
    ) -> None:
        check_format(bits, group_size, symmetric)
        self.bits, self.group_size, self.symmetric = bits, group_size, bool(symmetric)
        self.search = check_int("search", search, low=0, high=1000)
        self.damping = check_real("damping", damping, low=0.0, high=1.0, low_open=True)

    def quantize(self, weight: torch.Tensor, inputs: torch.Tensor | None = None) -> PackedTensor:
        """Quantise ``weight`` ``(N, K)`` for the inputs ``(T, K)`` it will see."""
        w = check_weight(weight)
        n, k = w.shape
        x = check_inputs(inputs, k).double()
        h = x.T @ x
        group = self.group_size or -(-k // 32) * 32
        importance = torch.nn.functional.pad(h.diagonal().float(), (0, -k % group)).reshape(-1, group)
        _, scales, mins, exact = round_groups(grouped(w, group), self.bits, self.symmetric, self.search, importance)
        zero = 1 << (self.bits - 1) if self.symmetric else 0
        order = h.diagonal().argsort(descending=True, stable=True)
        of = order // group
        codes = torch.empty(n, k, dtype=torch.uint8)
        codes[:, order] = _compensated(
            w[:, order],
            inverse_factor(h[order][:, order], self.damping),
            scales[:, of],
            torch.zeros(n, k) if mins is None else mins[:, of],
            zero,
            (1 << self.bits) - 1,
        )
        return PackedTensor.pack(codes, scales, mins, bits=self.bits, group_size=group, zero=zero, exact_scales=exact)


def _compensated(
    w: torch.Tensor, upper: torch.Tensor, scales: torch.Tensor, mins: torch.Tensor, zero: int, top: int
) -> torch.Tensor:
    """Codes ``(N, K)`` of columns rounded in order, with scales and minima ``(N, K)`` per element; ``w`` is used up."""
    n, k = w.shape
    inverse = torch.where(scales == 0, 0.0, 1 / scales)
    codes = torch.empty(n, k, dtype=torch.uint8)
    for first in range(0, k, _BATCH):
        last = min(k, first + _BATCH)
        errors = torch.empty(n, last - first)
        for c in range(first, last):
            q = torch.round((w[:, c] - mins[:, c]) * inverse[:, c] + zero).clamp_(0, top)
            error = (w[:, c] - (q - zero) * scales[:, c] - mins[:, c]) / upper[c, c]
            w[:, c + 1 : last] -= error.unsqueeze(1) * upper[c, c + 1 : last]
            codes[:, c], errors[:, c - first] = q.to(torch.uint8), error
        w[:, last:] -= errors @ upper[first:last, last:]
    return codes
