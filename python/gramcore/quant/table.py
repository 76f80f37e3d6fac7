"""Weights whose codes are places in a table of values: one packed form and one product for all such formats."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import torch

from gramcore.quant.base import QTensor
from gramcore.quant.packed import PackedTensor, SpecNumbers, differentiable, native_ops
from gramcore.torch_ops import fake

__all__ = ["SixBitTensor", "TableTensor", "bfloat", "pack_codes"]


class TableTensor(QTensor):
    """``W[n, k] = scale[n, g] * values[code[n, k]]`` with ``g = k // group_size``: codes packed as those of
    :class:`gramcore.quant.PackedTensor`, values looked up while products run.

    ``values`` are ``2**bits`` numbers of bfloat16; for 8 bits the last 128 are the first ones negated.  Products are in
    fp32 and do not round activations; a row of the result never depends on the other rows.

    Subclasses say in :meth:`meta` what the values follow from; files hold no table.
    """

    def __init__(self, packed: torch.Tensor, numbers: SpecNumbers, values: torch.Tensor) -> None:
        self._form = PackedTensor(packed, numbers)
        self.packed, self.numbers, self.values = packed, numbers, values
        self.shape = self._form.shape

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self.numbers[2]

    @property
    def group_size(self) -> int:
        """Columns that share a scale."""
        return self.numbers[3] // (2 if self.numbers[5] else 1)

    def unpack(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``(codes, scales)`` exactly as packed; scales as fp32 ``(N, ceil(K / group_size))``."""
        codes, first, last = self._form.unpack()
        if last is None:
            return codes, first
        scales = torch.stack([first, last], 2).reshape(self.shape[0], -1)
        return codes, scales[:, : -(-self.shape[1] // 16)]

    def buffers(self) -> dict[str, torch.Tensor]:
        return {"packed": self.packed}

    @abc.abstractmethod
    def meta(self) -> dict[str, Any]: ...

    def dequantize(self) -> torch.Tensor:
        return native_ops().dequantize_table(self.packed, self.values, *self.numbers)

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """fp32 rows ``W[ids]`` for int64 ``ids`` of any shape: an embedding lookup (CUDA: 16 rows each).

        Raises:
            IndexError: an id outside ``[0, N)``.
        """
        if self.packed.device.type == "cpu":
            if not torch.compiler.is_compiling():
                native_ops()
            return torch.ops.gramcore.embedding_table(ids.contiguous(), self.packed, self.values, *self.numbers)
        n, k = self.shape
        flat = ids.reshape(-1)
        if flat.numel() and not (int(flat.min()) >= 0 and int(flat.max()) < n):
            raise IndexError(f"ids must be in [0, {n}), got {int(flat.min())} to {int(flat.max())}")
        if not flat.numel():
            return self.packed.new_empty((*ids.shape, k), dtype=torch.float32)
        panels = self.packed.reshape(-(-n // 16), -1)[flat // 16].reshape(-1)
        numbers = (16 * flat.numel(), *self.numbers[1:])
        chosen = native_ops().dequantize_table(panels, self.values, *numbers).reshape(-1, 16, k)
        return chosen[torch.arange(flat.numel()), flat % 16].reshape(*ids.shape, k)

    def matmul(self, x: torch.Tensor, bias: torch.Tensor | None, activations: str) -> torch.Tensor:
        if x.dtype == torch.float16:
            return self.matmul(x.float(), bias, activations).to(torch.float16)
        low = None if bias is None else bias.float().contiguous()
        if not torch.compiler.is_compiling():
            native_ops()
        return torch.ops.gramcore.linear_table(x.contiguous(), self.packed, self.values, low, *self.numbers)


class SixBitTensor(TableTensor):
    """``W[n, k] = scale[n, k // 16] * (code[n, k] - 32)`` with 6-bit codes and fp32 scales: GGUF's Q6_K."""

    kind = "six_bit"

    def __init__(self, packed: torch.Tensor, numbers: SpecNumbers) -> None:
        super().__init__(packed, numbers, torch.arange(-32.0, 32.0))

    @classmethod
    def pack(cls, codes: torch.Tensor, scales: torch.Tensor) -> SixBitTensor:
        """From codes ``(N, K)`` below 64 and scales ``(N, ceil(K / 16))``."""
        return cls(*pack_codes(codes, scales, 6, 16))

    def meta(self) -> dict[str, Any]:
        n, k = self.shape
        return {"kind": self.kind, "version": self.version, "n": n, "k": k}

    @classmethod
    def from_buffers(cls, meta: Mapping[str, Any], buffers: Mapping[str, torch.Tensor]) -> SixBitTensor:
        return cls(buffers["packed"].contiguous(), (int(meta["n"]), int(meta["k"]), 6, 32, 32, True, True))


def pack_codes(
    codes: torch.Tensor, scales: torch.Tensor, bits: int, group_size: int, *, exact_scales: bool = True
) -> tuple[torch.Tensor, SpecNumbers]:
    """The arguments ``packed, numbers`` of a :class:`TableTensor`.

    Args:
        codes: ``(N, K)`` uint8, each below ``2**bits``.
        scales: ``(N, ceil(K / group_size))``.
        bits: 2 to 8.
        group_size: 16, 32, 64, 96, 128, or K rounded up to a multiple of 32 for one group per row.
        exact_scales: keep scales in fp32 instead of fp16.
    """
    last = None
    if group_size == 16:  # two scales per block of 32 columns
        scales = torch.nn.functional.pad(scales, (0, scales.shape[1] % 2)).reshape(scales.shape[0], -1, 2)
        scales, last, group_size = scales[..., 0], scales[..., 1], 32
    q = PackedTensor.pack(
        codes, scales, last, bits=bits, group_size=group_size, zero=1 << (bits - 1), exact_scales=exact_scales
    )
    return q.packed, q.numbers


def bfloat(values: torch.Tensor) -> torch.Tensor:
    """fp32 values rounded to bfloat16."""
    return values.to(torch.bfloat16).float()


@fake("linear_table")
def _fake_linear(
    x: torch.Tensor, packed: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None, n: int, *_rest: Any
) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], n))


@fake("dequantize_table")
def _fake_dequantize(packed: torch.Tensor, values: torch.Tensor, n: int, k: int, *_rest: Any) -> torch.Tensor:
    return packed.new_empty((n, k), dtype=torch.float32)


@fake("embedding_table")
def _fake_embedding(
    ids: torch.Tensor, packed: torch.Tensor, values: torch.Tensor, n: int, k: int, *_rest: Any
) -> torch.Tensor:
    return packed.new_empty((*ids.shape, k), dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    _, packed, values, bias, *numbers = inputs
    ctx.save_for_backward(packed, values)
    ctx.numbers, ctx.has_bias = numbers, bias is not None


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    packed, values = ctx.saved_tensors
    weight = torch.ops.gramcore.dequantize_table(packed, values, *ctx.numbers)
    grad_bias = grad.float().reshape(-1, grad.shape[-1]).sum(0) if ctx.has_bias else None
    return (grad.float() @ weight).to(grad.dtype), None, None, grad_bias, *([None] * 7)


differentiable("linear_table", _backward, _save)
