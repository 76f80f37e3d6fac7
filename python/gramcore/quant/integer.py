"""Round-to-nearest integer codes, symmetric or with a minimum, per group or per row."""

from __future__ import annotations

import torch

from gramcore._checks import check_int
from gramcore.quant.base import Codec, check_weight
from gramcore.quant.packed import PackedTensor

__all__ = ["IntCodec", "check_format", "grouped", "needs_exact", "round_groups"]

_BITS = range(2, 9)
_GROUPS = (32, 64, 128)
_Rounded = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]  # codes, scales, minima, squared errors
# fp16 scales between these keep their 11 bits; a matrix outside is packed with fp32 scales.
_HALF_MIN, _HALF_MAX = 2.0**-10, 6e4


class IntCodec(Codec):
    """Integer codes of 2 to 8 bits with one scale per group of columns.

    Symmetric: ``w = s (q - 2^(b-1))``, where ``s`` maps the largest magnitude of the group to the code 0, which has
    the longer side of the range.  Asymmetric: ``w = s q + m`` with ``m`` the smallest and ``m + s (2^b - 1)`` the
    largest value.  With ``search > 0`` that many shrunk ranges are tried per group and the one of least squared error
    kept.  A group of zeros gets scale 0.  Rounding error per weight: at most ``s / 2`` without search.

    Cost: one pass over the weight per candidate range.  Storage: ``bits + 16 / group_size`` bits per weight
    (``+ 32 / group_size`` with minima), columns padded to whole groups.

    Args:
        bits: 2 to 8.
        group_size: 32, 64 or 128 columns; None for one group per row.
        symmetric: whether groups have no minimum.
        search: number of candidate ranges, ``>= 0``.

    Shapes:
        weight ``(N, K)`` of any floating-point dtype.

    Raises:
        ValueError: an argument outside its set; a weight that is not a finite matrix.
        TypeError: a weight that is not floating point.

    Differs from paper: none; the standard technique, see Krishnamoorthi 2018, arXiv:1806.08342, section 2.

    Example:
        >>> import torch
        >>> from gramcore.quant import IntCodec
        >>> q = IntCodec(bits=8, group_size=None).quantize(torch.tensor([[-1.0, 0.25, 0.5]]))
        >>> (q.dequantize() * 128).round().tolist()
        [[-128.0, 32.0, 64.0]]
    """

    def __init__(self, *, bits: int = 4, group_size: int | None = 32, symmetric: bool = True, search: int = 0) -> None:
        check_format(bits, group_size, symmetric)
        self.bits = bits
        self.group_size = group_size
        self.symmetric = bool(symmetric)
        self.search = check_int("search", search, low=0, high=1000)

    def quantize(self, weight: torch.Tensor, inputs: torch.Tensor | None = None) -> PackedTensor:
        """Quantise ``weight`` ``(N, K)``; ``inputs`` are not used."""
        w = check_weight(weight)
        group = self.group_size or -(-w.shape[1] // 32) * 32
        codes, scales, mins, exact = round_groups(grouped(w, group), self.bits, self.symmetric, self.search)
        zero = 128 if self.bits == 8 else (1 << (self.bits - 1) if self.symmetric else 0)
        return PackedTensor.pack(
            codes.reshape(w.shape[0], -1)[:, : w.shape[1]],
            scales,
            mins,
            bits=self.bits,
            group_size=group,
            zero=zero,
            exact_scales=exact,
        )


def check_format(bits: int, group_size: int | None, symmetric: bool) -> None:
    """What integer codecs accept.

    Raises:
        ValueError: an argument outside its set.
    """
    if bits not in _BITS:
        raise ValueError(f"bits must be one of {', '.join(map(str, _BITS))}, got {bits!r}")
    if group_size is not None and group_size not in _GROUPS:
        raise ValueError(f"group_size must be 32, 64, 128 or None (one group per row), got {group_size!r}")
    if bits == 8 and not symmetric:
        raise ValueError("symmetric must be True for 8 bits, got False; minima gain nothing there")


def grouped(w: torch.Tensor, group: int) -> torch.Tensor:
    """``(N, K)`` -> ``(N, ceil(K / group), group)``; the last group is filled up with its row's last value."""
    n, k = w.shape
    missing = -k % group
    if missing:
        w = torch.cat([w, w[:, -1:].expand(n, missing)], dim=1)
    return w.reshape(n, -1, group)


def round_groups(
    w: torch.Tensor, bits: int, symmetric: bool, search: int, importance: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, bool]:
    """``(codes, scales, mins or None, whether fp32 scales are needed)`` of grouped weights ``(N, G, g)``.

    ``importance`` ``(G, g)`` weighs the squared errors that a search compares.
    """
    best = _round(w, bits, symmetric, 1.0, importance)
    for i in range(search):
        candidate = _round(w, bits, symmetric, 1.0 - 0.5 * (i + 1) / search, importance)
        better = candidate[3] < best[3]
        best = _pick(better, candidate, best)
    codes, scales, mins, _ = best
    return codes, scales, None if symmetric else mins, needs_exact(w, scales)


def _pick(better: torch.Tensor, new: _Rounded, old: _Rounded) -> _Rounded:
    rows = [torch.where(better, a, b) for a, b in zip(new[1:], old[1:], strict=True)]
    return torch.where(better.unsqueeze(-1), new[0], old[0]), rows[0], rows[1], rows[2]


def needs_exact(w: torch.Tensor, scales: torch.Tensor) -> bool:
    """Whether fp16 cannot hold these scales well."""
    top = float(scales.abs().max())
    return top != 0 and (top < _HALF_MIN or max(top, float(w.abs().max())) > _HALF_MAX)


def _round(w: torch.Tensor, bits: int, symmetric: bool, shrink: float, importance: torch.Tensor | None) -> _Rounded:
    """Codes, scales, minima (zeros when symmetric) and squared errors for ranges shrunk by a factor."""
    levels, half = (1 << bits) - 1, 1 << (bits - 1)
    if symmetric:
        largest = w.gather(2, w.abs().argmax(2, keepdim=True))[..., 0] * shrink
        scales, mins, zero = -largest / half, torch.zeros_like(largest), half
    else:
        low, high = w.amin(2), w.amax(2)
        centre = (low + high) / 2
        scales, mins, zero = (high - low) * (shrink / levels), centre + (low - centre) * shrink, 0
    if not needs_exact(w, scales):
        scales, mins = scales.half().float(), mins.half().float()
    scales = torch.where(scales.abs() < 2.0**-120, 0.0, scales)
    inverse = torch.where(scales == 0, 0.0, 1 / scales).unsqueeze(-1)
    q = torch.round((w - mins.unsqueeze(-1)) * inverse + zero).clamp_(0, levels)
    error = ((q - zero) * scales.unsqueeze(-1) + mins.unsqueeze(-1) - w).square()
    return q.to(torch.uint8), scales, mins, (error if importance is None else error * importance).sum(2)
