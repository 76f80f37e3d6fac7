"""Attention of transformers models through the library's kernel: trees as bit words, no mask, no repeated heads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface

from gramcore._core import spec as _native
from gramcore.kvcache import tree_attention_ragged
from gramcore.spec.base import IntArray

__all__ = ["NAME", "TreeRows", "ancestor_rows", "supports", "tree_rows"]

#: Name under which the kernel is known to transformers.
NAME = "gramcore_tree"

#: Architectures whose attention is scaled dot products over all slots and nothing else.
_PLAIN = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3", "granite", "olmo2", "phi3"})
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class TreeRows:
    """The rows of one forward, those of all sequences one behind the other.

    Attributes:
        lengths: ``(B,)`` slots before them.
        counts: ``(B,)`` rows of every sequence.
        ancestors: ``(R, W)`` who sees whom; None: chains.
    """

    lengths: torch.Tensor
    counts: torch.Tensor
    ancestors: torch.Tensor | None


def ancestor_rows(parents: Sequence[IntArray]) -> torch.Tensor:
    """Bit words of root and nodes of every tree, ``(R, W)``."""
    bits = [_native.tree_ancestors(tree).view(np.int64) for tree in parents]
    seen = np.zeros((sum(map(len, bits)), max(b.shape[1] for b in bits)), np.int64)
    first = 0
    for rows in bits:
        seen[first : first + len(rows), : rows.shape[1]] = rows
        first += len(rows)
    return torch.from_numpy(seen)


_current: ContextVar[TreeRows | None] = ContextVar("tree_rows", default=None)


def supports(model: Any) -> bool:
    """Whether this model's attention can be replaced by the kernel."""
    config = model.config.get_text_config()
    return (
        model.config.model_type in _PLAIN
        and getattr(config, "_attn_implementation", None) == "sdpa"
        and getattr(model, "_supports_attention_backend", False)
        and next(model.parameters()).device.type == "cpu"
        and all(p.dtype in _DTYPES for p in model.parameters() if p.is_floating_point())
    )


@contextlib.contextmanager
def tree_rows(model: Any, rows: TreeRows) -> Iterator[None]:
    """Run forwards of ``model`` with the kernel for these rows; the model is as before afterwards."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    token = _current.set(rows)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _current.reset(token)


def _attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, **_: Any
) -> tuple[Any, None]:
    rows = _current.get()
    if rows is None:
        raise RuntimeError(f"attention {NAME!r} must run inside gramcore.spec.generate, got a forward outside it")
    packed = query[0].transpose(0, 1)
    out = tree_attention_ragged(packed, key, value, rows.lengths, rows.counts, ancestors=rows.ancestors, scale=scaling)
    return out[None], None


AttentionInterface.register(NAME, _attend)
