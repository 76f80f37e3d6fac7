"""A preallocated key/value cache for transformers models whose sequences have their own lengths.

Keys and values of a forward are written at consecutive slots behind each sequence's committed tokens; accepting a path
moves its slots together in place and truncates. Nothing is ever concatenated, so a step costs the same at any context.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from gramcore.kvcache import kv_compact_
from gramcore.spec.base import IntArray

__all__ = ["SlotCache"]


class _SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Buffers ``(B, H, capacity, D)`` of one layer; lengths and the write position belong to the owner."""

    is_croppable = True
    is_sliding = False
    keys: Any
    values: Any

    def __init__(self, owner: SlotCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.owner = owner

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        batch, capacity = self.owner.batch, self.owner.capacity
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states.new_zeros(batch, key_states.shape[1], capacity, key_states.shape[3])
        self.values = value_states.new_zeros(batch, value_states.shape[1], capacity, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows = key_states.shape[2]
        lengths, counts = self.owner.lengths, self.owner.counts
        if counts is not None:
            first = 0
            for b, (length, count) in enumerate(zip(lengths, counts, strict=True)):
                self.keys[b, :, length : length + count] = key_states[0, :, first : first + count]
                self.values[b, :, length : length + count] = value_states[0, :, first : first + count]
                first += count
            return self.keys, self.values
        if min(lengths) == max(lengths):
            self.keys[:, :, lengths[0] : lengths[0] + rows] = key_states
            self.values[:, :, lengths[0] : lengths[0] + rows] = value_states
        else:
            for b, length in enumerate(lengths):
                self.keys[b, :, length : length + rows] = key_states[b]
                self.values[b, :, length : length + rows] = value_states[b]
        columns = max(lengths) + rows
        return self.keys[:, :, :columns], self.values[:, :, :columns]

    def get_seq_length(self) -> int:
        return max(self.owner.lengths)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return max(self.owner.lengths) + query_length, 0

    def get_max_length(self) -> int:
        return self.owner.capacity


class SlotCache(Cache):
    """Preallocated cache of ``num_layers`` full-attention layers.

    Args:
        num_layers: ``>= 1``.
        batch: ``>= 1`` sequences.
        capacity: ``>= 1`` slots per sequence, tree rows included.
    """

    def __init__(self, num_layers: int, batch: int, capacity: int) -> None:
        self.batch = batch
        self.capacity = capacity
        #: Committed slots of every sequence; the next forward writes behind them.
        self.lengths = [0] * batch
        #: Rows of every sequence in a forward over one packed row of all of them, which is then given whole buffers.
        self.counts: Sequence[int] | None = None
        self._slots = [_SlotLayer(self) for _ in range(num_layers)]
        super().__init__(layers=list(self._slots))

    @property
    def used(self) -> bool:
        """Whether a model has written to it."""
        return any(layer.is_initialized for layer in self._slots)

    def commit(self, sequence: int, path: IntArray) -> None:
        """After a tree forward: keep the root and ``path``, drop the other rows."""
        base = self.lengths[sequence]
        if len(path) and int(path[-1]) != len(path) - 1:
            used = [layer for layer in self._slots if layer.is_initialized]
            buffers = [buffer[sequence] for layer in used for buffer in (layer.keys, layer.values)]
            if buffers and buffers[0].device.type == "cpu" and buffers[0].dtype.itemsize != 8:
                kv_compact_([b[None] for b in buffers], torch.tensor([base + 1]), torch.as_tensor(path).long()[None])
            else:
                source = torch.as_tensor(path, device=buffers[0].device).long() + base + 1
                for buffer in buffers:
                    buffer[:, base + 1 : base + 1 + len(path)] = buffer.index_select(1, source)
        self.lengths[sequence] = base + 1 + len(path)

    @contextlib.contextmanager
    def packed(self, counts: Sequence[int]) -> Iterator[None]:
        """The rows of the forwards inside are those of all sequences one behind the other, ``counts[b]`` of each."""
        self.counts = counts
        try:
            yield
        finally:
            self.counts = None

    def select(self, sequences: Sequence[int]) -> None:
        """Keep only these sequences of the batch, in this order."""
        self.lengths = [self.lengths[b] for b in sequences]
        self.batch = len(sequences)
        for layer in self._slots:
            if layer.is_initialized:
                layer.keys = layer.keys[list(sequences)]
                layer.values = layer.values[list(sequences)]
