"""Protocols of speculative decoding: what a drafter hands over, what a verifier decides, who chooses the length.

A draft tree has its nodes in topological order; ``parents[i] < i`` and ``-1`` means child of the *root*, the last
committed token, which is not a node. A tree forward computes ``n + 1`` rows: row 0 is the root, row ``i + 1`` node
``i``; each row is the target's law of the token that follows.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gramcore._core import spec as _native
from gramcore.spec.rows import CounterRng, Dice, FloatArray, IntArray, Sampling, TargetRows

__all__ = [
    "Context",
    "CounterRng",
    "Dice",
    "DraftTree",
    "Drafter",
    "FloatArray",
    "IntArray",
    "LengthPolicy",
    "Lossless",
    "Sampling",
    "StepRecord",
    "TargetRows",
    "Verdict",
    "Verifier",
]


class Lossless(enum.Enum):
    """What a verification rule promises.

    * ``L0``: the emitted tokens are those of plain decoding, given the same target rows: greedy, or sampling with the
      same counter-based random numbers.
    * ``L1``: the emitted tokens have exactly the target's law.
    * ``L2``: approximate; the output law differs.

    All three speak about the rows that the model's forward returned. Whether a forward over ``n`` rows returns the
    same bits as ``n`` forwards over one is a property of the model's kernels, see ``docs/spec.md``.
    """

    L0 = "L0"
    L1 = "L1"
    L2 = "L2"


@dataclass(frozen=True)
class DraftTree:
    """Guessed continuations of the context.

    Args:
        tokens: ``(n,)`` int32 token ids.
        parents: ``(n,)`` int32, ``-1 <= parents[i] < i``; siblings in drawing order.
        logq: None for deterministic drafts, else the draft's full law at every *parent row* as natural logarithms,
            ``(n + 1, V)`` float64: ``logq[r]`` is the law from which the children of row ``r`` were drawn (rows of
            leaves are not read).
        scheme: how siblings were drawn: ``"fixed"`` (deterministic), ``"iid"``, ``"without_replacement"`` or
            ``"greedy_tail"`` (all but the last are the most probable tokens, the last is drawn from the rest).
        strength: ``>= 0``; how much speaks for the draft, on the drafter's own scale (length of the match); 0: unknown.
            Length policies learn what it is worth.
    """

    tokens: IntArray
    parents: IntArray
    logq: FloatArray | None = None
    scheme: str = "fixed"
    strength: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", _int_row("tokens", self.tokens))
        object.__setattr__(self, "parents", _int_row("parents", self.parents))
        if self.scheme not in ("fixed", "iid", "without_replacement", "greedy_tail"):
            raise ValueError(f"scheme must be fixed, iid, without_replacement or greedy_tail, got {self.scheme!r}")
        if (self.logq is None) != (self.scheme == "fixed"):
            raise ValueError(f"logq must be given exactly when drafts are random, got scheme {self.scheme!r}")

    @classmethod
    def empty(cls) -> DraftTree:
        """The tree without nodes."""
        return cls(np.empty(0, np.int32), np.empty(0, np.int32))

    @classmethod
    def chain(cls, tokens: npt.ArrayLike, strength: float = 0.0) -> DraftTree:
        """One sequence of deterministic drafts."""
        ids = np.asarray(tokens, np.int32).reshape(-1)
        return cls(ids, np.arange(-1, len(ids) - 1, dtype=np.int32), strength=strength)

    def __len__(self) -> int:
        return len(self.tokens)

    def check(self, vocab_size: int) -> None:
        """Raise ValueError unless tokens are in the vocabulary, parents precede children and logq is a law."""
        _native.check_tree(self.tokens, self.parents, vocab_size)
        if self.logq is not None:
            _check_law(self.logq, self.parents, vocab_size)

    def depths(self) -> IntArray:
        """``(n,)`` distance of every node from the root, from 1."""
        return _native.tree_depths(self.parents)[1:]

    def child(self, row: int, token: int) -> int:
        """Index of the child of ``row`` (0 = root) that holds ``token``, or -1."""
        return _native.find_child(self.tokens, self.parents, row, token)

    def children(self, row: int) -> IntArray:
        """Indices of the children of ``row`` in drawing order."""
        return np.flatnonzero(self.parents == row - 1).astype(np.int32)

    def path_to(self, node: int) -> list[int]:
        """Node indices from a child of the root down to ``node``; empty for ``node == -1``."""
        path: list[int] = []
        while node >= 0:
            path.append(node)
            node = int(self.parents[node])
        return path[::-1]

    def pruned(self, keep: npt.NDArray[np.bool_] | None, budget: int) -> DraftTree:
        """Without refused nodes (and their subtrees), duplicate siblings and what exceeds ``budget`` nodes.

        Random drafts keep their duplicates and siblings (removing one would change the law they were drawn from); they
        are only cut to the budget, whole sibling groups at a time.
        """
        if self.logq is not None:
            return self._cut_groups(budget)
        mask = np.ones(len(self), np.uint8) if keep is None else keep.astype(np.uint8)
        kept, parents = _native.prune_tree(self.tokens, self.parents, mask, budget)
        if len(kept) == len(self):
            return self
        return DraftTree(self.tokens[kept], parents, strength=self.strength)

    def _cut_groups(self, budget: int) -> DraftTree:
        if len(self) <= budget:
            return self
        assert self.logq is not None
        renamed = np.full(len(self) + 1, -2)
        renamed[-1] = -1
        alive = np.zeros(len(self), bool)
        for parent in [-1, *range(len(self))]:
            group = np.flatnonzero(self.parents == parent)
            if (parent < 0 or alive[parent]) and int(alive.sum()) + len(group) <= budget:
                alive[group] = True
        kept = np.flatnonzero(alive)
        renamed[kept] = np.arange(len(kept))
        rows = np.concatenate([[0], kept + 1])
        return DraftTree(self.tokens[kept], renamed[self.parents[kept]], self.logq[rows], self.scheme, self.strength)


@dataclass
class Context:
    """What a drafter may look at.

    Attributes:
        tokens: committed tokens, prompt first; the last one is the root.
        num_prompt: how many of them are the prompt.
        sampling: the law of the request, for drafters that follow its temperature.
        rng: numbers for random drafts; not those of verification.
        hidden: last hidden state of the row that predicted the root, if the drafter asked for it, else None.
    """

    tokens: IntArray
    num_prompt: int
    sampling: Sampling
    rng: CounterRng
    hidden: Any = None


class Drafter(ABC):
    """Guesses continuations. State follows committed tokens only: rejected drafts are never observed."""

    #: Ask the loop for ``Context.hidden``.
    needs_hidden: bool = False
    #: Whether every call is known to return soon. Others are made from a thread that can be left behind.
    bounded: bool = False

    @abstractmethod
    def propose(self, ctx: Context, budget: int) -> DraftTree:
        """At most ``budget`` nodes that may follow ``ctx.tokens``; an empty tree is a fine answer."""

    @abstractmethod
    def observe(self, accepted: IntArray) -> None:
        """Take note of tokens committed since the last call; the first call brings the prompt."""

    @abstractmethod
    def rollback(self, n: int) -> None:
        """Forget the last ``n`` observed tokens."""

    @abstractmethod
    def fork(self) -> Drafter:
        """A drafter with the same settings and shared read-only data, and an empty history."""

    def observe_hidden(self, states: Any) -> None:  # noqa: B027
        """Last hidden states ``(rows, width)`` of newly committed rows, before their next tokens are observed.

        Only with ``needs_hidden``. The first call brings the prompt's rows; default: ignore them.
        """

    def observe_target(self, tree: DraftTree, rows: TargetRows) -> None:  # noqa: B027
        """See the target's rows of a verified tree, before its tokens are observed; default: ignore them."""


