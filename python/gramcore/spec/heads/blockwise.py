"""Blockwise drafts whose lattice of independent guesses is rescored by a language model before verification."""

from __future__ import annotations

from typing import Any

import numpy as np

from gramcore._checks import check_int, check_real
from gramcore.spec.base import Context, Drafter, DraftTree, FloatArray, IntArray
from gramcore.spec.heads.base import DraftHeads
from gramcore.spec.heads.drafter import FeatureTrack, HeadLaws, check_heads
from gramcore.spec.heads.rescorers import Path, Rescorer
from gramcore.spec.trees import beside, known, top_tokens

__all__ = ["BlockwiseDrafter"]


class BlockwiseDrafter(Drafter):
    """The best paths through the lattice of h heads and their k most probable tokens.

    Heads that do not see each other's tokens repeat and contradict themselves; a path is worth ``sum_i [log q_i(x_i) +
    weight log P(x_i | text, x_{<i})]`` with q_i the i-th head and P the rescorer. A beam keeps the best partial paths
    (exact if ``beam >= k^(h - 1)``); the best ``paths`` are merged into a tree. With ``local`` each step is a law over
    its k tokens, proportional to ``q_i P^weight``: with ``beam=1`` the paper's local rescoring.

    Args:
        heads: not regressive (:class:`BlockHeads`, :class:`Koala`, :class:`PromptTokenHeads`), attached to the target.
        rescorer: :class:`NgramRescorer` or :class:`ModelRescorer`.
        top_k: ``>= 1``; k.
        paths: ``>= 1``.
        beam: ``>= paths``.
        weight: ``>= 0``; the same for all heads; 0 ignores the rescorer.
        local: normalise every step over its k tokens.

    Raises:
        TypeError: not heads, or heads without their target.
        ValueError: regressive heads.

    Differs from paper: one weight for all heads; the beam replaces the n-gram lattice's finite-state algorithm.
    Reference: Kim et al. 2024, arXiv:2404.09221, section 5; heads: Stern et al. 2018, arXiv:1811.03115.

    >>> BlockwiseDrafter(None, None)
    Traceback (most recent call last):
    ...
    TypeError: heads must be DraftHeads attached to a model, got NoneType; make them with for_model or load_heads
    """

    needs_hidden = True
    bounded = True

    def __init__(
        self,
        heads: DraftHeads,
        rescorer: Rescorer,
        *,
        top_k: int = 8,
        paths: int = 4,
        beam: int = 16,
        weight: float = 0.5,
        local: bool = False,
    ) -> None:
        check_heads(heads)
        if heads.regressive:
            raise ValueError(f"heads must not read drafted tokens, got {heads.kind}; use HeadDrafter for those")
        self.heads, self.rescorer = heads, rescorer
        self.top_k = check_int("top_k", top_k, low=1)
        self.paths = check_int("paths", paths, low=1)
        self.beam = check_int("beam", beam, low=self.paths)
        self.weight = check_real("weight", weight, low=0)
        self.local = bool(local)
        self._track = FeatureTrack(heads)

    def propose(self, ctx: Context, budget: int) -> DraftTree:
        feature = self._track.feature(ctx)
        if feature is None or budget <= 0:
            return DraftTree.empty()
        chain = DraftTree.chain([0] * (min(self.heads.num_heads, budget) - 1))
        laws = HeadLaws(self.heads, feature, int(ctx.tokens[-1]))(chain)
        return beside([DraftTree.chain(path) for path in self._search(laws, ctx.tokens)], budget)

    def _search(self, laws: FloatArray, text: IntArray) -> list[Path]:
        """The best paths, best first."""
        beam: list[tuple[float, Path]] = [(0.0, ())]
        for law in laws:
            if not known(law):
                break
            places = top_tokens(law, self.top_k)
            ids = places if self.heads.vocabulary is None else self.heads.vocabulary.ids[places].astype(np.int32)
            steps = np.tile(law[places], (len(beam), 1))
            if self.weight:
                steps = steps + self.weight * self.rescorer.score(text, [path for _, path in beam], ids)
            if self.local:
                steps = steps - np.logaddexp.reduce(steps, axis=1, keepdims=True)
            total = np.array([score for score, _ in beam])[:, None] + steps
            order = np.argsort(-total, axis=None, kind="stable")[: self.beam]
            rows, columns = np.unravel_index(order, total.shape)
            beam = [
                (float(total[r, c]), (*beam[r][1], int(ids[c])))
                for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
            ]
        return [path for _, path in beam[: self.paths]]

    def observe(self, accepted: IntArray) -> None:
        self.rescorer.observe(accepted)

    def observe_hidden(self, states: Any) -> None:
        self._track.extend(states)

    def rollback(self, n: int) -> None:
        self.rescorer.rollback(n)
        self._track.drop(n)

    def fork(self) -> BlockwiseDrafter:
        return BlockwiseDrafter(
            self.heads,
            self.rescorer.fork(),
            top_k=self.top_k,
            paths=self.paths,
            beam=self.beam,
            weight=self.weight,
            local=self.local,
        )
