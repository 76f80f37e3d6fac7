"""The native decoder as a target of speculative decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from gramcore.model.decoder import F32, split_rows
from gramcore.spec import Host, TreeOutput

if TYPE_CHECKING:
    from gramcore.model.decoder import Decoder

__all__ = ["DecoderHost"]

IntArray = npt.NDArray[np.integer]


class DecoderHost(Host):
    """Runs the trees of all sequences in one forward, a cache per sequence.

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

    @property
    def model_key(self) -> Any:
        return self.decoder

    def open(self, batch: int, capacity: int, *, want_hidden: bool = False) -> None:
        self._caches = [self.decoder.new_cache(capacity) for _ in range(batch)]
        self._want_hidden = want_hidden

    def prefill(self, prompts: Sequence[IntArray]) -> TreeOutput | None:
        if not any(map(len, prompts)):
            return None
        hidden = None
        if self._want_hidden:  # the decoder gives states of all rows or logits of the last, so in two parts
            _, before = self._run([p[:-1] for p in prompts], None, "none")
            logits, last = self._run([p[-1:] for p in prompts], None, "all")
            hidden = [torch.from_numpy(np.concatenate(both)) for both in zip(before or (), last or (), strict=True)]
        else:
            logits, _ = self._run(prompts, None, "last")
        return TreeOutput([torch.from_numpy(rows) for rows in logits or ()], hidden)

    def forward(self, roots: Sequence[int], trees: Sequence[tuple[IntArray, IntArray]]) -> TreeOutput:
        return self._run_trees(roots, trees, None)

    def forward_embedded(
        self, roots: Sequence[int], trees: Sequence[tuple[IntArray, IntArray]], extra: Any, keep: Sequence[int]
    ) -> TreeOutput:
        return self._run_trees(roots, trees, extra)

    def commit(self, sequence: int, path: IntArray) -> None:
        self._caches[sequence].commit_path(np.concatenate([[0], np.asarray(path, np.int64) + 1]).astype(np.int64))

    def select(self, sequences: Sequence[int]) -> None:
        self._caches = [self._caches[b] for b in sequences]

    def _run_trees(self, roots: Sequence[int], trees: Sequence[tuple[IntArray, IntArray]], extra: Any) -> TreeOutput:
        ids = [np.concatenate([[root], tokens]) for root, (tokens, _) in zip(roots, trees, strict=True)]
        parents = [np.concatenate([[-1], np.asarray(parents) + 1]) for _, parents in trees]
        logits, hidden = self._run(ids, parents, "all", extra)
        return TreeOutput(None if logits is None else _stack(logits), None if hidden is None else _stack(hidden))

    def _run(
        self, ids: Sequence[IntArray], parents: Sequence[IntArray] | None, rows: str, extra: Any = None
    ) -> tuple[list[F32] | None, list[F32] | None]:
        """Logits and hidden states per sequence, None for what was not asked for; one forward for all of them.

        ``extra``: ``(E, hidden)`` float32 embedding rows of the ids from the vocabulary's size on.
        """
        both = self.decoder._native.forward(self._caches, ids, parents, rows, self._want_hidden, extra)
        counts = [min(len(row), 1) if rows == "last" else len(row) for row in ids]
        logits, hidden = (None if x is None else split_rows(x, counts) for x in both)
        return logits, hidden


def _stack(rows: Sequence[F32]) -> torch.Tensor:
    """(B, R, width), short sequences filled with zero rows."""
    if len(rows) == 1:
        return torch.from_numpy(rows[0])[None]
    out = np.zeros((len(rows), max(map(len, rows)), rows[0].shape[1]), np.float32)
    for b, r in enumerate(rows):
        out[b, : len(r)] = r
    return torch.from_numpy(out)
