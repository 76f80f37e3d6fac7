"""Lexical unit decoding: spans the heads are sure of are emitted without being verified. Lossy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from gramcore._checks import check_int, check_real
from gramcore.spec.base import CounterRng, Dice, DraftTree, Lossless, TargetRows, Verdict, Verifier
from gramcore.spec.default_verifier import DefaultVerifier
from gramcore.spec.heads.base import Batch, TrainableDraft
from gramcore.spec.heads.losses import PerHeadLoss, target_law
from gramcore.spec.trees import Laws, TreeBuilder, known

__all__ = ["LexicalUnitLoss", "LexicalUnitTree", "LexicalUnitVerifier"]


class LexicalUnitTree(TreeBuilder):
    """A chain of tokens the heads are sure of: it ends before the first of probability below alpha.

    Args:
        alpha: in (0, 1]; span confidence.
        depth: ``>= 1``; longest span.
        repeats: whether a token may follow itself in a span.

    Differs from paper: repeats end a span instead of being sampled again.
    Reference: Sun et al. 2024, arXiv:2405.15208 (LUD).

    >>> LexicalUnitTree().alpha
    0.9
    """

    def __init__(self, *, alpha: float = 0.9, depth: int = 7, repeats: bool = False) -> None:
        self.alpha = check_real("alpha", alpha, low=0, high=1, low_open=True)
        self.depth = check_int("depth", depth, low=1)
        self.repeats = bool(repeats)

    def build(self, laws: Laws, budget: int, rng: CounterRng) -> DraftTree:
        tokens: list[int] = []
        while len(tokens) < min(self.depth, budget):
            law = laws(DraftTree.chain(tokens))[-1]
            token = int(np.argmax(law))
            if not known(law) or np.exp(law[token]) < self.alpha or (not self.repeats and tokens[-1:] == [token]):
                break
            tokens.append(token)
        return DraftTree.chain(tokens)


class LexicalUnitVerifier(Verifier):
    """Takes a drafted span as it stands; the target decides the token after it. Lossy: level L2.

    Emits the first child of the root, of that node, and so on, then the target's own token (its argmax, or a draw at
    temperature above 0) after the last. The target's rows along the span are not looked at, so what it would have said
    there, processors included, does not count; a grammar does, since it prunes drafts. Only the first step of a text is
    verified: its draft was made before the prompt's last token was read.

    Differs from paper: the span was chosen by the draft (:class:`LexicalUnitTree`); states of accepted tokens are
        recomputed in the same forward that continues the text.
    Reference: Sun et al. 2024, arXiv:2405.15208 (LUD).

    >>> LexicalUnitVerifier().lossless.value
    'L2'
    """

    lossless = Lossless.L2
    schemes = ("fixed",)

    def verify(self, tree: DraftTree, target: TargetRows | Any, rng: CounterRng) -> Verdict:
        if rng.position == 0 and tree.scheme in self.schemes:
            return DefaultVerifier().verify(tree, target, rng)
        return super().verify(tree, target, rng)

    def _walk(self, tree: DraftTree, rows: TargetRows, dice: Dice) -> tuple[list[int], int]:
        path: list[int] = []
        row = 0
        while len(below := tree.children(row)):
            path.append(int(below[0]))
            row = path[-1] + 1
        if rows.sampling.temperature > 0:
            return path, dice.at(len(path)).pick_row(rows, row)
        return path, rows.argmax(row)


class LexicalUnitLoss(PerHeadLoss):
    """``sum_i decay^i CE(logits_i, x_{t+2+i})`` over the places whose span up to there is a lexical unit.

    A span is a unit if the target gives probability at least alpha to each of its tokens ``x_{t+2} .. x_{t+2+i}`` (its
    law restricted to F); other places do not count. Heads then become sure of units and of nothing else.

    Args:
        alpha: in (0, 1].
        decay: in (0, 1]; weight of a head over that of the one before.

    Reference: Sun et al. 2024, arXiv:2405.15208 (LUD).

    >>> LexicalUnitLoss(alpha=0.8).alpha
    0.8
    """

    def __init__(self, *, alpha: float = 0.9, decay: float = 1.0) -> None:
        super().__init__(decay=decay)
        self.alpha = check_real("alpha", alpha, low=0, high=1, low_open=True)

    @property
    def name(self) -> str:
        return f"LexicalUnitLoss(alpha={self.alpha:g}, decay={self.decay:g})"

    def _term(
        self, draft: TrainableDraft, batch: Batch, positions: torch.Tensor, index: int, logits: torch.Tensor
    ) -> torch.Tensor:
        inside = torch.ones(batch.ids.shape[0] * len(positions), dtype=torch.bool)
        for before in range(index + 1):
            wanted = draft.places(batch.ids[:, positions + 2 + before]).flatten()
            law = target_law(draft, batch, positions, before).flatten(0, 1)
            sure = law.gather(1, wanted.clamp_min(0)[:, None])[:, 0].exp() >= self.alpha
            inside &= sure & (wanted >= 0)
        total = nn.functional.cross_entropy(logits[inside], wanted[inside], reduction="sum")
        return total / max(1, int(inside.sum()))
