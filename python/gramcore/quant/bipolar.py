"""Bipolar integers: odd, symmetric values without a zero, from bit planes of -1 and +1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gramcore._checks import check_int
from gramcore.quant.base import Codec, QTensor, check_weight
from gramcore.quant.integer import grouped, needs_exact
from gramcore.quant.packed import PackedTensor, differentiable, native_ops, packed_backward, packed_save
from gramcore.torch_ops import fake

__all__ = ["BipolarInt", "BipolarTensor"]


class BipolarTensor(QTensor):
    """A packed weight whose activations are bipolar too: odd numbers of fewer than 8 bits.

    Every block of 32 columns of x becomes ``t sum_j 2^j (2 c_j - 1)``: ``t`` is its largest magnitude over ``2^a - 1``
    and codes the nearest odd numbers; for one bit, ``t`` is the mean magnitude and codes are signs (+1 for 0).
    Products are exact but for that, by counting bits of planes where this is faster, ``w_k x_k`` summed as ``n Tw Tx -
    2 sum_ij 2^(i + j) popcount(W_i ^ X_j)``, and by byte dot products elsewhere, with the same result to the bit.
    """

    kind = "bipolar"

    def __init__(self, inner: PackedTensor, activation_bits: int) -> None:
        self.inner, self.shape = inner, inner.shape
        self.activation_bits = check_int("activation_bits", activation_bits, low=1, high=7)

    def buffers(self) -> dict[str, torch.Tensor]:
        return self.inner.buffers()

    def meta(self) -> dict[str, Any]:
        own = {"kind": self.kind, "version": self.version, "activation_bits": self.activation_bits}
        return {**self.inner.meta(), **own}

    @classmethod
    def from_buffers(cls, meta: Mapping[str, Any], buffers: Mapping[str, torch.Tensor]) -> BipolarTensor:
        return cls(PackedTensor.from_buffers(meta, buffers), meta["activation_bits"])

    def dequantize(self) -> torch.Tensor:
        return self.inner.dequantize()

    def matmul(self, x: torch.Tensor, bias: torch.Tensor | None, activations: str) -> torch.Tensor:
        """As the packed weight's; ``activations="int8"`` means this weight's own bits."""
        if activations == "float32":
            return self.inner.matmul(x, bias, activations)
        if x.dtype == torch.float16:
            return self.matmul(x.float(), bias, activations).to(torch.float16)
        low = None if bias is None else bias.float().contiguous()
        if not torch.compiler.is_compiling():
            native_ops()
        return torch.ops.gramcore.linear_bipolar(
            x.contiguous(), self.inner.packed, low, *self.inner.numbers, self.activation_bits
        )


@fake("linear_bipolar")
def _fake_linear(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, n: int, *_rest: Any) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], n))


differentiable("linear_bipolar", packed_backward, packed_save)


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
        activation_bits: 1 to 8 bits that products round activations to: odd numbers like those of the weight, in blocks
            of 32 columns (:class:`BipolarTensor`); 8: the integers within 127 of other packed weights.

    Shapes:
        weight ``(N, K)`` of any floating-point dtype.

    Raises:
        ValueError: an argument outside its set; a weight that is not a finite matrix.
        TypeError: a weight that is not floating point.

    Differs from paper: a scale per group of a row and per block of activations; eight bits of activations are int8,
    since odd numbers up to 255 do not fit a byte; bits are counted where that is faster than byte dot products.

    Reference: Fang et al. 2024, arXiv:2409.17870, section 3.1.

    Example:
        >>> import torch
        >>> from gramcore.quant import BipolarInt
        >>> q = BipolarInt(bits=2).quantize(torch.tensor([[3.0, 0.9, -1.2, -2.5]]))
        >>> q.dequantize().tolist()
        [[3.0, 1.0, -1.0, -3.0]]
    """

    def __init__(self, *, bits: int = 3, group_size: int = 32, activation_bits: int = 8) -> None:
        if group_size not in (32, 64, 128):
            raise ValueError(f"group_size must be 32, 64 or 128, got {group_size!r}")
        self.bits = check_int("bits", bits, low=1, high=8)
        self.group_size = group_size
        self.activation_bits = check_int("activation_bits", activation_bits, low=1, high=8)

    def quantize(self, weight: torch.Tensor, inputs: torch.Tensor | None = None) -> PackedTensor | BipolarTensor:
        """Quantise ``weight`` ``(N, K)``; ``inputs`` are not used."""
        w = check_weight(weight)
        groups, top = grouped(w, self.group_size), (1 << self.bits) - 1
        step = groups.abs().amax(2) / top if self.bits > 1 else _mean_magnitude(w, self.group_size)
        exact = needs_exact(groups, step)
        step = step if exact else step.half().float()
        safe = torch.where(step == 0, 1.0, step).unsqueeze(2)
        odd = torch.round((groups / safe + top) / 2).clamp_(0, top) if self.bits > 1 else groups >= 0
        codes = odd.to(torch.uint8)
        packed = PackedTensor.pack(
            codes.reshape(w.shape[0], -1)[:, : w.shape[1]],
            step if self.bits == 1 else 2 * step,
            None if self.bits == 1 else step,
            bits=self.bits,
            group_size=self.group_size,
            zero=max(1, (top + 1) // 2),
            exact_scales=exact,
        )
        return packed if self.activation_bits == 8 else BipolarTensor(packed, self.activation_bits)


def _mean_magnitude(w: torch.Tensor, group: int) -> torch.Tensor:
    """Mean of ``|w|`` over the columns each group really has."""
    k = w.shape[1]
    sums = torch.nn.functional.pad(w.abs(), (0, -k % group)).reshape(w.shape[0], -1, group).sum(2)
    sizes = torch.full((sums.shape[1],), float(group))
    sizes[-1] = k - group * (sums.shape[1] - 1)
    return sums / sizes
