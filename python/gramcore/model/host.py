"""The native decoder as a target of speculative decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from gramcore.spec import Host, TreeOutput

if TYPE_CHECKING:
    from gramcore.model.decoder import Decoder

__all__ = ["DecoderHost"]

IntArray = npt.NDArray[np.integer]


class DecoderHost(Host):
    """Runs the trees of every sequence over one set of weights, a cache per sequence.

    Logits of a node are bit for bit those of plain decoding, so greedy text does not depend on the drafts.

    Args:
        decoder: the model; its own cache is left alone.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.vocab_size = decoder.vocab_size
        self.context_limit = decoder.max_len
        self._caches: list[Any] = []
        self._want_hidden = False

    def open(self, batch: int, capacity: int, *, want_hidden: bool = False) -> None:
        self._caches = [self.decoder.new_cache(capacity) for _ in range(batch)]
        self._want_hidden = want_hidden

    def prefill(self, prompts: Sequence[IntArray]) -> TreeOutput | None:
        outputs = [
            self._run(cache, prompt, None, "none") if len(prompt) else (None, None)
            for cache, prompt in zip(self._caches, prompts, strict=True)
        ]
        if not self._want_hidden or all(hidden is None for _, hidden in outputs):
            return None
        return TreeOutput(None, _stack([hidden for _, hidden in outputs]))

    def forward(self, roots: Sequence[int], trees: Sequence[tuple[IntArray, IntArray]]) -> TreeOutput:
        logits, hidden = [], []
        for cache, root, (tokens, parents) in zip(self._caches, roots, trees, strict=True):
            ids = np.concatenate([[root], tokens])
            rows = self._run(cache, ids, np.concatenate([[-1], np.asarray(parents) + 1]), "all")
            logits.append(rows[0])
            hidden.append(rows[1])
        return TreeOutput(_stack(logits), _stack(hidden) if self._want_hidden else None)

    def commit(self, sequence: int, path: IntArray) -> None:
        self._caches[sequence].commit_path(np.concatenate([[0], np.asarray(path, np.int64) + 1]).astype(np.int64))

    def select(self, sequences: Sequence[int]) -> None:
        self._caches = [self._caches[b] for b in sequences]

    def _run(self, cache: Any, ids: IntArray, parents: IntArray | None, rows: str) -> Any:
        tree = None if parents is None else np.ascontiguousarray(parents, np.int32)
        tokens = np.ascontiguousarray(ids, np.int32)
        return self.decoder._native.forward(cache, tokens, tree, rows, self._want_hidden)


def _stack(rows: Sequence[npt.NDArray[np.float32] | None]) -> torch.Tensor:
    """(B, R, width), short sequences filled with zero rows."""
    known = [r for r in rows if r is not None]
    most = max(len(r) for r in known)
    if len(rows) == 1:
        return torch.from_numpy(known[0])[None]
    out = np.zeros((len(rows), most, known[0].shape[1]), np.float32)
    for b, r in enumerate(rows):
        if r is not None:
            out[b, : len(r)] = r
    return torch.from_numpy(out)
