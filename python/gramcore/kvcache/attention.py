"""Tree attention and path compaction over caches of shape (batch, KV heads, slots, head dimension)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gramcore.torch_ops import fake, ops

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["kv_compact_", "quantize_slots", "tree_attention", "tree_attention_ragged"]

_ops = ops()  # at import, so that torch.compile never traces the registration


@fake("tree_attention")
def _tree_attention_fake(
    query: Any,
    key: Any,
    value: Any,
    lengths: Any,
    ancestors: Any,
    starts: Any,
    scale: float,
    key_scale: Any = None,
    value_scale: Any = None,
) -> Any:
    batch, heads, nodes, dim = query.shape
    return query.new_empty((batch, nodes, heads, dim))


def tree_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Tensor,
    *,
    ancestors: Tensor | None = None,
    starts: Tensor | None = None,
    scale: float | None = None,
    key_scale: Tensor | None = None,
    value_scale: Tensor | None = None,
) -> Tensor:
    """Attention of n new rows per sequence over a preallocated cache that already holds their keys and values.

    out[b, i, h] = sum_j softmax_j(scale · q[b, h, i] · k[b, h // G, j]) v[b, h // G, j] over the slots j that row i
    sees: starts[b] <= j < lengths[b], and slot lengths[b] + t for every node t in ``ancestors[i]`` (without
    ``ancestors``: t <= i, causal).  A row's result does not depend on the number of rows, and with fp32 or fp16
    queries it does not depend on unseen slots between the ancestors either: bit for bit what decoding the path
    token by token gives.  Cost: one pass over keys and values per 64 rows of one KV head; nothing is expanded
    for grouped heads.

    Args:
        query: (B, H, n, D), float32, bfloat16 or float16; products of bfloat16 queries may use bf16 pairs with
            fp32 accumulation.
        key, value: (B, Hkv, T, D) with H a multiple of Hkv; any strides, dense along D; one dtype, which may
            differ from the query's.  int8 needs ``key_scale`` and ``value_scale``.
        lengths: (B,) int64, slots in use before the new rows; lengths + n <= T.
        ancestors: (n, W) or (B, n, W) int64 bit words, W >= ceil(n / 64); bit t of row i: node i sees node t
            (set bit i itself).  Parents come before children.  None: causal.
        starts: (B,) int64, first visible slot (left padding); 0 <= starts <= lengths.
        scale: default 1 / sqrt(D).
        key_scale, value_scale: (B, Hkv, T) float32, dense along T, of an int8 cache (:func:`quantize_slots`): slot j
            holds key_scale[..., j] · key[..., j, :]. Products are fp32.

    Returns:
        (B, n, H, D) dense, dtype of the query.  A row that sees nothing is zero.

    Raises:
        ValueError: sizes disagree or do not fit the cache.
        TypeError: a dtype is not supported.

    Differs from paper: whole score rows instead of an online softmax (bfloat16 on AMX: online, in chunks that begin
        at fixed slots).
    Reference: tree attention of Miao et al. 2023, arXiv:2305.09781; grouped heads of Ainslie et al. 2023,
        arXiv:2305.13245.

    >>> import torch
    >>> q, cache = torch.ones(1, 4, 1, 32), torch.ones(1, 2, 16, 32)
    >>> tree_attention(q, cache, cache, torch.tensor([3])).shape
    torch.Size([1, 1, 4, 32])
    """
    factor = query.shape[-1] ** -0.5 if scale is None else float(scale)
    return _ops.tree_attention(query, key, value, lengths, ancestors, starts, factor, key_scale, value_scale)


@fake("tree_attention_ragged")
def _tree_attention_ragged_fake(
    query: Any,
    key: Any,
    value: Any,
    lengths: Any,
    counts: Any,
    ancestors: Any,
    starts: Any,
    scale: float,
    key_scale: Any = None,
    value_scale: Any = None,
) -> Any:
    return query.new_empty(query.shape)


def tree_attention_ragged(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Tensor,
    counts: Tensor,
    *,
    ancestors: Tensor | None = None,
    starts: Tensor | None = None,
    scale: float | None = None,
    key_scale: Tensor | None = None,
    value_scale: Tensor | None = None,
) -> Tensor:
    """:func:`tree_attention` of a batch whose sequences have any number of new rows each, without padding.

    Rows of all sequences lie one behind the other; sequence b has counts[b] of them, in slots lengths[b] ..
    lengths[b] + counts[b] of its cache.  Every row has the bits of :func:`tree_attention` of its sequence alone.
    Cost: that of the rows there are; sequences and heads share the threads (CUDA: a launch per sequence).

    Args:
        query: (R, H, D) with R the sum of ``counts``; dtypes as for :func:`tree_attention`.
        key, value: (B, Hkv, T, D).
        lengths: (B,) int64, slots in use before the new rows; lengths + counts <= T.
        counts: (B,) int64 on the CPU, >= 0.
        ancestors: (R, W) int64 bit words; bit t of a row: it sees node t of its own sequence.  None: causal.
        starts: (B,) int64, first visible slot.
        scale: default 1 / sqrt(D).
        key_scale, value_scale: (B, Hkv, T), as for :func:`tree_attention`.

    Returns:
        (R, H, D) dense, dtype of the query.

    Raises:
        ValueError: sizes disagree or do not fit the cache, or counts do not add up to R.
        TypeError: a dtype is not supported.

    Differs from paper: rows are packed and shared out over threads instead of padded or launched apart.
    Reference: ragged attention (BASS-SPLIT) of Qian et al. 2024, arXiv:2404.15778.

    >>> import torch
    >>> q, cache = torch.ones(4, 4, 32), torch.ones(2, 2, 16, 32)
    >>> tree_attention_ragged(q, cache, cache, torch.tensor([3, 9]), torch.tensor([1, 3])).shape
    torch.Size([4, 4, 32])
    """
    factor = query.shape[-1] ** -0.5 if scale is None else float(scale)
    return _ops.tree_attention_ragged(
        query, key, value, lengths, counts, ancestors, starts, factor, key_scale, value_scale
    )


def quantize_slots(x: Tensor) -> tuple[Tensor, Tensor]:
    """Keys or values as int8 with one factor per slot and head: x[..., j, :] ~ scale[..., j] · codes[..., j, :].

    scale = max_d |x| / 127, codes = round(x / scale); a slot of zeros gets scale 0.  The error of an element is at
    most scale / 2.  Memory: D + 4 bytes per slot and head instead of 2 D (bfloat16).

    Args:
        x: (..., D) float32, bfloat16 or float16, finite.

    Returns:
        codes (..., D) int8 and scale (...) float32.

    Raises:
        TypeError: x is not floating point.

    Differs from paper: none.   Reference: symmetric per-token quantisation of the cache, KIVI, Liu et al. 2024,
        arXiv:2402.02750, section 3 (there per token for values and per channel for keys).

    >>> import torch
    >>> codes, scale = quantize_slots(torch.tensor([[1.0, -127.0], [0.0, 0.0]]))
    >>> codes.tolist(), scale.tolist()
    ([[1, -127], [0, 0]], [1.0, 0.0])
    """
    import torch

    if not x.is_floating_point():
        raise TypeError(f"x must be floating point, got {x.dtype}")
    scale = x.abs().amax(-1).float() / 127
    codes = (x.float() / scale.clamp(min=torch.finfo(torch.float32).tiny)[..., None]).round().clamp(-127, 127)
    return codes.to(torch.int8), scale


def kv_compact_(caches: Sequence[Tensor], lengths: Tensor, path: Tensor) -> None:
    """Keep the accepted path of a tree: slot lengths[b] + path[b, i] moves to lengths[b] + i, in place.

    Keys carry the rotation of position length + depth, which is their final position, so nothing is recomputed.
    Cost: count · D elements per head and layer, threads over layers.

    Args:
        caches: key and value tensors of all layers, each (B, Hkv, T, D), float or int8; factors of int8 caches move
            with them as ``scale[..., None]``.
        lengths: (B,) int64, slots in use before the tree was written.
        path: (B, S) int64 node indices, strictly increasing along S; a row ends at its first negative entry.

    Raises:
        ValueError: the path is not increasing or leaves the cache.

    Differs from paper: none.   Reference: Miao et al. 2023, arXiv:2305.09781.

    >>> import torch
    >>> cache = torch.arange(6.0).view(1, 1, 6, 1)
    >>> kv_compact_([cache], torch.tensor([2]), torch.tensor([[1, 3]]))
    >>> cache.flatten().tolist()
    [0.0, 1.0, 3.0, 5.0, 4.0, 5.0]
    """
    _ops.kv_compact_(list(caches), lengths, path)
