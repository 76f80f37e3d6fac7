"""Weights as integer codes with a scale (and minimum) per group, packed for the native kernels."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from gramcore import _core, torch_ops
from gramcore.quant.base import QTensor
from gramcore.torch_ops import fake

__all__ = ["PackedTensor", "SpecNumbers", "differentiable", "native_ops", "packed_backward", "packed_save"]

SpecNumbers = tuple[int, int, int, int, int, bool, bool]


class PackedTensor(QTensor):
    """``W[n, k] = scale[n, g] * (code[n, k] - zero) + min[n, g]`` with ``g = k // group_size``.

    The packed bytes have one layout on every machine; products run on int8 activations (scaled per block of 32
    columns, exact inner sums) or on fp32 ones; either way a row of the result never depends on the other rows.

    Build one with :meth:`pack`; codecs do.
    """

    kind = "packed"

    def __init__(self, packed: torch.Tensor, numbers: SpecNumbers) -> None:
        native_ops()
        self.packed = packed
        self.numbers = numbers
        self.shape = (numbers[0], numbers[1])
        spec = self.spec
        if packed.dtype != torch.uint8 or packed.dim() != 1 or packed.numel() != spec.packed_bytes:
            raise ValueError(
                f"packed must be {spec.packed_bytes} bytes (uint8), got {packed.dtype} {tuple(packed.shape)}"
            )

    @classmethod
    def pack(
        cls,
        codes: torch.Tensor,
        scales: torch.Tensor,
        mins: torch.Tensor | None = None,
        *,
        bits: int,
        group_size: int,
        zero: int,
        exact_scales: bool = False,
    ) -> PackedTensor:
        """Pack codes and group values.

        Args:
            codes: ``(N, K)`` uint8, each below ``2**bits``.
            scales: ``(N, ceil(K / group_size))``.
            mins: as ``scales``, or None.
            bits: 1 to 8; one-bit codes stand for -1 and +1.
            group_size: 32, 64, 96, 128, or K rounded up to a multiple of 32 for one group per row.
            zero: code subtracted before scaling; 128 for 8 bits, 1 for one bit.
            exact_scales: keep scales and minima in fp32 instead of fp16.
        """
        n, k = codes.shape
        numbers = (int(n), int(k), bits, group_size, zero, mins is not None, exact_scales)
        spec = _spec(numbers)
        packed = torch.empty(spec.packed_bytes, dtype=torch.uint8)
        low = None if mins is None else mins.float().contiguous()
        _core.quant.pack(spec, codes.contiguous(), scales.float().contiguous(), low, packed)
        return cls(packed, numbers)

    @staticmethod
    def packed_bytes(numbers: SpecNumbers) -> int:
        """Bytes of a weight with these numbers."""
        return int(_spec(numbers).packed_bytes)

    @property
    def spec(self) -> Any:
        """The native description of shape and format."""
        return _spec(self.numbers)

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self.numbers[2]

    @property
    def group_size(self) -> int:
        """Columns that share a scale."""
        return self.numbers[3]

    def unpack(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """``(codes, scales, mins)`` exactly as packed; scales and minima as fp32."""
        n, k = self.shape
        codes = torch.empty(n, k, dtype=torch.uint8)
        scales = torch.empty(n, self.spec.groups)
        mins = torch.empty_like(scales) if self.numbers[5] else None
        _core.quant.unpack(self.spec, self.packed, codes, scales, mins)
        return codes, scales, mins

    def buffers(self) -> dict[str, torch.Tensor]:
        return {"packed": self.packed}

    def meta(self) -> dict[str, Any]:
        names = ("n", "k", "bits", "group_size", "zero", "has_min", "exact_scales")
        return {"kind": self.kind, "version": self.version, **dict(zip(names, self.numbers, strict=True))}

    @classmethod
    def from_buffers(cls, meta: Mapping[str, Any], buffers: Mapping[str, torch.Tensor]) -> PackedTensor:
        n, k, bits, group, zero = (int(meta[name]) for name in ("n", "k", "bits", "group_size", "zero"))
        numbers = (n, k, bits, group, zero, bool(meta["has_min"]), bool(meta["exact_scales"]))
        return cls(buffers["packed"].contiguous(), numbers)

    def dequantize(self) -> torch.Tensor:
        return native_ops().dequantize_packed(self.packed, *self.numbers)

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """fp32 rows ``W[ids]`` for int64 ``ids`` of any shape: an embedding lookup.

        Raises:
            IndexError: an id outside ``[0, N)``.
        """
        if not torch.compiler.is_compiling():
            native_ops()
        return torch.ops.gramcore.embedding_packed(ids.contiguous(), self.packed, *self.numbers)

    def matmul(self, x: torch.Tensor, bias: torch.Tensor | None, activations: str) -> torch.Tensor:
        if x.dtype == torch.float16:
            return self.matmul(x.float(), bias, activations).to(torch.float16)
        low = None if bias is None else bias.float().contiguous()
        int8 = activations == "int8"
        compiling = torch.compiler.is_compiling()
        if not compiling:
            native_ops()  # compiled code finds the operators registered: weights are made before it runs
        if not compiling and _unwatched(x, self.packed, low):
            # The same computation without torch's dispatcher, which takes as long as a small product.
            rows = (x.shape[0],) if x.dim() == 2 else x.shape[:-1]
            y = x.new_empty((*rows, self.shape[0]))
            _core.quant.linear(self.spec, self.packed, x.contiguous(), None if low is None else low.detach(), y, int8)
            return y
        return torch.ops.gramcore.linear_packed(x.contiguous(), self.packed, low, *self.numbers, int8)


def _unwatched(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether a call on plain CPU tensors is seen by nobody: no gradient, tracer, mode or transform."""
    return (
        type(x) is torch.Tensor
        and type(packed) is torch.Tensor
        and x.is_cpu
        and packed.is_cpu
        and not (torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)))
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._get_tracing_state() is None
    )


