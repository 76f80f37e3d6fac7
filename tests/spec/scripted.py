"""Drafters whose drafts are written by the test."""

from __future__ import annotations

from typing import Any

import numpy as np
from gramcore.spec import Context, Drafter, DraftTree, FixedLength

#: Verifies drafts whether they pay on this machine or not.
ALWAYS = FixedLength(6)


class Scripted(Drafter):
    """Drafts from a function of the context."""

    def __init__(self, plan: Any) -> None:
        self.plan = plan
        self.seen: list[int] = []

    def propose(self, ctx: Context, budget: int) -> DraftTree:
        assert self.seen == ctx.tokens.tolist()  # only committed tokens were observed
        return self.plan(ctx, budget)

    def observe(self, accepted: np.ndarray) -> None:
        self.seen += accepted.tolist()

    def rollback(self, n: int) -> None:
        del self.seen[len(self.seen) - n :]

    def fork(self) -> Scripted:
        return Scripted(self.plan)


def prompt(n: int = 24, seed: int = 0) -> list[int]:
    half = np.random.default_rng(seed).integers(0, 97, n // 2).tolist()
    return half + half


def oracle(future: list[int], start: int) -> Any:
    """Always right, as a chain."""
    return lambda ctx, budget: DraftTree.chain(np.int32(future[len(ctx.tokens) - start :][:budget]))
