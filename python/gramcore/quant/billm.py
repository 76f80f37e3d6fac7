"""BiLLM: two sign planes per weight: residual levels for the salient columns, two magnitudes for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gramcore._checks import check_int, check_real
from gramcore.quant.base import Codec, QTensor, check_inputs, check_weight
from gramcore.quant.hessian import inverse_factor
from gramcore.quant.integer import needs_exact
from gramcore.quant.packed import PackedTensor, differentiable, native_ops
from gramcore.torch_ops import fake

__all__ = ["BiLLM", "BinaryTensor"]

_PERCENTILES = torch.linspace(0.1, 0.9, 81)
_Binary = tuple[int, int, int, int, int, bool]


class BinaryTensor(QTensor):
    """Sums of two sign planes per block and part: ``W = a1 s1 + a2 s2 (+ m for salient columns)``.

    The columns of every block are in two parts of fixed sizes, salient and plain, padded to whole blocks of 32.
    Buffers: ``planes`` (four packed one-bit weights: both planes of the salient columns of all blocks, both of the
    plain ones, with their magnitudes and means inside) and ``order`` (which column of x each stored column multiplies,
    -1 for padding).  Products run on the planes.
    """

    kind = "binary"
    version = 2

    def __init__(self, planes: torch.Tensor, order: torch.Tensor, numbers: _Binary) -> None:
        n, k, blocks, salient, plain, _ = numbers
        columns = blocks * (salient + plain)
        if order.dtype != torch.int32 or tuple(order.shape) != (columns,):
            raise ValueError(f"order must be {columns} int32 values, got {order.dtype} {tuple(order.shape)}")
        real = order[order >= 0].sort().values
        whole = 0 < k == len(real) and torch.equal(real, torch.arange(k, dtype=torch.int32))
        if not whole or int(order.min()) < -1:
            raise ValueError(f"order must hold every column below {k} once and -1 elsewhere, got something else")
        self.planes, self.order, self.numbers = planes, order, numbers
        self.shape = (n, k)
        self._parts()

    def _parts(self) -> list[PackedTensor]:
        """The four planes, each a packed weight over this one's bytes."""
        n, _, blocks, salient, plain, exact = self.numbers
        parts, start = [], 0
        for group, has_min in ((salient, True), (salient, False), (plain, False), (plain, False)):
            numbers = (n, blocks * group, 1, group, 1, has_min, exact)
            size = PackedTensor.packed_bytes(numbers)
            parts.append(PackedTensor(self.planes[start : start + size], numbers))
            start += size
        if start != self.planes.numel():
            raise ValueError(f"planes must be {start} bytes, got {self.planes.numel()}")
        return parts

    def buffers(self) -> dict[str, torch.Tensor]:
        return {"planes": self.planes, "order": self.order}

    def meta(self) -> dict[str, Any]:
        names = ("n", "k", "blocks", "salient", "plain", "exact_scales")
        return {"kind": self.kind, "version": self.version, **dict(zip(names, self.numbers, strict=True))}

    @classmethod
    def from_buffers(cls, meta: Mapping[str, Any], buffers: Mapping[str, torch.Tensor]) -> BinaryTensor:
        n, k, blocks, salient, plain = (int(meta[name]) for name in ("n", "k", "blocks", "salient", "plain"))
        numbers = (n, k, blocks, salient, plain, bool(meta["exact_scales"]))
        return cls(buffers["planes"].contiguous(), buffers["order"].contiguous(), numbers)

    def dequantize(self) -> torch.Tensor:
        s1, s2, p1, p2 = (part.dequantize() for part in self._parts())
        stored = torch.cat([s1 + s2, p1 + p2], 1)
        out = stored.new_empty(self.shape)
        there = self.order >= 0
        out[:, self.order[there].long()] = stored[:, there]
        return out

    def matmul(self, x: torch.Tensor, bias: torch.Tensor | None, activations: str) -> torch.Tensor:
        if x.dtype == torch.float16:
            return self.matmul(x.float(), bias, activations).to(torch.float16)
        low = None if bias is None else bias.float().contiguous()
        int8 = activations == "int8"
        if not torch.compiler.is_compiling():
            native_ops()
        return torch.ops.gramcore.linear_binary(x.contiguous(), self.planes, self.order, low, *self.numbers, int8)


