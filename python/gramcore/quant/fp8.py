"""8-bit floating point: casts with nearest or stochastic rounding, a codec, and a simulation of fp8 training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gramcore._checks import check_choice
from gramcore.quant.base import Codec, check_weight
from gramcore.quant.packed import SpecNumbers
from gramcore.quant.table import TableTensor, pack_codes

__all__ = ["FORMATS", "Fp8", "Fp8Linear", "Fp8Stats", "Fp8Tensor", "fp8_round"]


@dataclass(frozen=True)
class _Format:
    dtype: torch.dtype
    mantissa: int  # explicit bits
    min_exponent: int  # of the smallest normal number
    top: float


#: e4m3 for weights and activations, e5m2 for gradients.
FORMATS = {
    "e4m3": _Format(torch.float8_e4m3fn, 3, -6, 448.0),
    "e5m2": _Format(torch.float8_e5m2, 2, -14, 57344.0),
}


def fp8_round(
    x: torch.Tensor, fmt: str = "e4m3", *, stochastic: bool = False, generator: torch.Generator | None = None
) -> torch.Tensor:
    """``x`` rounded to the values of an 8-bit format, in fp32; larger magnitudes saturate, NaN stays NaN.

    Args:
        x: any floating-point tensor.
        fmt: ``"e4m3"`` or ``"e5m2"``.
        stochastic: round up with probability equal to the fraction (unbiased) instead of to nearest even.
        generator: source of the random numbers of stochastic rounding.

    Example:
        >>> import torch
        >>> from gramcore.quant import fp8_round
        >>> fp8_round(torch.tensor([1.0, 1.06, 1.07, 1000.0])).tolist()
        [1.0, 1.0, 1.125, 448.0]
    """
    f = FORMATS[check_choice("fmt", fmt, tuple(FORMATS))]
    v = x.float().clamp(-f.top, f.top)
    _, exponent = torch.frexp(v)
    step = torch.ldexp(torch.ones_like(v), (exponent - 1).clamp_min(f.min_exponent) - f.mantissa)
    units = v / step
    if stochastic:
        noise = torch.rand(v.shape, generator=generator, device=v.device)
        units = torch.floor(units + noise)
    else:
        units = torch.round(units)
    return (units * step).clamp(-f.top, f.top)


class Fp8Tensor(TableTensor):
    """``W[n, k] = scale[n] * value(code[n, k])`` with 8-bit floating-point codes."""

    kind = "fp8"
    version = 2

    def __init__(self, packed: torch.Tensor, numbers: SpecNumbers, fmt: str) -> None:
        if numbers[2] != 8 or numbers[3] != -(-numbers[1] // 32) * 32:
            raise ValueError(f"fp8 codes must have 8 bits and one scale per row, got {numbers}")
        self.fmt = check_choice("fmt", fmt, tuple(FORMATS))
        super().__init__(packed, numbers, torch.arange(256, dtype=torch.uint8).view(FORMATS[fmt].dtype).float())

    def meta(self) -> dict[str, Any]:
        n, k = self.shape
        return {"kind": self.kind, "version": self.version, "n": n, "k": k, "format": self.fmt}

    @classmethod
    def from_buffers(cls, meta: Mapping[str, Any], buffers: Mapping[str, torch.Tensor]) -> Fp8Tensor:
        n, k = int(meta["n"]), int(meta["k"])
        numbers = (n, k, 8, -(-k // 32) * 32, 128, False, True)
        return cls(buffers["packed"].contiguous(), numbers, meta["format"])


class Fp8(Codec):
    """8-bit floating-point weights, scaled per row so that the largest magnitude meets the format's largest value.

    Cost: one pass over the weight.  Storage: 8 bits per weight and one fp32 scale per row.  Products look values up
    while they run and do not round activations.

    Args:
        fmt: ``"e4m3"`` (3 mantissa bits, up to 448) or ``"e5m2"`` (2 bits, up to 57344).
        stochastic: stochastic instead of nearest rounding, from a generator seeded with ``seed``.
        seed: of stochastic rounding.

    Shapes:
        weight ``(N, K)`` of any floating-point dtype.

    Raises:
        ValueError: unknown format; a weight that is not a finite matrix.
        TypeError: a weight that is not floating point.

    Differs from paper: per-row instead of per-tensor scales.

    Reference: Micikevicius et al. 2022, arXiv:2209.05433.

    Example:
        >>> import torch
        >>> from gramcore.quant import Fp8
        >>> Fp8().quantize(torch.tensor([[448.0, 3.3]])).dequantize().tolist()
        [[448.0, 3.25]]
    """

    def __init__(self, *, fmt: str = "e4m3", stochastic: bool = False, seed: int = 0) -> None:
        self.fmt = check_choice("fmt", fmt, tuple(FORMATS))
        self.stochastic = bool(stochastic)
        self.seed = int(seed)

    def quantize(self, weight: torch.Tensor, inputs: torch.Tensor | None = None) -> Fp8Tensor:
        """Quantise ``weight`` ``(N, K)``; ``inputs`` are not used."""
        w = check_weight(weight)
        f = FORMATS[self.fmt]
        top = w.abs().amax(1)
        scales = torch.where(top < 1e-30, 1.0, top / f.top)
        generator = torch.Generator().manual_seed(self.seed)
        codes = fp8_round(w / scales.unsqueeze(1), self.fmt, stochastic=self.stochastic, generator=generator)
        packed = pack_codes(codes.to(f.dtype).view(torch.uint8), scales.unsqueeze(1), 8, -(-w.shape[1] // 32) * 32)
        return Fp8Tensor(*packed, self.fmt)


@dataclass
class Fp8Stats:
    """What a simulated fp8 layer lost: relative RMS rounding errors and fractions of values flushed to zero."""

    steps: int = 0
    input_error: float = 0.0
    weight_error: float = 0.0
    grad_error: float = 0.0
    grad_underflow_frac: float = 0.0


class Fp8Linear(torch.nn.Linear):
    """``nn.Linear`` as it would train in fp8: e4m3 inputs and weights, e5m2 output gradients, per-tensor scales.

    Every tensor is scaled so that its largest magnitude meets the format's, rounded, and multiplied in fp32; gradients
    may be rounded stochastically.  ``stats`` accumulates what rounding lost, to compare a run with a bf16 one.

    Args:
        in_features, out_features, bias: as in ``nn.Linear``.
        stochastic_grad: round output gradients stochastically.
        generator: source of that randomness.

    Reference: Micikevicius et al. 2022, arXiv:2209.05433, section 3.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        stochastic_grad: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.stochastic_grad = bool(stochastic_grad)
        self.generator = generator
        self.stats = Fp8Stats()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Fp8Product.apply(x, self.weight, self.bias, self)  # type: ignore[no-untyped-call]


