"""DGQ: dual-grained quantisation, 4-bit groups inside one int8 scale per output channel."""

from __future__ import annotations

import torch

from gramcore._checks import check_int
from gramcore.quant.base import Codec, check_inputs, check_weight
from gramcore.quant.integer import grouped
from gramcore.quant.packed import PackedTensor

__all__ = ["DGQ"]

_GROUP_RATIOS = tuple(1.02 - 0.011 * (i + 1) for i in range(20))
_CHANNEL_RATIOS = tuple(1.02 - 0.01025 * (i + 1) for i in range(80))


class DGQ(Codec):
    """Group int4 codes whose scales are small integers times one scale per channel.

    Step 1 clips every group of ``group_size`` columns: of 20 shrunk asymmetric 4-bit ranges the one of least output
    error ``|| X_g (w_g - q_g) ||^2`` on the sample inputs.  Step 2 chooses per channel a scale ``s8 = r max|W| / 127``
    out of 80 ratios r, rounds group scales to ``k = max(1, round(s_g / s8))``, and recomputes the codes so that
    ``|(q - z) k| <= 127``: ``(q - z) k`` is an int8 weight with a single float scale per channel, ``w = s8 k (q - z)``.

    Cost: 100 passes over the weight and one ``(T, g)`` by ``(g, N)`` product per group and ratio of step 1.
    Storage: 4 bits and two fp32 values per group: 4.5 bits at 128 columns.

    Args:
        group_size: 32, 64 or 128.
        max_rows: ``>= 1``; sample inputs beyond that many rows are not used.

    Shapes:
        weight ``(N, K)``; inputs ``(T, K)``.

    Raises:
        ValueError: inputs missing or of the wrong width; a weight that is not a finite matrix.
        TypeError: a weight that is not floating point.

    Differs from paper: products run in the group-scaled int4 kernel with activations scaled per block of 32 columns
        instead of per token; smoothing of activation channels is left to the caller.

    Reference: Zhang et al. 2023, arXiv:2310.04836, section 3.

    Example:
        >>> import torch
        >>> from gramcore.quant import DGQ
        >>> w, x = torch.randn(8, 128), torch.randn(32, 128)
        >>> DGQ(group_size=128).quantize(w, x).bits
        4
    """

    needs_inputs = True

    def __init__(self, *, group_size: int = 128, max_rows: int = 256) -> None:
        if group_size not in (32, 64, 128):
            raise ValueError(f"group_size must be 32, 64 or 128, got {group_size!r}")
        self.group_size = group_size
        self.max_rows = check_int("max_rows", max_rows, low=1)

    def quantize(self, weight: torch.Tensor, inputs: torch.Tensor | None = None) -> PackedTensor:
        """Quantise ``weight`` ``(N, K)`` for the inputs ``(T, K)`` it will see."""
        w = check_weight(weight)
        x = check_inputs(inputs, w.shape[1])[: self.max_rows]
        groups = grouped(w, self.group_size)
        scales, zeros = self._clip_groups(groups, _grouped_inputs(x, self.group_size))
        k, s8 = _channel_scales(groups, scales, zeros)
        scale = k * s8.unsqueeze(1)
        codes = _codes(groups, scale, zeros, k)
        return PackedTensor.pack(
            codes.reshape(w.shape[0], -1)[:, : w.shape[1]].to(torch.uint8),
            scale,
            -scale * zeros,
            bits=4,
            group_size=self.group_size,
            zero=0,
            exact_scales=True,
        )

    def _clip_groups(self, w: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scales and zero points ``(N, G)`` of the best ratio of every group."""
        best: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        gram = torch.einsum("tgi,tgj->gij", x, x)
        for ratio in _GROUP_RATIOS:
            low, high = (w.amin(2) * ratio).clamp_max(0), (w.amax(2) * ratio).clamp_min(0)
            scale = (high - low) / 15
            zero = torch.round(-low / scale.clamp_min(1e-30)).clamp_(0, 15)
            error = _codes(w, scale, zero, None).sub_(zero.unsqueeze(2)).mul_(scale.unsqueeze(2)).sub_(w)
            loss = torch.einsum("ngi,gij,ngj->ng", error, gram, error)
            if best is None:
                best = (loss, scale, zero)
            else:
                better = loss < best[0]
                best = tuple(torch.where(better, a, b) for a, b in zip((loss, scale, zero), best, strict=True))  # type: ignore[assignment]
        assert best is not None
        return best[1], best[2]


def _grouped_inputs(x: torch.Tensor, group: int) -> torch.Tensor:
    missing = -x.shape[1] % group
    return torch.nn.functional.pad(x, (0, missing)).reshape(x.shape[0], -1, group)


def _codes(w: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, k: torch.Tensor | None) -> torch.Tensor:
    """Codes 0 .. 15, restricted to ``|(q - z) k| <= 127`` when ``k`` is given."""
    safe = torch.where(scale == 0, 1.0, scale).unsqueeze(2)
    q = torch.round(w / safe)
    if k is not None:
        most = torch.floor(127 / k).unsqueeze(2)
        q = torch.minimum(torch.maximum(q, -most), most)
    z = zero.unsqueeze(2)
    return torch.where(scale.unsqueeze(2) == 0, z, (q + z).clamp(0, 15))


def _channel_scales(w: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Integer multipliers ``(N, G)`` and channel scales ``(N,)`` of least weight error."""
    top = w.abs().amax((1, 2))
    best_loss = torch.full_like(top, torch.inf)
    best_k, best_s = torch.ones_like(scales), top / 127
    for ratio in _CHANNEL_RATIOS:
        s8 = ratio * top / 127
        k = torch.round(scales / torch.where(s8 == 0, 1.0, s8).unsqueeze(1)).clamp_(1, 127)
        scale = k * s8.unsqueeze(1)
        value = (_codes(w, scale, zeros, k) - zeros.unsqueeze(2)) * scale.unsqueeze(2)
        loss = (value - w).square().sum((1, 2))
        better = loss < best_loss
        best_loss = torch.where(better, loss, best_loss)
        best_s = torch.where(better, s8, best_s)
        best_k = torch.where(better.unsqueeze(1), k, best_k)
    return best_k, best_s
