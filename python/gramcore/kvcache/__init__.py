"""Preallocated key-value caches: tree attention over them and in-place compaction of an accepted path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gramcore._lazy import attach

if TYPE_CHECKING:
    from gramcore.kvcache.attention import kv_compact_, quantize_slots, tree_attention, tree_attention_ragged

__all__ = ["kv_compact_", "quantize_slots", "tree_attention", "tree_attention_ragged"]

__getattr__, __dir__ = attach(
    __name__, {"attention": "kv_compact_ quantize_slots tree_attention tree_attention_ragged"}
)
