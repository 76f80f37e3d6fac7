"""Aligners: one step of ASAp over a large vocabulary, one refusal of AprAD on a long text."""

from __future__ import annotations

import numpy as np
from gramcore._core import grammar as native

from bench.harness import Bench, Contender

VOCAB = 131_072


def run(bench: Bench) -> None:
    for accepted in (3_000, 100_000):
        _step(bench, accepted)
    for length in (100, 1_000):
        _refusal(bench, length)


def _step(bench: Bench, accepted: int) -> None:
    """Mask and weigh one row at a new node: what inserting its accepted children costs."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=VOCAB).astype(np.float32)
    bits = np.zeros(VOCAB, np.uint8)
    bits[rng.choice(VOCAB, accepted, replace=False)] = 1
    mask = np.packbits(bits, bitorder="little").view(np.int32)
    row = logits.copy()
    mass = np.exp(logits.astype(np.float64) - logits.max())
    want = mass[bits == 1].sum() / mass.sum()

    def ours() -> float:
        row[:] = logits
        trie = native.MassTrie(VOCAB)
        trie.edit(0, row, mask)
        return float(np.exp(trie.log_weight(0)))

    def plain() -> float:
        row[:] = logits
        weights = np.exp(row - row.max())
        row[bits == 0] = -np.inf
        return float(weights[bits == 1].sum(dtype=np.float64) / weights.sum(dtype=np.float64))

    def check(name: str, got: object) -> None:
        assert isinstance(got, float)
        if abs(got - want) > 1e-5 * want or int(np.isfinite(row).sum()) != accepted:
            raise AssertionError(f"{name}: allowed mass {got}, expected {want}")

    bench.case(
        f"ASAp step, {accepted} accepted of {VOCAB}",
        [Contender("gramcore", ours), Contender(f"numpy {np.__version__}, the same step", plain)],
        check=check,
    )


def _refusal(bench: Bench, length: int) -> None:
    """A text of ``length`` tokens, its last one excluded: new weights and the walk from the start."""
    uniforms = np.full(length, 1e-12)

    def build() -> tuple[native.MassTrie, int]:
        trie, node = native.MassTrie(VOCAB), 0
        for token in range(length):
            node = trie.enter(node, token, -0.5)
        return trie, node

    def ours() -> int:
        trie, node = build()
        return trie.backtrack(node, 0, uniforms)

    def check(name: str, got: object) -> None:
        if name == "gramcore" and got != length - 1:
            raise AssertionError(f"{name} kept {got} tokens, expected {length - 1}")

    bench.case(
        f"AprAD: enter {length} tokens, refuse the last",
        [Contender("gramcore", ours), Contender("of which entering the tokens", build)],
        check=check,
    )
