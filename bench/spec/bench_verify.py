"""Verification of drafts over a 49152-token vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gramcore.spec import CounterRng, DraftTree, GreedyVerifier, RecursiveVerifier, Sampling, TargetRows

from bench.harness import Bench, Contender, peer_version

VOCAB = 49_152


def greedy_case() -> tuple[DraftTree, torch.Tensor]:
    """A 64-node tree whose accepted path has 6 nodes."""
    rng = np.random.default_rng(0)
    logits = torch.randn(65, VOCAB, generator=torch.Generator().manual_seed(0))
    tokens, parents, row = [], [], 0
    for _ in range(6):
        parents.append(row - 1)
        tokens.append(int(logits[row].argmax()))
        row = len(tokens)
    while len(tokens) < 64:
        parents.append(int(rng.integers(-1, len(tokens))))
        tokens.append(int(rng.integers(VOCAB)))
    return DraftTree(np.array(tokens, np.int32), np.array(parents, np.int32)), logits


def run(bench: Bench) -> None:
    tree, logits = greedy_case()
    verifier, rng = GreedyVerifier(), CounterRng(0)

    def all_rows() -> Any:
        best = logits.argmax(-1).tolist()
        path, row = [], 0
        while (node := tree.child(row, best[row])) >= 0:
            path.append(node)
            row = node + 1
        return path, best[row]

    expected = all_rows()

    def check(name: str, out: Any) -> None:
        got = out if isinstance(out, tuple) else (out.path.tolist(), out.next_token)
        if got != expected:
            raise AssertionError(f"{name}: {got} instead of {expected}")

    bench.case(
        "greedy, 64 nodes, 6 accepted",
        [
            Contender("gramcore GreedyVerifier", lambda: verifier.verify(tree, logits, rng)),
            Contender(f"torch {torch.__version__} argmax of all rows", all_rows),
        ],
        check=check,
    )
    sampled(bench)


def sampled(bench: Bench) -> None:
    """A chain of 10 random drafts; both sides see the same laws."""
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(11, VOCAB, generator=generator)
    draft = target + 0.1 * torch.randn(11, VOCAB, generator=generator)
    q = torch.softmax(draft, -1)
    tokens = torch.multinomial(q[:10], 1, generator=generator)[:, 0]
    logq = torch.log_softmax(draft.double(), -1).numpy()
    tree = DraftTree(
        tokens.numpy().astype(np.int32),
        np.arange(-1, 9, dtype=np.int32),
        logq,
        "iid",
    )
    rule, rng = RecursiveVerifier(), CounterRng(0)

    def ours() -> Any:
        return rule.verify(tree, TargetRows(target, Sampling(1.0)), next_position(rng))

    contenders = [
        Contender(
            "gramcore RecursiveVerifier",
            ours,
        )
    ]
    if version := peer_version("transformers"):
        from transformers.generation.utils import _speculative_sampling

        ids = torch.cat([torch.zeros(1, 1, dtype=torch.long), tokens[None]], 1)
        contenders.append(
            Contender(
                f"{version} _speculative_sampling",
                lambda: _speculative_sampling(ids, draft[None, :10], 10, target[None], False),
            )
        )
    bench.case("sampled, chain of 10", contenders, check=lambda name, out: None)


def next_position(rng: CounterRng) -> CounterRng:
    """Fresh numbers for every repetition."""
    rng.position += 16
    return rng