@dataclass(frozen=True)
class Verdict:
    """Accepted nodes, ascending from a child of the root, and the token that follows the last of them."""

    path: IntArray
    next_token: int


class Verifier(ABC):
    """Decides which drafts stand."""

    #: The promise of this rule.
    lossless: Lossless
    #: Sibling schemes (``DraftTree.scheme``) whose law this rule handles.
    schemes: tuple[str, ...]

    def verify(self, tree: DraftTree, target: TargetRows | Any, rng: CounterRng) -> Verdict:
        """Walk ``tree`` and return the accepted path with the next token.

        Args:
            tree: drafts, ``n`` nodes.
            target: ``TargetRows`` or raw logits ``(n + 1, V)``.
            rng: numbers for output positions from ``rng.position`` on.

        Raises:
            ValueError: the rule does not cover ``tree.scheme``, or the row count is not ``n + 1``.
        """
        rows = target if isinstance(target, TargetRows) else TargetRows(target)
        if len(rows) != len(tree) + 1:
            raise ValueError(f"target must have one row per node and one for the root, got {len(rows)} for {len(tree)}")
        if len(tree) and tree.scheme not in self.schemes:
            raise ValueError(
                f"tree.scheme must be one of {', '.join(self.schemes)} for {type(self).__name__}, got {tree.scheme!r}; "
                "choose a verifier for it"
            )
        path, token = self._walk(tree, rows, Dice(rng))
        return Verdict(np.asarray(path, np.int32), int(token))

    def report(self) -> dict[str, float]:
        """What this rule has measured, for the statistics; default: nothing."""
        return {}

    @abstractmethod
    def _walk(self, tree: DraftTree, rows: TargetRows, dice: Dice) -> tuple[list[int], int]:
        """The accepted node indices and the next token."""


