"""Tree attention against the fp64 twin, row invariance, and compaction."""

from __future__ import annotations

import gramcore
import numpy as np
import pytest
import torch
from gramcore.kvcache import kv_compact_, tree_attention

from tests.reference.kvcache import ancestors_of, attention, to_words


def random_parents(rng: np.random.Generator, n: int) -> list[int]:
    return [int(rng.integers(-1, i)) if i else -1 for i in range(n)]


def problem(seed: int, batch: int, heads: int, kv_heads: int, n: int, dim: int, context: int, extra: int = 3):
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(batch, heads, n, dim, generator=g) * 2
    k = torch.randn(batch, kv_heads, context + n + extra, dim, generator=g)
    v = torch.randn(batch, kv_heads, context + n + extra, dim, generator=g)
    return q, k, v


def error_bound(q: torch.Tensor, want: np.ndarray) -> float:
    """Round-off of scores up to about 16 (4 bits) and of the sums, over values of size ~1."""
    unit = {torch.float32: 2**-23, torch.float16: 2**-11, torch.bfloat16: 2**-8}[q.dtype]
    return 16 * unit * max(1.0, float(np.abs(want).max()))


@pytest.mark.parametrize("dim", [1, 32, 64, 80, 128])
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (6, 2), (5, 1)])
def test_trees_match_reference(isa: str, dim: int, heads: int, kv_heads: int) -> None:
    rng = np.random.default_rng(dim + heads)
    for n, context in [(1, 0), (1, 130), (3, 63), (9, 64), (70, 5)]:
        q, k, v = problem(n, 1, heads, kv_heads, n, dim, context)
        seen = ancestors_of(random_parents(rng, n))
        got = tree_attention(q, k, v, torch.tensor([context]), ancestors=torch.from_numpy(to_words(seen)))
        want = attention(q.numpy(), k.numpy(), v.numpy(), [context], seen[None], [0], dim**-0.5)
        np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=error_bound(q, want))


