"""Preallocated key-value caches: tree attention over them and in-place compaction of an accepted path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gramcore.kvcache.attention import kv_compact_, quantize_slots, tree_attention, tree_attention_ragged

__all__ = ["kv_compact_", "quantize_slots", "tree_attention", "tree_attention_ragged"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from gramcore.kvcache import attention

        return getattr(attention, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
