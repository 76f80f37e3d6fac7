"""Slow twin of the cache kernels: attention of every row written out in fp64."""

from __future__ import annotations

import numpy as np


def ancestors_of(parents: list[int]) -> np.ndarray:
    """(n, n) bool: [i, t] = node i sees node t; parent -1 is the context."""
    n = len(parents)
    seen = np.zeros((n, n), dtype=bool)
    for i in range(n):
        node = i
        while node >= 0:
            seen[i, node] = True
            node = parents[node]
    return seen


def to_words(seen: np.ndarray) -> np.ndarray:
    """Bits of each row in 64-bit words."""
    n = seen.shape[-1]
    words = np.zeros((*seen.shape[:-1], (n + 63) // 64), dtype=np.uint64)
    for t in range(n):
        words[..., t // 64] |= seen[..., t].astype(np.uint64) << np.uint64(t % 64)
    return words.view(np.int64)


def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, lengths: list[int], seen: np.ndarray, starts: list[int], scale: float
) -> np.ndarray:
    """(B, n, H, D) in fp64; ``seen`` is (B, n, n)."""
    batch, heads, n, dim = q.shape
    group = heads // k.shape[1]
    out = np.zeros((batch, n, heads, dim))
    for b in range(batch):
        for h in range(heads):
            for i in range(n):
                slots = list(range(starts[b], lengths[b])) + [lengths[b] + t for t in range(n) if seen[b, i, t]]
                if not slots:
                    continue
                s = scale * (k[b, h // group, slots].astype(np.float64) @ q[b, h, i].astype(np.float64))
                p = np.exp(s - s.max())
                out[b, i, h] = (p / p.sum()) @ v[b, h // group, slots].astype(np.float64)
    return out
