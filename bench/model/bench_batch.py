"""The native decoder over several sequences in one pass, on the packaged SmolLM2-135M, against a pass per sequence.

One new token each (plain decoding) and a draft of 8 each (verification), after contexts of different lengths.  New
tokens are tree nodes, so that every repetition does the same work.  Peer: transformers in bf16, right-aligned batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gramcore._hf import cache_argument
from gramcore.model import Decoder, load

from bench.harness import Bench, Contender, peer_version

CONTEXT = 128
Step = Callable[[], list[np.ndarray]]


def run(bench: Bench) -> None:
    decoder = Decoder.from_gguf("smollm2", max_len=512)
    model = load("smollm2", bits=16)[0]
    rng = np.random.default_rng(0)
    for batch, new in ((4, 1), (16, 1), (8, 8)):
        # The peer's batch is rectangular: the shorter contexts cost it padding.
        lengths = rng.integers(CONTEXT // 2, CONTEXT + 1, batch)
        prompts = [rng.integers(1000, 49000, n) for n in lengths]
        tokens = rng.integers(1000, 49000, (batch, new))
        together, alone = _native(decoder, prompts, tokens)
        want = alone()

        def check(name: str, rows: list[np.ndarray], want: list[np.ndarray] = want) -> None:
            """Ours to the bit; the peer's bf16 the same law, roughly."""
            if name.startswith("gramcore"):
                if not all(np.array_equal(a, b) for a, b in zip(rows, want, strict=True)):
                    raise AssertionError(f"{name}: logits of the batch differ from single passes")
                return
            p, q = (torch.from_numpy(np.stack(x)).log_softmax(-1) for x in (want, rows))
            divergence = float((p.exp() * (p - q)).sum(-1).mean())
            if not divergence < 0.25:
                raise AssertionError(f"{name}: mean KL divergence of the logits is {divergence:.3f}")

        bench.case(
            f"{batch} sequences x {new} token(s), contexts to {CONTEXT}",
            [
                Contender("gramcore forward_batch", together),
                Contender("gramcore, a pass each", alone),
                Contender(f"{peer_version('transformers')} bf16", _transformers(model, prompts, tokens)),
            ],
            check=check,
            units=batch * new,
        )


def _native(decoder: Decoder, prompts: list[np.ndarray], tokens: np.ndarray) -> tuple[Step, Step]:
    caches = [decoder.new_cache() for _ in prompts]
    decoder.forward_batch(prompts, caches=caches, last_only=True)
    chain = np.arange(-1, tokens.shape[1] - 1)

    def together() -> list[np.ndarray]:
        return decoder.forward_batch(list(tokens), [chain] * len(caches), caches=caches)

    def alone() -> list[np.ndarray]:
        return [decoder.forward(row, chain, cache=cache) for row, cache in zip(tokens, caches, strict=True)]

    return together, alone


def _transformers(model: Any, prompts: list[np.ndarray], tokens: np.ndarray) -> Step:
    from transformers import DynamicCache

    longest, new = max(map(len, prompts)), tokens.shape[1]
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros(len(prompts), longest + new, dtype=torch.long)
    for b, prompt in enumerate(prompts):
        ids[b, longest - len(prompt) :] = torch.from_numpy(prompt)
        mask[b, longest - len(prompt) :] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache()
    with torch.no_grad():
        model(
            ids,
            attention_mask=mask[:, :longest],
            position_ids=positions[:, :longest],
            logits_to_keep=1,
            **cache_argument(model, cache),
        )

    @torch.no_grad()
    def step() -> list[np.ndarray]:
        out = model(
            torch.from_numpy(tokens),
            attention_mask=mask,
            position_ids=positions[:, longest:],
            **cache_argument(model, cache),
        )
        cache.crop(-new)
        return list(out.logits.float().numpy())

    return step
