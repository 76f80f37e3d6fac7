"""Token bitmasks on logits: 32 tokens per int32 word, bit i of word i // 32 set when token i is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from gramcore._checks import check_int
from gramcore.torch_ops import ops

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["allocate_bitmask", "apply_bitmask_"]

_apply = ops().apply_bitmask_.default  # at import, so that torch.compile never traces the registration


def allocate_bitmask(num_rows: int, vocab_size: int) -> Tensor:
    """Masks that allow every token.

    Args: num_rows: rows, >= 0.  vocab_size: V, >= 1.
    Returns: (num_rows, ceil(V / 32)) int32.
    Raises: ValueError or TypeError for sizes outside these.
    """
    check_int("num_rows", num_rows, low=0)
    check_int("vocab_size", vocab_size, low=1)
    return torch.full((num_rows, (vocab_size + 31) // 32), -1, dtype=torch.int32)


def apply_bitmask_(logits: Tensor, bitmask: Tensor, rows: Sequence[int] | Tensor | None = None) -> Tensor:
    """Set the logits of forbidden tokens to -inf, in place, and return ``logits``.

    logits[r, t] = -inf where bit t % 32 of bitmask[r, t // 32] is 0.  Allowed logits are not touched; bytes moved are
    V / 8 per row plus the cache lines that hold a forbidden token.  CPU kernels per instruction set; the CUDA twin is
    compiled and emulated, not run on a GPU.

    Args:
        logits: (B, V) or (V,), float32, float16 or bfloat16, dense along V; rows may be strided.
        bitmask: (B, W) or (W,) int32 with W >= ceil(V / 32); words past V are ignored.
        rows: distinct rows of both to work on; default all, and then both have the same number of rows.

    Raises:
        ValueError, TypeError, IndexError: shapes disagree, wrong dtype or device, a row out of range.

    >>> logits = torch.zeros(1, 4)
    >>> apply_bitmask_(logits, torch.tensor([[0b0101]], dtype=torch.int32))
    tensor([[0., -inf, 0., -inf]])
    """
    _check(logits, bitmask)
    if rows is not None and not isinstance(rows, torch.Tensor):
        rows = torch.tensor(list(rows), dtype=torch.int32, device=logits.device)
    if isinstance(rows, torch.Tensor):
        limit = min(len(logits), len(bitmask)) if logits.ndim == 2 else 1
        if rows.dtype != torch.int32 or rows.ndim != 1:
            raise TypeError(f"rows must be a 1-D int32 tensor or a list, got {rows.dtype} of shape {tuple(rows.shape)}")
        if rows.device.type == "cpu" and rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < limit:
            raise IndexError(f"rows must be in [0, {limit}), got values from {int(rows.min())} to {int(rows.max())}")
    matrix = logits if logits.ndim == 2 else logits.unsqueeze(0)
    _apply(matrix, bitmask if bitmask.ndim == 2 else bitmask.unsqueeze(0), rows)
    return logits


def _check(logits: Tensor, bitmask: Tensor) -> None:
    # Errors raised inside a torch operator arrive as RuntimeError: check here what a caller can get wrong.
    if logits.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f"logits must be float32, float16 or bfloat16, got {logits.dtype}")
    if bitmask.dtype != torch.int32:
        raise ValueError(f"bitmask must be int32, got {bitmask.dtype}")
    if logits.device != bitmask.device:
        raise TypeError(f"bitmask must be on the device of logits, got {bitmask.device} (logits {logits.device})")
    if logits.ndim not in (1, 2) or bitmask.ndim != logits.ndim:
        raise ValueError(
            f"logits and bitmask must both be (rows, ...) or both a single row, got shapes {tuple(logits.shape)} "
            f"and {tuple(bitmask.shape)}"
        )
    words = (logits.shape[-1] + 31) // 32
    if bitmask.shape[-1] < words:
        raise ValueError(
            f"bitmask must have at least {words} words for {logits.shape[-1]} tokens, got {bitmask.shape[-1]}"
        )
    if logits.shape[-1] > 1 and logits.stride(-1) != 1:
        raise ValueError("logits must be dense along the vocabulary, got a strided view; call .contiguous()")