@fake("linear_binary")
def _fake_binary(
    x: torch.Tensor, planes: torch.Tensor, order: torch.Tensor, bias: torch.Tensor | None, n: int, *_rest: Any
) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], n))


def _save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    _, planes, order, bias, *numbers = inputs
    ctx.save_for_backward(planes, order)
    ctx.numbers, ctx.has_bias = numbers[:-1], bias is not None


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    planes, order = ctx.saved_tensors
    weight = BinaryTensor(planes, order, tuple(ctx.numbers)).dequantize()
    grad_bias = grad.float().reshape(-1, grad.shape[-1]).sum(0) if ctx.has_bias else None
    return (grad.float() @ weight).to(grad.dtype), None, None, grad_bias, *([None] * 7)


differentiable("linear_binary", _backward, _save)


class BiLLM(Codec):
    """Binary weights guided by the Hessian ``H = 2 X^T X`` of the sample inputs.

    Blocks of ``block`` columns, left to right.  Columns are ranked by ``sum_n w^2 / diag(U)^2`` with ``U`` the upper
    Cholesky factor of ``H^-1``; the first ``salient`` ones get two residual levels, ``w ~ mu + a1 s1 + a2 s2`` with
    ``s1 = sgn(w - mu)`` and ``s2`` the sign of what is left.  The others are split at the best of 81 percentiles of
    ``|w|`` into two groups of magnitudes ``lo`` and ``hi``, each times ``sgn(w)``; stored as the same kind of sum,
    ``a1 s1 + a2 s2`` with ``a1, a2 = (hi +- lo) / 2``.  The error of a block is carried to later columns through ``U``.

    Cost: one Cholesky factorisation ``O(K^3)`` and about 85 passes over every block.
    Storage: two bits per weight and five fp16 numbers per row and block: 2.63 bits at 128 columns.  (The paper's 1.08
    bits leave out the membership bitmap and the magnitudes.)

    Args:
        block: columns per block, a multiple of 32.
        salient: salient columns per block, a multiple of 32 below ``block``; at most 128, as is ``block - salient``.
        damping: in (0, 1]: added to the diagonal of H as a share of its mean.

    Shapes:
        weight ``(N, K)``; inputs ``(T, K)``.

    Raises:
        ValueError: an argument outside its interval; inputs missing or of the wrong width; a weight that is not a
            finite matrix.
        TypeError: a weight that is not floating point.

    Differs from paper: magnitudes of split groups are per row, as its code has them; the number of salient columns is
        fixed instead of searched, so that planes are whole kernel blocks (both kinds of column cost two bits; a search
        up to 30 of 128 columns took 30 in every block of the SmolLM2 matrices tried); fp16 magnitudes.

    Reference: Huang et al. 2024, arXiv:2402.04291, Alg. 1 and 2.

    Example:
        >>> import torch
        >>> from gramcore.quant import BiLLM
        >>> w, x = torch.randn(8, 128), torch.randn(256, 128)
        >>> BiLLM().quantize(w, x).shape
        (8, 128)
    """

    needs_inputs = True

    def __init__(self, *, block: int = 128, salient: int = 32, damping: float = 0.01) -> None:
        self.block = check_int("block", block, low=64, high=256)
        self.salient = check_int("salient", salient, low=32, high=128)
        for name, value in (("block", block), ("salient", salient)):
            if value % 32:
                raise ValueError(f"{name} must be a multiple of 32, got {value}")
        if not 32 <= block - salient <= 128:
            raise ValueError(f"block - salient must be in [32, 128], got {block} - {salient}")
        self.damping = check_real("damping", damping, low=0.0, high=1.0, low_open=True)

    def quantize(self, weight: torch.Tensor, inputs: torch.Tensor | None = None) -> BinaryTensor:
        """Quantise ``weight`` ``(N, K)`` for the inputs ``(T, K)`` it will see."""
        w = check_weight(weight).clone()
        n, k = w.shape
        x = check_inputs(inputs, k).double()
        upper = inverse_factor(2 * (x.T @ x), self.damping)
        exact = needs_exact(w, w.abs().amax(1))
        blocks = -(-k // self.block)
        plain = self.block - self.salient
        parts = (_Part(n, blocks, self.salient), _Part(n, blocks, plain))
        for b in range(blocks):
            columns = torch.arange(b * self.block, min(k, (b + 1) * self.block))
            u = upper[columns][:, columns]
            rank = (w[:, columns].square() / u.diagonal().square()).sum(0).argsort(descending=True, stable=True)
            # A last block without room for all is divided in the same proportion, but never beyond a part's size.
            count = max(self.salient * len(columns) // self.block, len(columns) - plain)
            value = torch.empty(n, len(columns))
            for part, chosen, split in ((parts[0], rank[:count], _residual), (parts[1], rank[count:], _split)):
                chosen = chosen.sort().values
                if len(chosen):
                    value[:, chosen] = part.set(b, columns[chosen], split(w[:, columns[chosen]], exact))
            error = (w[:, columns] - value) / u.diagonal()
            rest = int(columns[-1]) + 1
            w[:, rest:] -= error @ upper[columns, rest:]
        planes = torch.cat(
            [plane for part, low in zip(parts, (True, False), strict=True) for plane in part.pack(low, exact)]
        )
        order = torch.cat([part.order.reshape(-1) for part in parts]).to(torch.int32)
        return BinaryTensor(planes, order, (n, k, blocks, self.salient, plain, exact))


class _Part:
    """The planes of one part of the columns of every block, while they are made."""

    def __init__(self, n: int, blocks: int, group: int) -> None:
        self.group = group
        self.signs = torch.zeros(2, n, blocks * group, dtype=torch.uint8)
        self.magnitudes = torch.zeros(2, n, blocks)
        self.mean = torch.zeros(n, blocks)
        self.order = torch.full((blocks, group), -1)

    def set(self, block: int, columns: torch.Tensor, form: _Form) -> torch.Tensor:
        """Keeps the form of one block's columns; returns the values it stands for."""
        signs, magnitudes, mean = form
        first = block * self.group
        self.signs[:, :, first : first + len(columns)] = signs
        self.magnitudes[:, :, block], self.mean[:, block] = magnitudes, mean
        self.order[block, : len(columns)] = columns
        # In the order of the kernels, so that rounding errors are carried on as they will occur.
        s = 2.0 * signs - 1.0
        return (magnitudes[0].unsqueeze(1) * s[0] + mean.unsqueeze(1)) + magnitudes[1].unsqueeze(1) * s[1]

    def pack(self, with_mean: bool, exact: bool) -> list[torch.Tensor]:
        return [
            PackedTensor.pack(
                self.signs[i],
                self.magnitudes[i],
                self.mean if with_mean and i == 0 else None,
                bits=1,
                group_size=self.group,
                zero=1,
                exact_scales=exact,
            ).packed
            for i in range(2)
        ]


#: signs (2, N, columns) as 0 and 1, magnitudes (2, N), mean (N,)
_Form = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _stored(x: torch.Tensor, exact: bool) -> torch.Tensor:
    return x if exact else x.half().float()


def _residual(w: torch.Tensor, exact: bool) -> _Form:
    """Two-level binarisation of columns around their mean per row."""
    mean = _stored(w.mean(1), exact)
    first = w - mean.unsqueeze(1)
    a1 = _stored(first.abs().mean(1), exact)
    s1 = first >= 0
    rest = first - torch.where(s1, 1.0, -1.0) * a1.unsqueeze(1)
    a2 = _stored(rest.abs().mean(1), exact)
    return torch.stack([s1, rest >= 0]).to(torch.uint8), torch.stack([a1, a2]), mean


def _split(w: torch.Tensor, exact: bool) -> _Form:
    """Two magnitude groups at the best percentile of the block, as a sum of two signs."""
    size, sign = w.abs(), w >= 0
    best: _Form | None = None
    best_loss = float("inf")
    for cut in torch.quantile(size.reshape(-1)[: 1 << 20], _PERCENTILES):
        large = size > cut
        low = (size * ~large).sum(1) / (~large).sum(1).clamp_min(1)
        high = (size * large).sum(1) / large.sum(1).clamp_min(1)
        loss = float((torch.where(large, high.unsqueeze(1), low.unsqueeze(1)) - size).square().sum())
        if loss < best_loss:
            best_loss = loss
            magnitudes = _stored(torch.stack([(high + low) / 2, (high - low) / 2]), exact)
            best = torch.stack([sign, sign == large]).to(torch.uint8), magnitudes, torch.zeros(w.shape[0])
    assert best is not None
    return best
