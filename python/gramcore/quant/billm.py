"""BiLLM: one bit per weight, two for the salient columns, a bitmap for two magnitudes of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gramcore._checks import check_int, check_real
from gramcore.quant.base import Codec, QTensor, check_inputs, check_weight

__all__ = ["BiLLM", "BinaryTensor"]

_BITS = (1 << torch.arange(8)).to(torch.uint8)
_PERCENTILES = torch.linspace(0.1, 0.9, 81)


class BinaryTensor(QTensor):
    """Blocks of columns as sign bits: salient columns with two residual levels, the others with two magnitude groups.

    Per row and block: ``mean``, ``salient`` (the magnitudes of the two levels) and ``plain`` (of the small and the
    large group) in fp32.  Bit planes, eight columns to a byte: ``sign``, ``second`` (sign of the residual of salient
    columns, membership in the large group of the others); ``columns`` marks salient columns.  Two planes and five
    numbers per row and block are stored; products dequantise first: the form saves memory, not time.
    """

    kind = "binary"
    _NAMES = ("sign", "second", "columns", "mean", "salient", "plain")

    def __init__(self, buffers: Mapping[str, torch.Tensor], k: int, block: int) -> None:
        self._buffers = {name: buffers[name] for name in self._NAMES}
        check_int("k", k, low=1)
        check_int("block", block, low=1)
        n, width, blocks = self._buffers["sign"].shape[0], -(-k // 8), -(-k // block)
        wanted = {
            "sign": (torch.uint8, (n, width)),
            "second": (torch.uint8, (n, width)),
            "columns": (torch.uint8, (width,)),
            "mean": (torch.float32, (n, blocks)),
            "salient": (torch.float32, (n, blocks, 2)),
            "plain": (torch.float32, (n, blocks, 2)),
        }
        for name, (dtype, shape) in wanted.items():
            value = self._buffers[name]
            if value.dtype != dtype or tuple(value.shape) != shape:
                raise ValueError(f"{name} must be {dtype} {shape}, got {value.dtype} {tuple(value.shape)}")
        self.block = block
        self.shape = (n, k)

    def buffers(self) -> dict[str, torch.Tensor]:
        return dict(self._buffers)

    def meta(self) -> dict[str, Any]:
        return {"kind": self.kind, "version": self.version, "k": self.shape[1], "block": self.block}

    @classmethod
    def from_buffers(cls, meta: Mapping[str, Any], buffers: Mapping[str, torch.Tensor]) -> BinaryTensor:
        return cls(buffers, int(meta["k"]), int(meta["block"]))

    def dequantize(self) -> torch.Tensor:
        k = self.shape[1]
        sign, second = (2.0 * _unpack(self._buffers[name], k) - 1.0 for name in ("sign", "second"))
        columns = _unpack(self._buffers["columns"].unsqueeze(0), k).bool()
        of = torch.arange(k) // self.block
        mean, salient, plain = (self._buffers[name][:, of] for name in ("mean", "salient", "plain"))
        residual = mean + sign * salient[..., 0] + second * salient[..., 1]
        split = sign * torch.where(second > 0, plain[..., 1], plain[..., 0])
        return torch.where(columns, residual, split)

    def matmul(self, x: torch.Tensor, bias: torch.Tensor | None, activations: str) -> torch.Tensor:
        low = None if bias is None else bias.float()
        return torch.nn.functional.linear(x.float(), self.dequantize(), low).to(x.dtype)


class BiLLM(Codec):
    """Binary weights guided by the Hessian ``H = 2 X^T X`` of the sample inputs.

    Blocks of ``block`` columns, left to right.  Columns are ranked by ``sum_n w^2 / diag(U)^2`` with ``U`` the upper
    Cholesky factor of ``H^-1``; the number of salient ones (up to ``max_salient``) is the one of least error.  Salient
    columns: ``w ~ mu + a1 sgn(w - mu) + a2 sgn(residual)``.  The others are split at the best of 81 percentiles of
    ``|w|`` into two groups, each ``a sgn(w)``.  The error of a block is carried to later columns through ``U``.

    Cost: one Cholesky factorisation ``O(K^3)`` and about ``max_salient + 81`` passes over every block.
    Storage: two bits per weight and five fp32 numbers per row and block: 3.25 bits at 128 columns.  (The paper's 1.08
    bits leave out the membership bitmap and the scales.)

    Args:
        block: columns per block, ``>= 8``.
        max_salient: most salient columns per block, in ``[1, block - 1]``.
        damping: in (0, 1]: added to the diagonal of H as a share of its mean.

    Shapes:
        weight ``(N, K)``; inputs ``(T, K)``.

    Raises:
        ValueError: an argument outside its interval; inputs missing or of the wrong width; a weight that is not a
            finite matrix.
        TypeError: a weight that is not floating point.

    Differs from paper: magnitudes of split groups are per row, as its code has them; salient columns are chosen and
        scored on the weight; scales in fp32.

    Reference: Huang et al. 2024, arXiv:2402.04291, Alg. 1 and 2.

    Example:
        >>> import torch
        >>> from gramcore.quant import BiLLM
        >>> w, x = torch.randn(8, 128), torch.randn(256, 128)
        >>> BiLLM().quantize(w, x).shape
        (8, 128)
    """

    needs_inputs = True

    def __init__(self, *, block: int = 128, max_salient: int = 30, damping: float = 0.01) -> None:
        self.block = check_int("block", block, low=8)
        self.max_salient = check_int("max_salient", max_salient, low=1, high=self.block - 1)
        self.damping = check_real("damping", damping, low=0.0, high=1.0, low_open=True)

    def quantize(self, weight: torch.Tensor, inputs: torch.Tensor | None = None) -> BinaryTensor:
        """Quantise ``weight`` ``(N, K)`` for the inputs ``(T, K)`` it will see."""
        w = check_weight(weight).clone()
        n, k = w.shape
        upper = _inverse_factor(check_inputs(inputs, k), self.damping)
        blocks = -(-k // self.block)
        sign, second = torch.zeros(n, k, dtype=torch.bool), torch.zeros(n, k, dtype=torch.bool)
        columns = torch.zeros(k, dtype=torch.bool)
        mean, salient, plain = torch.zeros(n, blocks), torch.zeros(n, blocks, 2), torch.zeros(n, blocks, 2)
        for b in range(blocks):
            part = slice(b * self.block, min(k, (b + 1) * self.block))
            u = upper[part, part]
            order = (w[:, part].square() / u.diagonal().square()).sum(0).argsort(descending=True, stable=True)
            mask = self._salient_columns(w[:, part], order)
            value, pieces = _binarise(w[:, part], mask)
            sign[:, part], second[:, part], columns[part] = pieces["sign"], pieces["second"], mask
            mean[:, b], salient[:, b], plain[:, b] = pieces["mean"], pieces["salient"], pieces["plain"]
            error = (w[:, part] - value) / u.diagonal()
            w[:, part.stop :] -= error @ upper[part, part.stop :]
        planes = {"sign": _pack(sign), "second": _pack(second), "columns": _pack(columns.unsqueeze(0))[0]}
        return BinaryTensor({**planes, "mean": mean, "salient": salient, "plain": plain}, k, self.block)

    def _salient_columns(self, w: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        best_loss, best = float("inf"), torch.zeros(w.shape[1], dtype=torch.bool)
        for count in range(1, min(self.max_salient, w.shape[1]) + 1):
            mask = torch.zeros(w.shape[1], dtype=torch.bool)
            mask[order[:count]] = True
            residual = _residual(w[:, mask])[0]
            rest = w[:, ~mask]
            one_level = rest.sign() * rest.abs().mean(1, keepdim=True) if rest.shape[1] else rest
            loss = float((residual - w[:, mask]).square().sum() + (one_level - rest).square().sum())
            if loss < best_loss:
                best_loss, best = loss, mask
        return best


def _inverse_factor(x: torch.Tensor, damping: float) -> torch.Tensor:
    """Upper Cholesky factor of the inverse of the damped Hessian, in fp32."""
    h = 2 * (x.double().T @ x.double())
    mean = float(h.diagonal().mean())
    h += torch.eye(h.shape[0], dtype=torch.float64) * (damping * mean if mean > 0 else 1.0)
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True).float()


def _residual(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two-level binarisation of columns: value, signs of both levels, mean and magnitudes per row."""
    mean = w.mean(1)
    first = w - mean.unsqueeze(1)
    a1 = first.abs().mean(1)
    s1 = first >= 0
    rest = first - torch.where(s1, 1.0, -1.0) * a1.unsqueeze(1)
    a2 = rest.abs().mean(1)
    s2 = rest >= 0
    value = (
        mean.unsqueeze(1) + torch.where(s1, 1.0, -1.0) * a1.unsqueeze(1) + torch.where(s2, 1.0, -1.0) * a2.unsqueeze(1)
    )
    return value, s1, s2, mean, torch.stack([a1, a2], 1)


