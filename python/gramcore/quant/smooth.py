"""Weights whose columns were scaled before they were quantised, and whose inputs are scaled back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gramcore.quant.base import QTensor
from gramcore.quant.packed import PackedTensor

__all__ = ["SmoothTensor", "smoothing_factors"]


class SmoothTensor(QTensor):
    """``W = Q diag(inverse)``: a packed weight of scaled columns, and one over the factors.  ``x W^T`` is the packed
    product of ``x * inverse``."""

    kind = "smooth"

    def __init__(self, inner: PackedTensor, inverse: torch.Tensor) -> None:
        if inverse.dtype != torch.float32 or tuple(inverse.shape) != inner.shape[1:]:
            raise ValueError(
                f"inverse must be {inner.shape[1]} float32 values, got {inverse.dtype} {tuple(inverse.shape)}"
            )
        self.inner, self.inverse, self.shape = inner, inverse, inner.shape

    def buffers(self) -> dict[str, torch.Tensor]:
        return {"packed": self.inner.packed, "inverse": self.inverse}

    def meta(self) -> dict[str, Any]:
        return {**self.inner.meta(), "kind": self.kind, "version": self.version}

    @classmethod
    def from_buffers(cls, meta: Mapping[str, Any], buffers: Mapping[str, torch.Tensor]) -> SmoothTensor:
        return cls(PackedTensor.from_buffers(meta, buffers), buffers["inverse"].contiguous())

    def dequantize(self) -> torch.Tensor:
        return self.inner.dequantize() * self.inverse

    def matmul(self, x: torch.Tensor, bias: torch.Tensor | None, activations: str) -> torch.Tensor:
        return self.inner.matmul(x.float() * self.inverse, bias, activations).to(x.dtype)


def smoothing_factors(x: torch.Tensor, power: float) -> torch.Tensor:
    """``(mean |x_c| / mean |x|)^power`` for every column c of ``x`` ``(T, K)``; columns far below the mean count as a
    hundredth of it."""
    size = x.abs().mean(0)
    mean = size.mean()
    if not float(mean) > 0:
        return torch.ones_like(size)
    return (size / mean).clamp_min(0.01) ** power
