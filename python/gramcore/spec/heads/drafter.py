"""Draft trees from any heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from gramcore.spec.base import Context, Drafter, DraftTree, FloatArray, IntArray, Sampling, TargetRows
from gramcore.spec.heads.base import DraftHeads
from gramcore.spec.trees import Eagle2Tree, TreeBuilder
from gramcore.spec.vocabulary import build_over

__all__ = ["FeatureTrack", "HeadDrafter", "HeadLaws"]


class HeadDrafter(Drafter):
    """Trained heads draft; a builder decides the tree.

    Deterministic builders see the heads' softmax at temperature 1; random ones the law of the request (temperature,
    top-k, top-p) over the heads' vocabulary, which is the law the drafts are drawn from. Trees end at the last head.

    Args:
        heads: attached to the target that ``generate`` runs.
        builder: default ``Eagle2Tree(depth=num_heads, top_k=4)``; one whose stop rule reads hidden states is refused.

    Raises:
        TypeError: not heads, or heads without their target.
        ValueError: a builder that asks for the draft's hidden states.

    Differs from paper: any builder with any heads.
    Reference: the heads' papers; trees: Cai et al. 2024, arXiv:2401.10774; Li et al. 2024, arXiv:2406.16858.

    >>> HeadDrafter(None)
    Traceback (most recent call last):
    ...
    TypeError: heads must be DraftHeads attached to a model, got NoneType; make them with for_model or load_heads
    """

    needs_hidden = True
    bounded = True

    def __init__(self, heads: DraftHeads, *, builder: TreeBuilder | None = None) -> None:
        check_heads(heads)
        self.heads = heads
        self.builder = Eagle2Tree(depth=heads.num_heads, top_k=4) if builder is None else builder
        if self.builder.needs_hidden:
            raise ValueError(
                "builder must not ask for hidden states of a draft model, got "
                f"{type(self.builder).__name__} with such a stop rule; use MinProbStop or DiscoStop"
            )
        self._track = FeatureTrack(heads)

    def propose(self, ctx: Context, budget: int) -> DraftTree:
        feature = self._track.feature(ctx)
        if feature is None:
            return DraftTree.empty()
        sampling = ctx.sampling if self.builder.random and ctx.sampling.temperature > 0 else None
        laws = HeadLaws(self.heads, feature, int(ctx.tokens[-1]), sampling, self._track.past)
        return build_over(self.heads.vocabulary, self.builder, laws, budget, ctx.rng)

    def observe(self, accepted: IntArray) -> None:
        """Tokens come with the context."""

    def observe_hidden(self, states: Any) -> None:
        self._track.extend(states)

    def rollback(self, n: int) -> None:
        self._track.drop(n)

    def fork(self) -> HeadDrafter:
        return HeadDrafter(self.heads, builder=self.builder)


class FeatureTrack:
    """Features of the committed text; without history only the state that the context brings.

    Hidden states wait until a draft is asked for, so text that is not drafted costs little.
    """

    def __init__(self, heads: DraftHeads) -> None:
        self._heads = heads
        self._features: list[torch.Tensor] = []  # (W,) of every row but the root's
        self._waiting: list[torch.Tensor] = []  # (W,) hidden states not read yet
        self.past: Any = None

    def feature(self, ctx: Context) -> torch.Tensor | None:
        """``(W,)`` of the row that predicted the root, or None if there was none."""
        if self._heads.uses_history:
            self._catch_up(ctx.tokens)
            return self._features[-1] if self._features else None
        if ctx.hidden is None:
            return None
        with torch.inference_mode():
            root = torch.tensor([[int(ctx.tokens[-1])]])
            return self._heads.context(ctx.hidden.float().cpu()[None, None], following=root)[0][0, 0]

    def extend(self, states: Any) -> None:
        """Hidden states of committed rows, in order."""
        if self._heads.uses_history and len(states):
            self._waiting.extend(states.float().cpu().unbind(0))

    def drop(self, n: int) -> None:
        """Forget the last ``n`` of them."""
        if n <= 0:
            return
        read = max(0, len(self._features) - max(0, n - len(self._waiting)))
        del self._waiting[max(0, len(self._waiting) - n) :]
        if read < len(self._features):
            del self._features[read:]
            self.past = self.past.crop(read)

    def _catch_up(self, tokens: IntArray) -> None:
        """Read what waits; row ``t`` is followed by ``tokens[t + 1]``."""
        if not self._waiting:
            return
        done = len(self._features)
        following = torch.from_numpy(tokens[done + 1 : done + 1 + len(self._waiting)].astype(np.int64))
        with torch.inference_mode():
            new, self.past = self._heads.context(torch.stack(self._waiting)[None], self.past, following=following[None])
        self._waiting = []
        self._features.extend(new[0].unbind(0))


class HeadLaws:
    """Laws of heads along the paths of a tree; every path is computed once, or every depth if heads see no tokens.

    Rows deeper than the last head are ``-inf``: no law.
    """

    def __init__(
        self,
        heads: DraftHeads,
        feature: torch.Tensor,
        root: int,
        sampling: Sampling | None = None,
        past: Any = None,
    ) -> None:
        self._heads, self._root, self._sampling, self._past = heads, root, sampling, past
        self._states: dict[tuple[int, ...], torch.Tensor] = {}
        self._laws: dict[tuple[int, ...], FloatArray] = {}
        self._feature = feature
        self._nothing = np.full(heads.num_rows, -np.inf)

    def __call__(self, tree: DraftTree) -> FloatArray:
        paths: list[tuple[int, ...]] = [()]
        for token, parent in zip(tree.tokens.tolist(), tree.parents.tolist(), strict=True):
            paths.append((*paths[parent + 1], token if self._heads.regressive else 0))
        new = [path for path in dict.fromkeys(paths) if path not in self._laws]
        for depth in range(self._heads.num_heads):
            if layer := [path for path in new if len(path) == depth]:
                self._compute(depth, layer)
        return np.stack([self._laws.get(path, self._nothing) for path in paths])

    def _compute(self, depth: int, paths: list[tuple[int, ...]]) -> None:
        with torch.inference_mode():
            before = torch.stack([self._states[path[:-1]] if path else self._feature for path in paths])
            tokens = torch.tensor([path[-1] if path else self._root for path in paths])
            states, logits = self._heads.step(depth, before, tokens, self._past)
            laws = self._law_rows(logits)
        for path, state, law in zip(paths, states, laws, strict=True):
            self._states[path], self._laws[path] = state, law

    def _law_rows(self, logits: torch.Tensor) -> FloatArray:
        laws = np.full(tuple(logits.shape), -np.inf)
        there = ~torch.isnan(logits).any(-1)  # a head whose state is missing has no law
        if self._sampling is None:
            laws[there.numpy()] = torch.log_softmax(logits[there].double(), -1).numpy()
            return laws
        rows = TargetRows(logits.float().contiguous(), self._sampling)
        with np.errstate(divide="ignore"):
            for i in np.flatnonzero(there.numpy()):
                laws[i] = np.log(rows.probs(int(i)))
        return laws


def check_heads(heads: Any) -> None:
    """Raise unless these are heads with their target's rows."""
    if not isinstance(heads, DraftHeads) or heads.target_rows is None:
        remedy = "make them with for_model or load_heads"
        raise TypeError(f"heads must be DraftHeads attached to a model, got {type(heads).__name__}; {remedy}")