@functools.lru_cache(maxsize=4096)
def _spec(numbers: SpecNumbers) -> Any:
    n, k, bits, group, zero, has_min, scale_f32 = numbers
    return _core.quant.PackSpec(n, k, bits, group, zero, has_min, scale_f32)


_gradients: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {}


def differentiable(name: str, backward: Callable[..., Any], save: Callable[..., Any]) -> None:
    """Declare the gradient of operator ``gramcore::name``; applied when the operators are loaded."""
    _gradients[name] = backward, save
    if native_ops.cache_info().currsize:
        torch.library.register_autograd(f"gramcore::{name}", backward, setup_context=save)


@functools.cache
def native_ops() -> Any:
    """``torch.ops.gramcore`` with the gradients of this family registered."""
    ops = torch_ops.ops()
    for name, (backward, save) in _gradients.items():
        torch.library.register_autograd(f"gramcore::{name}", backward, setup_context=save)
    return ops


@fake("linear_packed")
def _fake_linear(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, n: int, *_rest: Any) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], n))


@fake("dequantize_packed")
def _fake_dequantize(packed: torch.Tensor, n: int, k: int, *_rest: Any) -> torch.Tensor:
    return packed.new_empty((n, k), dtype=torch.float32)


@fake("embedding_packed")
def _fake_embedding(ids: torch.Tensor, packed: torch.Tensor, n: int, k: int, *_rest: Any) -> torch.Tensor:
    return packed.new_empty((*ids.shape, k), dtype=torch.float32)


def packed_save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    """What :func:`packed_backward` needs of an operator's x, packed bytes, bias, seven numbers and one setting."""
    _, packed, bias, *numbers = inputs
    ctx.save_for_backward(packed)
    ctx.numbers, ctx.has_bias = numbers[:-1], bias is not None


def packed_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    """The gradient of a packed product: activations count as not rounded."""
    (packed,) = ctx.saved_tensors
    weight = torch.ops.gramcore.dequantize_packed(packed, *ctx.numbers)
    grad_bias = grad.float().reshape(-1, grad.shape[-1]).sum(0) if ctx.has_bias else None
    return (grad.float() @ weight).to(grad.dtype), None, grad_bias, *([None] * 8)


differentiable("linear_packed", packed_backward, packed_save)
