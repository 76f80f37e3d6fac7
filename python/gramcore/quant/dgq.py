"""DGQ: dual-grained quantisation, 4-bit groups inside one int8 scale per output channel."""

from __future__ import annotations

import torch

from gramcore._checks import check_real
from gramcore.quant.base import Codec, QTensor, check_inputs, check_weight
from gramcore.quant.integer import IntCodec, grouped, needs_exact
from gramcore.quant.packed import PackedTensor
from gramcore.quant.smooth import SmoothTensor, smoothing_factors

__all__ = ["DGQ"]

_GROUP_RATIOS = tuple(1.02 - 0.011 * (i + 1) for i in range(20))
_CHANNEL_RATIOS = tuple(1.02 - 0.041 * (i + 1) for i in range(20))
_BATCH = 1 << 18  # weights whose intermediate values stay in cache


class DGQ(Codec):
    """Smoothed weights in group int4 codes whose scales are small integers times one scale per channel.

    Smoothing: column c of the weight is multiplied, and column c of the inputs divided, by
    ``(mean |x_c| / mean |x|)^a``, so that columns with large inputs are rounded finely and inputs spread less; a is 0,
    ``smoothing / 2`` or ``smoothing``, whichever gives plain rounding the least output error.
    Step 1 clips every group of ``group_size`` columns: of 20 shrunk asymmetric 4-bit ranges the one of least output
    error ``|| X_g (w_g - q_g) ||^2`` on the sample inputs.  Step 2 chooses per channel a scale ``s8 = r max|W| / 127``
    out of 20 ratios r, rounds group scales to ``k = max(1, round(s_g / s8))``, and recomputes the codes so that
    ``|(q - z) k| <= 127``: ``(q - z) k`` is an int8 weight with a single scale per channel, ``w = s8 k (q - z)``.

    Cost: 40 passes over the weight and, for every ratio of step 1, one ``(N, g)`` by ``(g, g)`` product per group.
    Storage: ``4 + 32 / group_size`` bits per weight and a number per column.

    Args:
        group_size: 32, 64 or 128.
        smoothing: the largest power tried, in [0, 1]; 0 for none.

    Shapes:
        weight ``(N, K)``; inputs ``(T, K)``.

    Raises:
        ValueError: inputs missing or of the wrong width; a weight that is not a finite matrix.
        TypeError: a weight that is not floating point.

    Differs from paper: all columns are smoothed, by their mean magnitude, not the 0.5 % of largest ones by their
        maximum, and inputs are scaled when products run instead of in the layer before.  Products run in the
        group-scaled int4 kernel with activations scaled per block of 32 columns instead of per token; scales are
        stored in fp16.  Step 2 tries every fourth of the 80 ratios and weighs errors by the inputs.

    Reference: Zhang et al. 2023, arXiv:2310.04836, section 3.

    Example:
        >>> import torch
        >>> from gramcore.quant import DGQ
        >>> w, x = torch.randn(16, 128), torch.randn(32, 128)
        >>> DGQ(smoothing=0).quantize(w, x).bits_per_weight()
        4.5
    """

    needs_inputs = True

    def __init__(self, *, group_size: int = 64, smoothing: float = 0.5) -> None:
        if group_size not in (32, 64, 128):
            raise ValueError(f"group_size must be 32, 64 or 128, got {group_size!r}")
        self.group_size = group_size
        self.smoothing = check_real("smoothing", smoothing, low=0.0, high=1.0)

    def quantize(self, weight: torch.Tensor, inputs: torch.Tensor | None = None) -> QTensor:
        """Quantise ``weight`` ``(N, K)`` for the inputs ``(T, K)`` it will see."""
        w = check_weight(weight)
        x = check_inputs(inputs, w.shape[1])
        if self.smoothing == 0:
            return self._quantize(w, x)
        factors = self._factors(w, x)
        return SmoothTensor(self._quantize(w * factors, x / factors), 1 / factors)

    def _factors(self, w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Of no, half and full smoothing the one after which plain rounding has the least output error."""
        gram = x.T @ x
        best, best_loss = torch.ones(w.shape[1]), float("inf")
        for power in (0.0, self.smoothing / 2, self.smoothing):
            factors = smoothing_factors(x, power)
            q = IntCodec(bits=4, group_size=self.group_size, symmetric=False).quantize(w * factors)
            error = q.dequantize() / factors - w
            loss = float(((error @ gram) * error).sum())
            if loss < best_loss:
                best, best_loss = factors, loss
        return best

    def _quantize(self, w: torch.Tensor, x: torch.Tensor) -> PackedTensor:
        groups, grams = grouped(w, self.group_size), _grams(x, self.group_size)
        parts = [_rounded(rows, grams) for rows in torch.split(groups, max(1, _BATCH // w.shape[1]))]
        codes, scale, zeros = (torch.cat(values) for values in zip(*parts, strict=True))
        return PackedTensor.pack(
            codes.reshape(w.shape[0], -1)[:, : w.shape[1]].to(torch.uint8),
            scale,
            -scale * zeros,
            bits=4,
            group_size=self.group_size,
            zero=0,
            exact_scales=needs_exact(groups, scale),
        )


def _grams(x: torch.Tensor, group: int) -> torch.Tensor:
    """``X_g^T X_g`` of every group of columns, ``(G, g, g)``."""
    x = torch.nn.functional.pad(x, (0, -x.shape[1] % group)).reshape(x.shape[0], -1, group).transpose(0, 1)
    return x.transpose(1, 2) @ x


def _rounded(w: torch.Tensor, grams: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes ``(N, G, g)``, scales and zero points ``(N, G)`` of some rows."""
    scales, zeros = _clip_groups(w, grams)
    k, s8 = _channel_scales(w, scales, zeros, grams.diagonal(dim1=1, dim2=2))
    scale = k * s8.unsqueeze(1)
    return _codes(w, scale, zeros, k), scale, zeros


def _clip_groups(w: torch.Tensor, grams: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zero points ``(N, G)`` of the best ratio of every group."""
    best_loss = torch.full(w.shape[:2], torch.inf)
    best_scale, best_zero = torch.zeros_like(best_loss), torch.zeros_like(best_loss)
    for ratio in _GROUP_RATIOS:
        low, high = (w.amin(2) * ratio).clamp_max(0), (w.amax(2) * ratio).clamp_min(0)
        scale = (high - low) / 15
        zero = torch.round(-low / scale.clamp_min(1e-30)).clamp_(0, 15)
        error = _codes(w, scale, zero, None).sub_(zero.unsqueeze(2)).mul_(scale.unsqueeze(2)).sub_(w)
        carried = (error.transpose(0, 1) @ grams).transpose(0, 1)
        loss = carried.mul_(error).sum(2)
        better = loss < best_loss
        best_loss = torch.where(better, loss, best_loss)
        best_scale, best_zero = torch.where(better, scale, best_scale), torch.where(better, zero, best_zero)
    return best_scale, best_zero


def _codes(w: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, k: torch.Tensor | None) -> torch.Tensor:
    """Codes 0 .. 15, restricted to ``|(q - z) k| <= 127`` when ``k`` is given."""
    safe = torch.where(scale == 0, 1.0, scale).unsqueeze(2)
    q = torch.round(w / safe)
    if k is not None:
        most = torch.floor(127 / k).unsqueeze(2)
        q = torch.minimum(torch.maximum(q, -most), most)
    z = zero.unsqueeze(2)
    return torch.where(scale.unsqueeze(2) == 0, z, (q + z).clamp(0, 15))


def _channel_scales(
    w: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, importance: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Integer multipliers ``(N, G)`` and channel scales ``(N,)`` of least weighted error."""
    top = w.abs().amax((1, 2))
    best_loss = torch.full_like(top, torch.inf)
    best_k, best_s = torch.ones_like(scales), top / 127
    for ratio in _CHANNEL_RATIOS:
        s8 = ratio * top / 127
        k = torch.round(scales / torch.where(s8 == 0, 1.0, s8).unsqueeze(1)).clamp_(1, 127)
        scale = k * s8.unsqueeze(1)
        error = _codes(w, scale, zeros, k).sub_(zeros.unsqueeze(2)).mul_(scale.unsqueeze(2)).sub_(w)
        loss = error.square_().mul_(importance).sum((1, 2))
        better = loss < best_loss
        best_loss = torch.where(better, loss, best_loss)
        best_s = torch.where(better, s8, best_s)
        best_k = torch.where(better.unsqueeze(1), k, best_k)
    return best_k, best_s