@pytest.mark.parametrize("kv", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(isa: str, dtype: torch.dtype, kv: torch.dtype) -> None:
    for n, context, dim in [(1, 100, 64), (17, 31, 40), (5, 65, 33)]:
        q, k, v = problem(n, 2, 4, 2, n, dim, context)
        q, k, v = q.to(dtype), k.to(kv), v.to(kv)
        seen = np.stack([ancestors_of(random_parents(np.random.default_rng(b), n)) for b in range(2)])
        lengths, starts = [context, context - 7], [3, 0]
        got = tree_attention(
            q,
            k,
            v,
            torch.tensor(lengths),
            ancestors=torch.from_numpy(to_words(seen)),
            starts=torch.tensor(starts),
            scale=0.2,
        )
        want = attention(q.float().numpy(), k.float().numpy(), v.float().numpy(), lengths, seen, starts, 0.2)
        assert got.dtype == dtype
        np.testing.assert_allclose(got.float().numpy(), want, rtol=0, atol=error_bound(q, want))


def test_long_context_is_as_accurate_as_naive_fp32(isa: str) -> None:
    q, k, v = problem(0, 1, 2, 1, 2, 64, 5000)
    seen = np.tril(np.ones((1, 2, 2), dtype=bool))
    want = attention(q.numpy(), k.numpy(), v.numpy(), [5000], seen, [0], 0.125)
    got = tree_attention(q, k, v, torch.tensor([5000])).numpy()
    keys, values = k[:, :, :5002].expand(1, 2, -1, -1), v[:, :, :5002].expand(1, 2, -1, -1)
    mask = torch.ones(2, 5002, dtype=torch.bool).tril(5000)
    naive = torch.softmax((q @ keys.mT * 0.125).masked_fill(~mask, -torch.inf), -1) @ values
    naive_error = np.abs(naive.transpose(1, 2).numpy() - want).max()
    assert np.abs(got - want).max() <= 4 * naive_error + 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_do_not_depend_on_their_number(isa: str, dtype: torch.dtype, restore_threads: None) -> None:
    n, context = 21, 150
    q, k, v = (x.to(dtype) for x in problem(1, 1, 6, 2, n, 80, context))
    whole = tree_attention(q, k, v, torch.tensor([context]))
    for i in range(n):
        row = tree_attention(q[:, :, i : i + 1], k, v, torch.tensor([context + i]))
        assert torch.equal(row[:, 0], whole[:, i])
    gramcore.set_num_threads(1)
    assert torch.equal(whole, tree_attention(q, k, v, torch.tensor([context])))


def test_tree_node_equals_plain_decoding_of_its_path(isa: str) -> None:
    n, context = 30, 77
    rng = np.random.default_rng(3)
    q, k, v = problem(2, 1, 4, 2, n, 64, context)
    seen = ancestors_of(random_parents(rng, n))
    tree = tree_attention(q, k, v, torch.tensor([context]), ancestors=torch.from_numpy(to_words(seen)))
    for i in range(n):
        path = np.flatnonzero(seen[i])
        keys, values = k.clone(), v.clone()
        kv_compact_([keys, values], torch.tensor([context]), torch.from_numpy(path)[None])
        plain = tree_attention(q[:, :, i : i + 1], keys, values, torch.tensor([context + len(path) - 1]))
        assert torch.equal(plain[:, 0], tree[:, i])


@pytest.mark.parametrize(("n", "context"), [(1, 1200), (45, 1025), (600, 0)])
def test_bf16_chunks_of_long_caches(isa: str, n: int, context: int) -> None:
    """Several chunks, maxima that grow along the cache, chunks in which a row sees nothing, more rows than a block."""
    q, k, v = problem(n, 1, 4, 2, n, 40, context)
    k *= torch.linspace(0.2, 2, k.shape[2])[:, None]
    q, k, v = q.bfloat16(), k.bfloat16(), v.bfloat16()
    seen = np.eye(n, dtype=bool) | ancestors_of(random_parents(np.random.default_rng(n), n))
    seen[n // 2 :: 3] = np.eye(n, dtype=bool)[n // 2 :: 3]
    words, start = torch.from_numpy(to_words(seen)), min(context, 9)
    starts = torch.tensor([start])
    whole = tree_attention(q, k, v, torch.tensor([context]), ancestors=words, starts=starts, scale=0.15)
    want = attention(q.float().numpy(), k.float().numpy(), v.float().numpy(), [context], seen[None], [start], 0.15)
    np.testing.assert_allclose(whole.float().numpy(), want, rtol=0, atol=error_bound(q, want))
    for i in range(0, n, 37):  # the first rows alone, in another block and with fewer slots behind them
        part = tree_attention(
            q[:, :, : i + 1], k, v, torch.tensor([context]), ancestors=words[: i + 1], starts=starts, scale=0.15
        )
        assert torch.equal(part[:, i], whole[:, i])


def test_bf16_rows_that_see_nothing_are_zero_and_nan_stays_in_its_row(isa: str) -> None:
    q, k, v = (x.bfloat16() for x in problem(9, 1, 2, 1, 40, 64, 700))
    q[0, 1, 20, 7] = torch.nan
    out = tree_attention(q, k, v, torch.tensor([700]))
    assert out[0, 20, 1].isnan().all()
    assert out.isnan().sum() == 64
    assert not tree_attention(q, k, v, torch.tensor([0]), ancestors=torch.zeros(40, 1, dtype=torch.int64)).any()


def test_compaction_moves_the_path_and_nothing_else() -> None:
    base = torch.randn(2, 3, 20, 5)
    caches = [base.clone(), base.transpose(1, 2).contiguous().transpose(1, 2), base.to(torch.bfloat16)]
    lengths, path = torch.tensor([4, 9]), torch.tensor([[0, 2, 5], [3, -1, -1]])
    before = [c.clone() for c in caches]
    kv_compact_(caches, lengths, path)
    for cache, old in zip(caches, before, strict=True):
        want = old.clone()
        for b in range(2):
            for i, node in enumerate(path[b].tolist()):
                if node < 0:
                    break
                want[b, :, int(lengths[b]) + i] = old[b, :, int(lengths[b]) + node]
        assert torch.equal(cache, want)


def test_strided_views_and_empty() -> None:
    q, k, v = problem(4, 2, 4, 2, 3, 32, 10)
    strided = tree_attention(
        q.transpose(1, 2).contiguous().transpose(1, 2),
        k.transpose(1, 2).contiguous().transpose(1, 2),
        torch.cat([v, v], -1)[..., :32],
        torch.tensor([10, 10]),
    )
    assert torch.equal(strided, tree_attention(q, k, v, torch.tensor([10, 10])))
    assert tree_attention(q[:, :, :0], k, v, torch.tensor([10, 10])).shape == (2, 0, 4, 32)
    blind = tree_attention(q, k, v, torch.tensor([0, 0]), ancestors=torch.zeros(3, 1, dtype=torch.int64))
    assert not blind.any()


def test_nan_stays_in_its_row(isa: str) -> None:
    q, k, v = problem(5, 1, 2, 1, 4, 64, 20)
    q[0, 1, 2, 7] = torch.nan
    out = tree_attention(q, k, v, torch.tensor([20]))
    assert out[0, 2, 1].isnan().all()
    assert out.isnan().sum() == 64


def test_bad_arguments() -> None:
    q, k, v = problem(6, 1, 4, 2, 3, 32, 10, extra=0)
    at = torch.tensor([10])
    with pytest.raises(ValueError, match="lengths must be in"):
        tree_attention(q, k, v, torch.tensor([11]))
    with pytest.raises(ValueError, match="multiple of key-value heads"):
        tree_attention(q[:, :3], k, v, at)
    with pytest.raises(ValueError, match="one dtype"):
        tree_attention(q, k, v.half(), at)
    with pytest.raises(ValueError, match="float32, bfloat16 or float16"):
        tree_attention(q.double(), k, v, at)
    with pytest.raises(ValueError, match="dense along head_dim"):
        tree_attention(q, k.mT.contiguous().mT, v, at)
    with pytest.raises(ValueError, match="one row per query row"):
        tree_attention(q, k, v, at, ancestors=torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="starts must be in"):
        tree_attention(q, k, v, at, starts=torch.tensor([11]))
    with pytest.raises(ValueError, match="strictly increasing"):
        kv_compact_([k], at, torch.tensor([[1, 1]]))
    with pytest.raises(ValueError, match="inside the cache"):
        kv_compact_([k], at, torch.tensor([[0, 3]]))


def test_traces_under_compile() -> None:
    q, k, v = problem(7, 1, 4, 2, 3, 32, 10)
    fn = torch.compile(lambda *args: tree_attention(*args) * 2, backend="eager", fullgraph=True)
    assert torch.equal(fn(q, k, v, torch.tensor([10])), tree_attention(q, k, v, torch.tensor([10])) * 2)