@dataclass(frozen=True)
class StepRecord:
    """One finished step, for policies and statistics. Seconds are wall time; depths count tokens.

    Attributes:
        drafted: nodes verified. offered_depth: of the tree they form. accepted: nodes emitted.
        draft_s, target_s, verify_s: of the whole batch.
        path: the accepted nodes; None: the first ``accepted`` ones.
        strength: that of the draft.
        emitted: the tokens committed; None: not told.
        rows, batch: rows of the whole forward (0: ``drafted + 1``) and its number of sequences.
        asked: whether the drafter was asked. fixed: whether drafts were deterministic.
    """

    drafted: int
    offered_depth: int
    accepted: int
    draft_s: float
    target_s: float
    verify_s: float
    path: tuple[int, ...] | None = None
    strength: float = 0.0
    emitted: tuple[int, ...] | None = None
    rows: int = 0
    batch: int = 1
    asked: bool = True
    fixed: bool = True


class LengthPolicy(ABC):
    """Chooses how many nodes to draft next."""

    def begin(self, host: Any, drafter: Drafter) -> None:  # noqa: B027
        """A request begins on this host; default: nothing to prepare."""

    @abstractmethod
    def budget(self, ctx: Context) -> int:
        """Nodes for the next tree; 0 switches drafting off for this step."""

    def cut(self, tree: DraftTree) -> int:
        """How many nodes of a proposed tree, from its beginning, to verify; default: all."""
        return len(tree)

    @abstractmethod
    def observe(self, step: StepRecord) -> None:
        """Learn from a finished step."""

    def report(self) -> dict[str, float]:
        """What decisions rested on, for the statistics; default: nothing."""
        return {}

    @abstractmethod
    def fork(self) -> LengthPolicy:
        """The same settings with nothing learned."""


def _int_row(name: str, value: Any) -> IntArray:
    array = np.ascontiguousarray(value)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TypeError(f"{name} must be a 1-D integer array, got {array.dtype} of shape {array.shape}")
    return array.astype(np.int32, copy=False)


def _check_law(logq: FloatArray, parents: IntArray, vocab_size: int) -> None:
    if logq.shape != (len(parents) + 1, vocab_size):
        raise ValueError(f"logq must have shape ({len(parents) + 1}, {vocab_size}), got {logq.shape}")
    for row in np.unique(parents) + 1:
        total = float(np.exp(logq[row]).sum())
        if not abs(total - 1) < 1e-4:
            raise ValueError(f"logq must be natural logarithms of laws that sum to 1, got sum {total:.6g} in row {row}")