class _Fp8Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, layer: Fp8Linear
    ) -> torch.Tensor:
        xq, wq = _scaled_round(x, "e4m3"), _scaled_round(w, "e4m3")
        ctx.save_for_backward(xq, wq)
        ctx.layer, ctx.has_bias = layer, bias is not None
        s = layer.stats
        s.steps += 1
        s.input_error += (_error(xq, x) - s.input_error) / s.steps
        s.weight_error += (_error(wq, w) - s.weight_error) / s.steps
        return torch.nn.functional.linear(xq, wq, bias).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        xq, wq = ctx.saved_tensors
        layer: Fp8Linear = ctx.layer
        gq = _scaled_round(grad, "e5m2", layer.stochastic_grad, layer.generator)
        s = layer.stats
        s.grad_error += (_error(gq, grad) - s.grad_error) / s.steps
        lost = float(((gq == 0) & (grad != 0)).float().mean())
        s.grad_underflow_frac += (lost - s.grad_underflow_frac) / s.steps
        flat_g, flat_x = gq.reshape(-1, gq.shape[-1]), xq.reshape(-1, xq.shape[-1])
        bias = flat_g.sum(0) if ctx.has_bias else None
        return (gq @ wq).to(grad.dtype), flat_g.T @ flat_x, bias, None


def _scaled_round(
    x: torch.Tensor, fmt: str, stochastic: bool = False, generator: torch.Generator | None = None
) -> torch.Tensor:
    v = x.detach().float()
    top = float(v.abs().max()) if v.numel() else 0.0
    scale = top / FORMATS[fmt].top if top > 1e-30 else 1.0
    return fp8_round(v / scale, fmt, stochastic=stochastic, generator=generator) * scale


def _error(rounded: torch.Tensor, exact: torch.Tensor) -> float:
    norm = float(exact.float().norm())
    return float((rounded - exact.float()).norm()) / norm if norm else 0.0
