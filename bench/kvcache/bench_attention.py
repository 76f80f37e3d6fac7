"""Tree attention and path compaction at the shape of one Llama-3-8B layer, against torch's attention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from gramcore.kvcache import kv_compact_, quantize_slots, tree_attention, tree_attention_ragged

from bench.harness import Bench, Contender

HEADS, KV_HEADS, DIM, CONTEXT = 32, 8, 128, 4096
LAYERS, SMALL_HEADS, SMALL_DIM, ACCEPTED = 32, 8, 128, 6


def run(bench: Bench) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        for n in (1, 16, 64):
            _attention(bench, dtype, n)
    _ragged(bench)
    _compaction(bench)


def _attention(bench: Bench, dtype: torch.dtype, n: int) -> None:
    g = torch.Generator().manual_seed(0)
    q = torch.randn(1, HEADS, n, DIM, generator=g).to(dtype)
    k, v = (torch.randn(1, KV_HEADS, CONTEXT + n, DIM, generator=g).to(dtype) for _ in range(2))
    mask = torch.ones(n, CONTEXT + n, dtype=torch.bool).tril(CONTEXT)
    lengths = torch.tensor([CONTEXT])
    group = HEADS // KV_HEADS
    folded_mask = mask.repeat_interleave(group, 0)
    keys, values = (x.repeat_interleave(group, 1) for x in (k, v))
    want = F.scaled_dot_product_attention(q.float(), keys.float(), values.float(), mask).transpose(1, 2)

    def folded() -> torch.Tensor:
        """Query heads of a group as extra rows: keys are read once per group."""
        rows = q.view(1, KV_HEADS, group, n, DIM).transpose(2, 3).reshape(1, KV_HEADS, n * group, DIM)
        out = F.scaled_dot_product_attention(rows, k, v, folded_mask)
        return out.view(1, KV_HEADS, n, group, DIM).permute(0, 2, 1, 3, 4).reshape(1, n, HEADS, DIM)

    def matmul() -> torch.Tensor:
        rows = q.view(1, KV_HEADS, group, n, DIM).transpose(2, 3).reshape(1, KV_HEADS, n * group, DIM)
        scores = (rows @ k.mT * DIM**-0.5).masked_fill(~folded_mask, -torch.inf)
        out = torch.softmax(scores, -1) @ v
        return out.view(1, KV_HEADS, n, group, DIM).permute(0, 2, 1, 3, 4).reshape(1, n, HEADS, DIM)

    def check(name: str, out: torch.Tensor) -> None:
        torch.testing.assert_close(
            out.float(), want, rtol=0, atol=2e-2 if dtype == torch.bfloat16 or "int8" in name else 1e-5
        )

    def peer(label: str, fn: Callable[[], torch.Tensor]) -> Contender:
        return Contender(f"torch {torch.__version__} {label}", fn)

    (codes, key_scale), (value_codes, value_scale) = quantize_slots(k), quantize_slots(v)

    def short() -> torch.Tensor:
        return tree_attention(q, codes, value_codes, lengths, key_scale=key_scale, value_scale=value_scale)

    sdpa = partial(F.scaled_dot_product_attention, q, k, v, mask, enable_gqa=True)
    bench.case(
        f"{str(dtype).split('.')[1]} n={n} context {CONTEXT}",
        [
            Contender("gramcore tree_attention", lambda: tree_attention(q, k, v, lengths)),
            *([Contender("gramcore tree_attention, int8 cache", short)] if dtype == torch.float32 else []),
            peer("SDPA mask gqa", lambda: sdpa().transpose(1, 2)),
            peer("SDPA folded", folded),
            peer("matmul folded", matmul),
        ],
        check=check,
        bytes_moved=2.0 * k.numel() * k.element_size(),
        flops=4.0 * HEADS * n * (CONTEXT + n) * DIM,
    )


def _ragged(bench: Bench) -> None:
    """Eight sequences with drafts and contexts of different lengths (BASS): packed rows against padding and a loop."""
    counts, contexts = [1, 4, 64, 8, 16, 1, 32, 2], [4096, 500, 1000, 2500, 3000, 1800, 700, 3500]
    g = torch.Generator().manual_seed(1)
    slots, most = CONTEXT + 64, max(counts)
    q = torch.randn(sum(counts), HEADS, DIM, generator=g).to(torch.bfloat16)
    k, v = (torch.randn(len(counts), KV_HEADS, slots, DIM, generator=g).to(torch.bfloat16) for _ in range(2))
    lengths, given = torch.tensor(contexts), torch.tensor(counts)
    rows = list(q.split(counts))
    padded = torch.zeros(len(counts), HEADS, most, DIM, dtype=torch.bfloat16)
    for b, part in enumerate(rows):
        padded[b, :, : counts[b]] = part.transpose(0, 1)
    masks = [torch.ones(n, c + n, dtype=torch.bool).tril(c) for n, c in zip(counts, contexts, strict=True)]

    def loop() -> torch.Tensor:
        parts = []
        for b, (part, mask) in enumerate(zip(rows, masks, strict=True)):
            seen = mask.shape[1]
            at = (part.transpose(0, 1)[None], k[b : b + 1, :, :seen], v[b : b + 1, :, :seen], mask)
            parts.append(F.scaled_dot_product_attention(*at, enable_gqa=True)[0].transpose(0, 1))
        return torch.cat(parts)

    def pad() -> torch.Tensor:
        out = tree_attention(padded, k, v, lengths)
        return torch.cat([out[b, :n] for b, n in enumerate(counts)])

    want = tree_attention_ragged(q.float(), k.float(), v.float(), lengths, given)

    def check(_name: str, out: torch.Tensor) -> None:
        torch.testing.assert_close(out.float(), want, rtol=0, atol=2e-2)

    bench.case(
        f"bfloat16 ragged, {len(counts)} sequences, {sum(counts)} rows",
        [
            Contender("gramcore tree_attention_ragged", lambda: tree_attention_ragged(q, k, v, lengths, given)),
            Contender("gramcore tree_attention, padded", pad),
            Contender(f"torch {torch.__version__} SDPA mask gqa, a call each", loop),
        ],
        check=check,
    )


def _compaction(bench: Bench) -> None:
    path = torch.tensor([[1, 4, 9, 15, 22, 40][:ACCEPTED]])
    lengths = torch.tensor([CONTEXT])
    caches = [torch.zeros(1, SMALL_HEADS, CONTEXT + 64, SMALL_DIM, dtype=torch.bfloat16) for _ in range(2 * LAYERS)]
    for c in caches:
        c[0, :, CONTEXT:] = torch.arange(64)[None, :, None].to(torch.bfloat16)
    want = caches[0][0, 0, CONTEXT + path[0], 0].clone()
    fresh = caches[0][:, :, CONTEXT:].clone()

    def reset() -> None:
        for c in caches:
            c[:, :, CONTEXT:] = fresh

    def torch_compact() -> None:
        for c in caches:
            c[:, :, CONTEXT : CONTEXT + ACCEPTED] = c[:, :, CONTEXT + path[0]]

    def check(name: str, _: object) -> None:
        for c in caches:
            if not torch.equal(c[0, 3, CONTEXT : CONTEXT + ACCEPTED, 5], want):
                raise AssertionError(f"{name}: wrong rows after compaction")

    bench.case(
        f"compaction, {LAYERS} layers, {ACCEPTED} accepted",
        [
            Contender("gramcore kv_compact_", lambda: kv_compact_(caches, lengths, path), reset),
            Contender(f"torch {torch.__version__} indexing", torch_compact, reset),
        ],
        check=check,
    )
