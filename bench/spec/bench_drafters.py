"""Cost of drafting: adding a token and proposing ten, on texts of different length."""

from __future__ import annotations

from typing import Any

import numpy as np
from gramcore.spec import Context, CounterRng, NgramDrafter, Sampling, SuffixDrafter

from bench.harness import Bench, Contender, peer_version


def text(n: int) -> np.ndarray:
    """A text of repeating and edited passages over 4000 ids."""
    rng = np.random.default_rng(0)
    passages = [rng.integers(0, 4000, 200) for _ in range(max(2, n // 2000))]
    out: list[int] = []
    while len(out) < n:
        passage = passages[rng.integers(len(passages))].copy()
        passage[rng.integers(200, size=4)] = rng.integers(0, 4000, 4)
        out += passage.tolist()
    return np.array(out[:n], np.int32)


def prompt_lookup(ids: np.ndarray) -> Any:
    """The candidate generator of transformers."""
    import torch
    from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

    generator = PromptLookupCandidateGenerator(num_output_tokens=10, max_matching_ngram_size=10, max_length=10**9)
    tensor = torch.from_numpy(ids.astype(np.int64))[None]
    return lambda: generator.get_candidates(tensor)


def run(bench: Bench) -> None:
    for n in (1_000, 4_000, 100_000, 1_000_000):
        ids = text(n)
        suffix, ngram = SuffixDrafter(), NgramDrafter()
        suffix.observe(ids)
        ngram.observe(ids)
        ctx = Context(ids, n, Sampling(), CounterRng(0))
        contenders = [
            Contender("gramcore suffix, propose 10", lambda d=suffix, c=ctx: d.propose(c, 10)),
            Contender("gramcore suffix, native propose 10", lambda d=suffix: d._text.propose(10)),
            Contender("gramcore n-gram, propose 10", lambda d=ngram, c=ctx: d.propose(c, 10)),
        ]
        if n <= 4_000 and (version := peer_version("transformers")):
            contenders.append(Contender(f"{version} prompt lookup", prompt_lookup(ids)))
        bench.case(f"propose after {n} tokens", contenders, check=lambda name, out: None)
        more = text(256)

        def undo(drafter: Any = suffix, length: int = n) -> None:
            drafter.rollback(drafter._text.num_tokens - length)

        bench.case(
            f"add 256 tokens after {n}, per token",
            [Contender("gramcore suffix", lambda d=suffix, m=more: d.observe(m), setup=undo)],
            check=lambda name, out: None,
            units=256,
        )
