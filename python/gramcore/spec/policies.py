"""Length policies: how many nodes to draft."""

from __future__ import annotations

import math

import numpy as np

from gramcore._checks import check_int, check_real
from gramcore.spec.base import Context, FloatArray, LengthPolicy, StepRecord

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


class CostModelLength(LengthPolicy):
    """Drafts as much as pays on this machine, and nothing when nothing pays.

    Chooses ``n`` maximising ``E(n) / T(n)`` with ``E(n) = 1 + sum_{d<=n} prod_{j<=d} a_j`` the expected tokens of a
    step and ``T(n)`` its time. ``a_j`` is the share of drafts that reached depth j and were accepted there, with
    exponential forgetting; ``T(0)`` the time of plain steps, ``T(n) = T_draft + u + v n`` a line through the steps that
    had drafts. While ``n = 0`` wins, a short draft is tried now and then, at growing distances. Timings change how
    many tokens are drafted, never which tokens a lossless rule for deterministic drafts emits.

    Args:
        max_nodes: ``>= 1``; longest draft.
        memory_steps: ``>= 1``; steps after which an observation counts half.
        first: ``>= 1``; budget before anything is known.

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
        self._reached = np.zeros(max_nodes)
        self._stood = np.zeros(max_nodes)
        self._plain = np.zeros(2)  # weight, seconds
        self._moments = np.zeros(5)  # weight, n, n^2, s, n s of steps with drafts
        self._draft_s = 0.0
        self._silent = 0  # steps since the last draft while off
        self._distance = 8

    def budget(self, ctx: Context | None) -> int:
        if self._moments[0] == 0:
            return self.first
        if self._plain[0] == 0:
            return 0  # one plain step to compare with
        lengths = np.arange(1, self.max_nodes + 1, dtype=np.float64)
        gain = (1 + np.cumsum(self._survival())) / self._step_seconds(lengths)
        best = int(np.argmax(gain))
        if gain[best] > 1 / (self._plain[1] / self._plain[0]):
            self._silent, self._distance = 0, 8
            return int(lengths[best])
        self._silent += 1
        if self._silent < self._distance:
            return 0
        self._silent, self._distance = 0, min(2 * self._distance, 128)
        return min(4, self.max_nodes)

    def _survival(self) -> FloatArray:
        """Probability that a draft stands down to each depth; depths seldom reached borrow from the one before."""
        share, total, result = 0.5, 1.0, np.empty(self.max_nodes)
        for depth in range(self.max_nodes):
            share = (self._stood[depth] + share) / (self._reached[depth] + 1.0)
            total *= share
            result[depth] = total
        return result

    def _step_seconds(self, lengths: FloatArray) -> FloatArray:
        plain = self._plain[1] / self._plain[0]
        # Least squares with one prior observation: a slope of 3 % of a plain step per node.
        w, n, nn, s, ns = self._moments
        mean_n, mean_s = n / w, s / w
        spread = nn - n * mean_n
        slope = (ns - n * mean_s + 0.03 * plain * 16) / (spread + 16)
        times = mean_s + max(slope, 0.0) * (lengths - mean_n)
        return np.maximum(times, 0.5 * plain) + self._draft_s

    def observe(self, step: StepRecord) -> None:
        seconds = step.target_s + step.verify_s
        if not step.drafted:
            self._plain *= self._keep
            self._plain += (1, seconds)
            return
        for moments in (self._moments, self._reached, self._stood):
            moments *= self._keep
        self._moments += (1, step.drafted, step.drafted**2, seconds, step.drafted * seconds)
        depth = min(step.offered_depth, self.max_nodes)
        self._reached[: min(step.accepted + 1, depth)] += 1
        self._stood[: min(step.accepted, depth)] += 1
        self._draft_s += (step.draft_s - self._draft_s) * (1 - self._keep)

    def fork(self) -> CostModelLength:
        return CostModelLength(max_nodes=self.max_nodes, memory_steps=self.memory_steps, first=self.first)
