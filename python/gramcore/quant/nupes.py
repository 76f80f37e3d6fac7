"""Power-exponent codes (PowerQuant / NUPES): a power function before rounding, its inverse after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gramcore._checks import check_int
from gramcore.quant.base import Codec, QTensor, check_weight

__all__ = ["PowerCodec", "PowerTensor"]

_LOW, _HIGH = 0.2, 1.0
_GOLDEN = 0.6180339887498949


class PowerTensor(QTensor):
    """``W[n, k] = scale[n, g] * sgn(q) (|q| / top)^(1 / a)`` with ``q = code - top`` in ``-top .. top``.

    Codes of up to 4 bits are stored two to a byte.  Products dequantise first: the form saves memory, not time.
    """

    kind = "power"

    def __init__(self, codes: torch.Tensor, scales: torch.Tensor, k: int, bits: int, group_size: int, a: float) -> None:
        n = scales.shape[0] if scales.dim() == 2 else -1
        check_int("bits", bits, low=2, high=8)
        check_int("group_size", group_size, low=1)
        check_int("k", k, low=1)
        stored = (k + 1) // 2 if bits <= 4 else k
        if codes.dtype != torch.uint8 or tuple(codes.shape) != (n, stored):
            raise ValueError(f"codes must be uint8 ({n}, {stored}), got {codes.dtype} {tuple(codes.shape)}")
        if scales.dtype != torch.float32 or scales.shape[1] != -(-k // group_size):
            raise ValueError(
                f"scales must be float32 (N, {-(-k // group_size)}), got {scales.dtype} {tuple(scales.shape)}"
            )
        if not _LOW <= a <= _HIGH:
            raise ValueError(f"exponent must be in [{_LOW}, {_HIGH}], got {a}")
        self.codes, self.scales, self.bits, self.group_size, self.exponent = codes, scales, bits, group_size, a
        self.shape = (n, k)

    def buffers(self) -> dict[str, torch.Tensor]:
        return {"codes": self.codes, "scales": self.scales}

    def meta(self) -> dict[str, Any]:
        numbers = {"k": self.shape[1], "bits": self.bits, "group_size": self.group_size, "exponent": self.exponent}
        return {"kind": self.kind, "version": self.version, **numbers}

    @classmethod
    def from_buffers(cls, meta: Mapping[str, Any], buffers: Mapping[str, torch.Tensor]) -> PowerTensor:
        numbers = (int(meta["k"]), int(meta["bits"]), int(meta["group_size"]), float(meta["exponent"]))
        return cls(buffers["codes"], buffers["scales"], *numbers)

    def dequantize(self) -> torch.Tensor:
        n, k = self.shape
        codes = self.codes
        if self.bits <= 4:
            codes = torch.stack([codes & 15, codes >> 4], -1).reshape(n, -1)[:, :k]
        values = _table(self.bits, self.exponent)[codes.long()]
        return values * self.scales.repeat_interleave(self.group_size, 1)[:, :k]

    def matmul(self, x: torch.Tensor, bias: torch.Tensor | None, activations: str) -> torch.Tensor:
        low = None if bias is None else bias.float()
        return torch.nn.functional.linear(x.float(), self.dequantize(), low).to(x.dtype)


class PowerCodec(Codec):
    """Codes of a power of the weight: ``q = round(top sgn(w) (|w| / s)^a)``, ``w ~ s sgn(q) (|q| / top)^(1/a)``.

    ``s`` is the group's largest magnitude, ``top = 2^(b-1) - 1``, and the exponent a in [0.2, 1] of the matrix is the
    one of least squared weight error, found by golden-section search (the error has one minimum): exponents below 1
    give small weights, of which there are many, finer steps.  ``steps > 0`` then refines the group scales by
    alternating least squares: codes for the scale, the best scale for the codes.

    Cost: about 20 passes over the weight for the search and two per step.  Storage: 4 or 8 bits per code and one fp32
    scale per group.  Products dequantise first and do not round activations.

    Args:
        bits: 2 to 8; above 4, a code takes a byte.
        group_size: columns per scale, ``>= 1``; None for one group per row.
        steps: rounds of scale refinement, ``>= 0``.

    Shapes:
        weight ``(N, K)`` of any floating-point dtype.

    Raises:
        ValueError: an argument outside its interval; a weight that is not a finite matrix.
        TypeError: a weight that is not floating point.

    Differs from paper: scales per group instead of per channel; NUPES's gradient descent on codes and exponent is
        replaced by the search and by alternating least squares on the scales.

    Reference: Yvinec et al. 2023, arXiv:2308.05600, sections 3.1 and 3.2.

    Example:
        >>> import torch
        >>> from gramcore.quant import PowerCodec
        >>> w = torch.randn(16, 128, generator=torch.Generator().manual_seed(0))
        >>> q = PowerCodec(bits=4).quantize(w)
        >>> q.exponent < 1, q.bits_per_weight()
        (True, 5.0)
    """

    def __init__(self, *, bits: int = 4, group_size: int | None = 32, steps: int = 0) -> None:
        self.bits = check_int("bits", bits, low=2, high=8)
        self.group_size = None if group_size is None else check_int("group_size", group_size, low=1)
        self.steps = check_int("steps", steps, low=0, high=1000)

    def quantize(self, weight: torch.Tensor, inputs: torch.Tensor | None = None) -> PowerTensor:
        """Quantise ``weight`` ``(N, K)``; ``inputs`` are not used."""
        w = check_weight(weight)
        n, k = w.shape
        group = self.group_size or k
        groups = torch.nn.functional.pad(w, (0, -k % group)).reshape(n, -1, group)
        scales = groups.abs().amax(2)
        a = _golden(lambda e: float((_round(groups, scales, self.bits, e)[1] - groups).square().sum()))
        codes, _ = _round(groups, scales, self.bits, a)
        for _ in range(self.steps):
            values = _table(self.bits, a)[codes.long()]
            fitted = (values * groups).sum(2) / values.square().sum(2).clamp_min(1e-30)
            scales = torch.where((scales > 0) & (fitted > 0), fitted, scales)
            codes, _ = _round(groups, scales, self.bits, a)
        flat = codes.reshape(n, -1)[:, :k]
        if self.bits <= 4:
            pairs = torch.nn.functional.pad(flat, (0, k % 2)).reshape(n, -1, 2)
            flat = pairs[..., 0] | (pairs[..., 1] << 4)
        return PowerTensor(flat.contiguous(), scales.contiguous(), k, self.bits, group, a)


def _table(bits: int, a: float) -> torch.Tensor:
    """Value of every code for scale 1; the last code of an even-sized set is not used and counts as top."""
    top = (1 << (bits - 1)) - 1
    q = (torch.arange(1 << bits, dtype=torch.float64) - top).clamp_max(top)
    return (q.sign() * (q.abs() / top) ** (1 / a)).float()


def _round(w: torch.Tensor, scales: torch.Tensor, bits: int, a: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and the values they stand for."""
    top = (1 << (bits - 1)) - 1
    safe = torch.where(scales == 0, 1.0, scales).unsqueeze(2)
    q = torch.round(top * w.sign() * (w.abs() / safe) ** a).clamp_(-top, top)
    codes = (q + top).to(torch.uint8)
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
