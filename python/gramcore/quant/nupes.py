"""Power-exponent codes (PowerQuant / NUPES): a power function before rounding, its inverse after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gramcore._checks import check_int
from gramcore.quant.base import Codec, check_weight
from gramcore.quant.integer import needs_exact
from gramcore.quant.packed import SpecNumbers
from gramcore.quant.table import TableTensor, bfloat, pack_codes

__all__ = ["PowerCodec", "PowerTensor"]

_LOW, _HIGH = 0.2, 1.0
_GOLDEN = 0.6180339887498949


class PowerTensor(TableTensor):
    """``W[n, k] = scale[n, g] * sgn(q) (|q| / top)^(1 / a)`` with ``q`` in ``-top .. top``, values in bfloat16.

    A code has the sign in its highest bit and ``|q|`` in the others.
    """

    kind = "power"
    version = 2

    def __init__(self, packed: torch.Tensor, numbers: SpecNumbers, a: float) -> None:
        if numbers[5]:
            raise ValueError("power codes must have no minima")
        if not _LOW <= a <= _HIGH:
            raise ValueError(f"exponent must be in [{_LOW}, {_HIGH}], got {a}")
        super().__init__(packed, numbers, _table(check_int("bits", numbers[2], low=2, high=8), a))
        self.exponent = a

    def meta(self) -> dict[str, Any]:
        names = ("n", "k", "bits", "group_size", "zero", "has_min", "exact_scales")
        numbers = dict(zip(names, self.numbers, strict=True))
        return {"kind": self.kind, "version": self.version, **numbers, "exponent": self.exponent}

    @classmethod
    def from_buffers(cls, meta: Mapping[str, Any], buffers: Mapping[str, torch.Tensor]) -> PowerTensor:
        n, k, bits, group, zero = (int(meta[name]) for name in ("n", "k", "bits", "group_size", "zero"))
        numbers = (n, k, bits, group, zero, bool(meta["has_min"]), bool(meta["exact_scales"]))
        return cls(buffers["packed"].contiguous(), numbers, float(meta["exponent"]))


class PowerCodec(Codec):
    """Codes of a power of the weight: ``q = round(top sgn(w) (|w| / s)^a)``, ``w ~ s sgn(q) (|q| / top)^(1/a)``.

    ``s`` is the group's largest magnitude, ``top = 2^(b-1) - 1``, and the exponent a in [0.2, 1] of the matrix is the
    one of least squared weight error, found by golden-section search (the error has one minimum): exponents below 1
    give small weights, of which there are many, finer steps.  ``steps > 0`` then refines the group scales by
    alternating least squares: codes for the scale, the best scale for the codes.

    Cost: about 20 passes over the weight for the search and two per step.  Storage: ``bits + 16 / group_size`` bits per
    weight, columns padded to whole groups.  Products look values up while they run and do not round activations.

    Args:
        bits: 2 to 8.
        group_size: 32, 64, 96 or 128 columns per scale; None for one group per row.
        steps: rounds of scale refinement, ``>= 0``.

    Shapes:
        weight ``(N, K)`` of any floating-point dtype.

    Raises:
        ValueError: an argument outside its interval; a weight that is not a finite matrix.
        TypeError: a weight that is not floating point.

    Differs from paper: scales per group instead of per channel; NUPES's gradient descent on codes and exponent is
        replaced by the search and by alternating least squares on the scales.  Values of codes are rounded to
        bfloat16.

    Reference: Yvinec et al. 2023, arXiv:2308.05600, sections 3.1 and 3.2.

    Example:
        >>> import torch
        >>> from gramcore.quant import PowerCodec
        >>> w = torch.randn(16, 128, generator=torch.Generator().manual_seed(0))
        >>> q = PowerCodec(bits=4).quantize(w)
        >>> q.exponent < 1, q.bits_per_weight()
        (True, 4.5)
    """

    def __init__(self, *, bits: int = 4, group_size: int | None = 32, steps: int = 0) -> None:
        self.bits = check_int("bits", bits, low=2, high=8)
        if group_size not in (32, 64, 96, 128, None):
            raise ValueError(f"group_size must be 32, 64, 96, 128 or None (one group per row), got {group_size!r}")
        self.group_size = group_size
        self.steps = check_int("steps", steps, low=0, high=1000)

    def quantize(self, weight: torch.Tensor, inputs: torch.Tensor | None = None) -> PowerTensor:
        """Quantise ``weight`` ``(N, K)``; ``inputs`` are not used."""
        w = check_weight(weight)
        n, k = w.shape
        group = self.group_size or -(-k // 32) * 32
        groups = torch.nn.functional.pad(w, (0, -k % group)).reshape(n, -1, group)
        scales = groups.abs().amax(2)
        exact = needs_exact(w, scales)
        scales = _stored(scales, exact)
        a = _golden(lambda e: float((_round(groups, scales, self.bits, e)[1] - groups).square().sum()))
        codes, values = _round(groups, scales, self.bits, a)
        for _ in range(self.steps):
            units = _table(self.bits, a)[codes.long()]
            fitted = _stored((units * groups).sum(2) / units.square().sum(2).clamp_min(1e-30), exact)
            refined = torch.where((scales > 0) & (fitted > 0), fitted, scales)
            new_codes, new_values = _round(groups, refined, self.bits, a)
            better = (new_values - groups).square().sum(2) < (values - groups).square().sum(2)
            scales = torch.where(better, refined, scales)
            codes, values = (
                torch.where(better.unsqueeze(2), new, old) for new, old in ((new_codes, codes), (new_values, values))
            )
        flat = codes.reshape(n, -1)[:, :k].contiguous()
        return PowerTensor(*pack_codes(flat, scales, self.bits, group, exact_scales=exact), a)


def _stored(scales: torch.Tensor, exact: bool) -> torch.Tensor:
    return scales if exact else scales.half().float()


def _table(bits: int, a: float) -> torch.Tensor:
    """Value of every code for scale 1."""
    half = 1 << (bits - 1)
    values = (torch.arange(half, dtype=torch.float64) / (half - 1)) ** (1 / a)
    return bfloat(torch.cat([values, -values]))


def _round(w: torch.Tensor, scales: torch.Tensor, bits: int, a: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and the values they stand for."""
    half = 1 << (bits - 1)
    safe = torch.where(scales == 0, 1.0, scales).unsqueeze(2)
    q = torch.round((half - 1) * (w.abs() / safe) ** a).clamp_(0, half - 1)
    codes = (q + half * (w < 0)).to(torch.uint8)
    return codes, _table(bits, a)[codes.long()] * scales.unsqueeze(2)


def _golden(loss: Any) -> float:
    low, high = _LOW, _HIGH
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(16):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
    return (low + high) / 2