def _split(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two magnitude groups at the best percentile of the block: value, membership in the large one, magnitudes."""
    size = w.abs()
    best: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
    best_loss = float("inf")
    for cut in torch.quantile(size.reshape(-1)[: 1 << 20], _PERCENTILES):
        large = size > cut
        low = (size * ~large).sum(1) / (~large).sum(1).clamp_min(1)
        high = (size * large).sum(1) / large.sum(1).clamp_min(1)
        value = torch.where(w >= 0, 1.0, -1.0) * torch.where(large, high.unsqueeze(1), low.unsqueeze(1))
        loss = float((value - w).square().sum())
        if loss < best_loss:
            best_loss, best = loss, (value, large, torch.stack([low, high], 1))
    assert best is not None
    return best


def _binarise(w: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    value, sign, second = torch.zeros_like(w), w >= 0, torch.zeros_like(w, dtype=torch.bool)
    mean, salient, plain = torch.zeros(w.shape[0]), torch.zeros(w.shape[0], 2), torch.zeros(w.shape[0], 2)
    if bool(mask.any()):
        value[:, mask], sign[:, mask], second[:, mask], mean, salient = _residual(w[:, mask])
    if not bool(mask.all()):
        value[:, ~mask], second[:, ~mask], plain = _split(w[:, ~mask])
    return value, {"sign": sign, "second": second, "mean": mean, "salient": salient, "plain": plain}


def _pack(bits: torch.Tensor) -> torch.Tensor:
    padded = torch.nn.functional.pad(bits.to(torch.uint8), (0, -bits.shape[1] % 8))
    return (padded.reshape(bits.shape[0], -1, 8) * _BITS).sum(2).to(torch.uint8)


def _unpack(planes: torch.Tensor, k: int) -> torch.Tensor:
    return ((planes.unsqueeze(2) & _BITS) != 0).reshape(planes.shape[0], -1)[:, :k].float()
