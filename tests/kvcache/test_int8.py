"""Int8 caches: the bits of the fp32 numbers they stand for, at every level; compaction; bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gramcore.kvcache import kv_compact_, quantize_slots, tree_attention, tree_attention_ragged

from tests.reference.kvcache import ancestors_of, attention, to_words


def problem(seed: int, n: int, dim: int, context: int, dtype: torch.dtype = torch.float32):
    g = torch.Generator().manual_seed(seed)
    q = (torch.randn(2, 6, n, dim, generator=g) * 2).to(dtype)
    k, v = (torch.randn(2, 2, context + n + 3, dim, generator=g) for _ in range(2))
    return q, quantize_slots(k), quantize_slots(v)


def test_codes_are_nearest_and_survive_extremes() -> None:
    x = torch.randn(3, 5, 33)
    x[0, 0] = 0
    x[1, 2, 7] = 1e30
    x[2, 4] *= 1e-36
    codes, scale = quantize_slots(x)
    assert codes.dtype == torch.int8
    assert (codes.abs().amax(-1)[x.abs().amax(-1) > 1e-30] == 127).all()
    error = (codes.double() * scale.double()[..., None] - x.double()).abs()
    assert (error <= 0.5000001 * scale.double()[..., None] + 1e-37).all()
    with pytest.raises(TypeError, match=r"floating point, got torch\.int64"):
        quantize_slots(torch.arange(4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("n", "dim", "context"), [(1, 64, 130), (9, 80, 63), (70, 33, 5), (3, 1, 0)])
def test_outputs_are_those_of_the_numbers_meant(isa: str, dtype: torch.dtype, n: int, dim: int, context: int) -> None:
    q, (k, ks), (v, vs) = problem(n, n, dim, context, dtype)
    seen = ancestors_of([int(np.random.default_rng(n).integers(-1, i)) if i else -1 for i in range(n)])
    words, lengths, starts = torch.from_numpy(to_words(seen)), torch.tensor([context, max(0, context - 9)]), [0, 0]
    settings = {"ancestors": words, "starts": torch.tensor(starts)}
    got = tree_attention(q, k, v, lengths, **settings, key_scale=ks, value_scale=vs)
    keys, values = k * ks[..., None], v * vs[..., None]
    arrays = (x.float().numpy() for x in (q, keys, values))
    want = attention(*arrays, lengths.tolist(), np.stack([seen] * 2), starts, dim**-0.5)
    unit = {torch.float32: 2**-23, torch.float16: 2**-11, torch.bfloat16: 2**-8}[dtype]
    np.testing.assert_allclose(got.float().numpy(), want, rtol=0, atol=16 * unit * max(1.0, np.abs(want).max()))
    if dtype == torch.float32:  # the same products, so the same bits
        assert torch.equal(got, tree_attention(q, keys, values, lengths, **settings))


def test_strided_ragged_and_compacted(isa: str) -> None:
    n, context = 12, 50
    q, (k, ks), (v, vs) = problem(3, n, 40, context)
    lengths = torch.tensor([context, context - 4])
    whole = tree_attention(q, k, v, lengths, key_scale=ks, value_scale=vs)
    layers = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (k, v, ks, vs)]
    assert torch.equal(whole, tree_attention(q, *layers[:2], lengths, key_scale=layers[2], value_scale=layers[3]))
    rows = torch.cat([q[0].transpose(0, 1), q[1, :, :5].transpose(0, 1)])
    counts = torch.tensor([n, 5])
    ragged = tree_attention_ragged(rows, k, v, lengths, counts, key_scale=ks, value_scale=vs)
    assert torch.equal(ragged, torch.cat([whole[0], whole[1, :5]]))
    path = [0, 3, 4, 11]
    words = torch.from_numpy(to_words(np.tril(np.isin(np.arange(n), path)[None] * np.ones((n, n), dtype=bool))))
    tree = tree_attention(q, k, v, lengths, ancestors=words, key_scale=ks, value_scale=vs)
    kv_compact_([k, v, ks[..., None], vs[..., None]], lengths, torch.tensor([path, path]))
    plain = tree_attention(q[:, :, path], k, v, lengths, key_scale=ks, value_scale=vs)
    assert torch.equal(plain, tree[:, path])


def test_bad_arguments() -> None:
    q, (k, ks), (v, vs) = problem(5, 2, 8, 4)
    at = torch.tensor([4, 4])
    with pytest.raises(ValueError, match="must be given with an int8 cache and with no other, got a cache of int8"):
        tree_attention(q, k, v, at, key_scale=ks)
    with pytest.raises(ValueError, match="with no other, got a cache of float32"):
        tree_attention(q, k.float(), v.float(), at, key_scale=ks, value_scale=vs)
    with pytest.raises(ValueError, match="with no other, got a cache of float32"):
        tree_attention(q, k.float(), v.float(), at, value_scale=vs)
    with pytest.raises(ValueError, match=r"key_scale must be \(batch, heads, positions\) of the cache"):
        tree_attention(q, k, v, at, key_scale=ks[:, :, 1:].contiguous(), value_scale=vs)
    with pytest.raises(ValueError, match="dense along positions"):
        tree_attention(q, k, v, at, key_scale=ks.mT.contiguous().mT, value_scale=vs)
    with pytest.raises(ValueError, match="key_scale must have dtype float32, got float64"):
        tree_attention(q, k, v, at, key_scale=ks.double(), value_scale=vs)
    with pytest.raises(ValueError, match="one dtype"):
        tree_attention(q, k, v.float(), at, key_scale=ks, value_scale=vs)
