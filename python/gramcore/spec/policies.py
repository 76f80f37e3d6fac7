"""Length policies: how many nodes to draft."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import numpy as np

from gramcore._checks import check_int, check_real
from gramcore.spec.base import Context, DraftTree, FloatArray, LengthPolicy, StepRecord

__all__ = ["BassLength", "CostModelLength", "FixedLength"]


class FixedLength(LengthPolicy):
    """The same budget at every step.

    Args:
        nodes: ``>= 0``.

    Differs from paper: none.
    Reference: Leviathan et al. 2022, arXiv:2211.17192 (constant gamma).

    >>> FixedLength(4).nodes
    4
    """

    def __init__(self, nodes: int = 10) -> None:
        self.nodes = check_int("nodes", nodes, low=0)

    def budget(self, ctx: Context) -> int:
        return self.nodes

    def observe(self, step: StepRecord) -> None:
        """Nothing to learn."""

    def fork(self) -> FixedLength:
        return self


class BassLength(LengthPolicy):
    """Grows after a fully accepted draft, shrinks ever faster otherwise.

    ``l = min(l + increment, limit)`` when everything was accepted; else ``l = l - ceil(l / divisor) - s`` with
    ``s = 1`` from the second shrink in a row, never below the number accepted nor 1.

    Args:
        start: ``>= 1``; l_0.  increment: ``>= 1``.  divisor: ``>= 1``; l_mod.  limit: ``>= start``.

    Differs from paper: applied per sequence, since ragged batches need no common length.
    Reference: Qian et al. 2024, arXiv:2404.15778, Algorithm 1.

    >>> BassLength().start
    7
    """

    def __init__(self, *, start: int = 7, increment: int = 2, divisor: int = 10, limit: int = 32) -> None:
        self.start = check_int("start", start, low=1)
        self.increment = check_int("increment", increment, low=1)
        self.divisor = check_int("divisor", divisor, low=1)
        self.limit = check_int("limit", limit, low=start)
        self._length, self._shrinking = start, 0

    def budget(self, ctx: Context) -> int:
        return self._length

    def observe(self, step: StepRecord) -> None:
        if not step.drafted:
            return
        if step.accepted >= min(self._length, step.offered_depth):
            self._length, self._shrinking = min(self._length + self.increment, self.limit), 0
            return
        shrunk = self._length - math.ceil(self._length / self.divisor) - self._shrinking
        self._length, self._shrinking = max(1, step.accepted, shrunk), 1

    def fork(self) -> BassLength:
        return BassLength(start=self.start, increment=self.increment, divisor=self.divisor, limit=self.limit)


#: Strengths (match lengths) from which on a draft belongs to the next class.
_CLASSES = (1, 2, 4, 8, 16)
#: First guesses by class (0: unknown strength): a draft's first token stands, and a later one if those before do.
_PRIORS = ((0.5, 0.85), (0.3, 0.7), (0.45, 0.8), (0.6, 0.85), (0.75, 0.93), (0.9, 0.97))


class _Acceptance:
    """How often the i-th node of a draft stood, with exponential forgetting."""

    def __init__(self, max_nodes: int, keep: float, first: float, later: float) -> None:
        self._keep, self._first, self._later = keep, first, later
        self._offered = np.zeros(max_nodes)
        self._stood = np.zeros(max_nodes)
        self.silent, self.distance = 0, 8  # drafts since the last one verified while they do not pay

    def observe(self, drafted: int, path: Sequence[int]) -> None:
        self._offered *= self._keep
        self._stood *= self._keep
        self._offered[:drafted] += 1
        self._stood[list(path)] += 1

    def nodes(self, count: int) -> FloatArray:
        """Probability that each node stands; nodes seldom offered borrow from the one before."""
        result, before = np.empty(count), self._first / self._later
        for i in range(count):
            before = (self._stood[i] + 2 * self._later * before) / (self._offered[i] + 2)
            result[i] = before
        return result


class CostModelLength(LengthPolicy):
    """Drafts as much as pays on this machine, and nothing when nothing pays.

    Verifies the first ``n`` nodes of a draft, n maximising ``E(n) / T(n)`` over 0, 1, …: ``E(n) = 1 + sum_{i <= n}
    P_i`` the expected tokens of a step and ``T(n)`` its time. ``P_i`` is the share of earlier drafts of like strength
    (match length) whose i-th node stood, with exponential forgetting; ``T(0)`` the time of plain steps, ``T(n) =
    T_draft + u + v n`` a line through the steps that had drafts. While ``n = 0`` wins for a strength, a short draft of
    it is tried now and then, at growing distances. Drafts are asked for at full length as long as drafting is cheap,
    and not at all while an expensive drafter cannot pay. Timings change how many tokens are drafted, never which tokens
    a lossless rule for deterministic drafts emits.

    Args:
        max_nodes: ``>= 1``; longest draft.
        memory_steps: ``>= 1``; steps after which an observation counts half.
        first: in ``[1, max_nodes]``; longest draft before anything is known.

    Differs from paper: C(n) and the acceptance are learned while decoding instead of before; switches itself off.
    Reference: expected length of Leviathan et al. 2022, arXiv:2211.17192, section 3.

    >>> CostModelLength().budget(None)
    10
    """

    def __init__(self, *, max_nodes: int = 32, memory_steps: float = 24.0, first: int = 10) -> None:
        self.max_nodes = check_int("max_nodes", max_nodes, low=1)
        self.memory_steps = check_real("memory_steps", memory_steps, low=1)
        self.first = check_int("first", first, low=1, high=max_nodes)
        self._keep = 0.5 ** (1 / self.memory_steps)
        self._classes = [_Acceptance(max_nodes, self._keep, *prior) for prior in _PRIORS]
        self._plain = np.zeros(2)  # weight, seconds
        self._moments = np.zeros(5)  # weight, n, n^2, s, n s of steps with drafts
        self._draft_s = 0.0
        self._last = self._classes[0]

    def budget(self, ctx: Context | None) -> int:
        if self._moments[0] == 0:
            return self.first
        plain = self._plain_seconds()
        if self._draft_s < 0.02 * plain:
            return self.max_nodes
        return self._choose(self._last, self.max_nodes)

    def cut(self, tree: DraftTree) -> int:
        few = min(len(tree), self.max_nodes)
        if self._moments[0] == 0 or not few or self._draft_s >= 0.02 * self._plain_seconds():
            return few  # nothing known yet, or decided before drafting
        return self._choose(self._class_of(tree.strength), few)

    def _class_of(self, strength: float) -> _Acceptance:
        return self._classes[bisect.bisect_right(_CLASSES, strength)]

    def _choose(self, kind: _Acceptance, most: int) -> int:
        """The best length of at most ``most`` nodes for drafts of this kind, 0 if none pays."""
        if not self._plain[0] and kind.nodes(1)[0] < 0.8:
            return 0  # one plain step to compare with, unless drafts are plainly good
        gain = (1 + np.cumsum(kind.nodes(most))) / self._step_seconds(np.arange(1, most + 1, dtype=np.float64))
        best = int(np.argmax(gain))
        if gain[best] > 1 / self._plain_seconds():
            kind.silent, kind.distance = 0, 8
            return best + 1
        kind.silent += 1
        if kind.silent < kind.distance:
            return 0
        kind.silent, kind.distance = 0, min(2 * kind.distance, 128)
        return min(4, most)

    def _plain_seconds(self) -> float:
        if self._plain[0]:
            return float(self._plain[1] / self._plain[0])
        w, n, _, s, _ = self._moments  # before the first plain step: 4 % of it per node
        return float(s / w / (1 + 0.04 * n / w))

    def _step_seconds(self, lengths: FloatArray) -> FloatArray:
        plain = self._plain_seconds()
        # Least squares with one prior observation: the line from a plain step to the mean of those with drafts.
        w, n, nn, s, ns = self._moments
        mean_n, mean_s = n / w, s / w
        spread = nn - n * mean_n
        slope = (ns - n * mean_s + max(0.0, mean_s - plain) / mean_n * 16) / (spread + 16)
        times = mean_s + max(slope, 0.0) * (lengths - mean_n)
        return np.maximum(times, 0.5 * plain) + self._draft_s

    def observe(self, step: StepRecord) -> None:
        seconds = step.target_s + step.verify_s
        if not step.drafted:
            self._plain *= self._keep
            self._plain += (1, seconds)
            return
        path = range(step.accepted) if step.path is None else step.path
        drafted = min(step.drafted, self.max_nodes)
        self._last = self._class_of(step.strength)
        self._last.observe(drafted, [node for node in path if node < drafted])
        self._moments *= self._keep
        self._moments += (1, step.drafted, step.drafted**2, seconds, step.drafted * seconds)
        self._draft_s += (step.draft_s - self._draft_s) * (1 - self._keep)

    def fork(self) -> CostModelLength:
        return CostModelLength(max_nodes=self.max_nodes, memory_steps=self.memory_steps, first=self.first)
