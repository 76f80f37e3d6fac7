"""Ragged tree attention: rows of sequences with any number of rows, each with the bits of its sequence alone."""

from __future__ import annotations

import gramcore
import numpy as np
import pytest
import torch
from gramcore.kvcache import tree_attention, tree_attention_ragged

from tests.reference.kvcache import ancestors_of, attention, to_words

COUNTS, LENGTHS, STARTS = [3, 0, 70, 1, 12], [0, 5, 64, 130, 31], [0, 2, 7, 0, 31]


def problem(dtype: torch.dtype, kv: torch.dtype, dim: int = 40, heads: int = 6, kv_heads: int = 2):
    g = torch.Generator().manual_seed(dim)
    q = torch.randn(sum(COUNTS), heads, dim, generator=g).to(dtype)
    k, v = (torch.randn(len(COUNTS), kv_heads, 160, dim, generator=g).to(kv) for _ in range(2))
    return q, k, v, torch.tensor(LENGTHS), torch.tensor(COUNTS)


def trees() -> tuple[list[np.ndarray], torch.Tensor]:
    rng, seen = np.random.default_rng(0), []
    words = torch.zeros(sum(COUNTS), 2, dtype=torch.int64)
    for b, n in enumerate(COUNTS):
        seen.append(ancestors_of([int(rng.integers(-1, i)) if i else -1 for i in range(n)]))
        if n:
            part = torch.from_numpy(to_words(seen[-1]))
            words[sum(COUNTS[:b]) : sum(COUNTS[: b + 1]), : part.shape[1]] = part
    return seen, words


@pytest.mark.parametrize(
    ("dtype", "kv"), [(torch.float32, torch.float32), (torch.float32, torch.float16), (torch.bfloat16, torch.bfloat16)]
)
def test_rows_match_the_reference_and_single_sequences(isa: str, dtype: torch.dtype, kv: torch.dtype) -> None:
    q, k, v, lengths, counts = problem(dtype, kv)
    seen, words = trees()
    starts = torch.tensor(STARTS)
    unit = {torch.float32: 2**-23, torch.bfloat16: 2**-8}[dtype]
    for mask in (words, None):
        out = tree_attention_ragged(q, k, v, lengths, counts, ancestors=mask, starts=starts, scale=0.2)
        assert out.shape == q.shape
        assert out.dtype == dtype
        first = 0
        for b, n in enumerate(COUNTS):
            rows, first = slice(first, first + n), first + n
            one = slice(b, b + 1)
            alone = tree_attention(
                q[rows].transpose(0, 1)[None],
                k[one],
                v[one],
                lengths[one],
                ancestors=None if mask is None else mask[rows],
                starts=starts[one],
                scale=0.2,
            )
            assert torch.equal(out[rows], alone[0])
            sees = np.tril(np.ones((n, n), dtype=bool)) if mask is None else seen[b]
            arrays = (x.float().numpy() for x in (q[rows].transpose(0, 1)[None], k[one], v[one]))
            want = attention(*arrays, [LENGTHS[b]], sees[None], [STARTS[b]], 0.2)[0]
            np.testing.assert_allclose(out[rows].float().numpy(), want, rtol=0, atol=16 * unit * 4)


def test_threads_strides_and_empty(restore_threads: None) -> None:
    q, k, v, lengths, counts = problem(torch.float32, torch.float32)
    whole = tree_attention_ragged(q, k, v, lengths, counts)
    gramcore.set_num_threads(1)
    assert torch.equal(whole, tree_attention_ragged(q, k, v, lengths, counts))
    strided = q.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(whole, tree_attention_ragged(strided, k, v, lengths, counts))
    none = torch.zeros(5, dtype=torch.int64)
    assert tree_attention_ragged(q[:0], k, v, lengths, none).shape == (0, 6, 40)
    assert tree_attention_ragged(q[:0], k[:0], v[:0], lengths[:0], none[:0]).shape == (0, 6, 40)


def test_bad_arguments() -> None:
    q, k, v, lengths, counts = problem(torch.float32, torch.float32)
    with pytest.raises(ValueError, match="counts must add up to the query's rows, got 85 for 86"):
        tree_attention_ragged(q, k, v, lengths, counts - torch.tensor([1, 0, 0, 0, 0]))
    with pytest.raises(ValueError, match=r"counts must be >= 0 .*, got -1 after 3 of 86"):
        tree_attention_ragged(q, k, v, lengths, counts - torch.tensor([0, 1, 0, 0, 0]))
    with pytest.raises(ValueError, match="counts must have one entry per sequence, got 4"):
        tree_attention_ragged(q, k, v, lengths, counts[:4])
    with pytest.raises(ValueError, match="3 dimensions"):
        tree_attention_ragged(q[None], k, v, lengths, counts)
    with pytest.raises(ValueError, match=r"lengths must be in \[0, 90\], got 91 \(sequence 2, 70 new rows"):
        tree_attention_ragged(q, k, v, torch.tensor([0, 5, 91, 130, 31]), counts)
    with pytest.raises(ValueError, match=r"starts must be in .*sequence 4"):
        tree_attention_ragged(q, k, v, lengths, counts, starts=torch.tensor([0, 2, 7, 0, 32]))
    with pytest.raises(ValueError, match="ancestors must have 2 words per node, got 1"):
        tree_attention_ragged(q, k, v, lengths, counts, ancestors=torch.zeros(86, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="one row per query row"):
        tree_attention_ragged(q, k, v, lengths, counts, ancestors=torch.zeros(85, 2, dtype=torch.int64))


def test_traces_under_compile() -> None:
    arguments = problem(torch.float32, torch.float32)
    fn = torch.compile(lambda *args: tree_attention_ragged(*args) * 2, backend="eager", fullgraph=True)
    assert torch.equal(fn(*arguments), tree_attention_ragged(*arguments) * 2)
