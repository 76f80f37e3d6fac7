"""Verification of drafts that were drawn from a law: rules that emit a token of exactly the target's law.

One engine: at every visited row a rule looks at the target's law p, the draft's law q and the siblings drawn from it,
and *emits* a token y with law p, made to coincide with a sibling as often as it can. If some child holds y, the walk
goes on there; otherwise y is the correction. Subtrees below a child are independent of the decisions above it, so this
continuation is exact for every rule.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import numpy as np

from gramcore.spec.base import Dice, DraftTree, FloatArray, Lossless, TargetRows, Verifier

__all__ = ["GreedyTailVerifier", "KSeqVerifier", "RecursiveVerifier", "chain_rejection", "smallest_rho"]


class _EmitVerifier(Verifier):
    """Walks the tree by emitted tokens. Duplicate siblings are separate draws: their children are pooled."""

    lossless = Lossless.L1

    def _walk(self, tree: DraftTree, rows: TargetRows, dice: Dice) -> tuple[list[int], int]:
        below: list[list[int]] = [[] for _ in range(len(tree) + 1)]  # children by row
        for node, parent in enumerate(tree.parents.tolist()):
            below[parent + 1].append(node)
        tokens = tree.tokens.tolist()
        here = [0]  # rows with the same tokens from the root
        depth = 0
        while True:
            children = [node for row in here for node in below[row]]
            dice.at(depth)
            if not children:
                return tree.path_to(here[0] - 1), dice.pick_row(rows, here[0])
            assert tree.logq is not None
            siblings = [tokens[node] for node in children]
            token = self._emit(rows, here[0], tree.logq[here[0]], siblings, dice)
            matching = [node + 1 for node, t in zip(children, siblings, strict=True) if t == token]
            if not matching:
                return tree.path_to(here[0] - 1), token
            # Go on with all duplicates; the path is read off one of them, so prefer the one that reaches deepest.
            here = matching if len(matching) == 1 else sorted(matching, key=lambda row: (-len(below[row]), row))
            depth += 1

    @abstractmethod
    def _emit(self, rows: TargetRows, row: int, logq: FloatArray, siblings: list[int], dice: Dice) -> int:
        """A token with the target's law after ``row``."""


class RecursiveVerifier(_EmitVerifier):
    """Recursive rejection: try the siblings in drawing order against the residual of what was refused.

    ``r_1 = p, q_1 = q``; accept ``x_j`` with probability ``min(1, r_j(x_j) / q_j(x_j))``, else
    ``r_{j+1} = norm((r_j - q_j)_+)``. Independent siblings keep ``q_{j+1} = q``; those drawn without replacement
    have ``q_{j+1} = norm(q_j without x_j)``. After the last refusal the token is drawn from ``r_{k+1}``. One sibling
    per node is the rejection rule of speculative sampling. Cost: one pass over V per accepted token, three per refusal.

    Differs from paper: acceptance is strict (a token of probability 0 is never accepted); a residual that vanishes by
    rounding falls back to the law before it; the walk continues when the emitted token is a child.
    Reference: Jeon et al. 2024, arXiv:2402.14160 (without replacement); Miao et al. 2023, arXiv:2305.09781 (i.i.d.).

    >>> import numpy as np
    >>> from gramcore.spec import CounterRng, DraftTree, RecursiveVerifier, TargetRows
    >>> law = np.array([[0.5, 0.5], [0.5, 0.5]])
    >>> tree = DraftTree(np.int32([1]), np.int32([-1]), np.log(law), "iid")
    >>> RecursiveVerifier().verify(tree, TargetRows.from_probs(law), CounterRng(0)).path
    array([0], dtype=int32)
    """

    schemes = ("iid", "without_replacement")

    def _walk(self, tree: DraftTree, rows: TargetRows, dice: Dice) -> tuple[list[int], int]:
        self._removes = tree.scheme == "without_replacement"
        return super()._walk(tree, rows, dice)

    def _emit(self, rows: TargetRows, row: int, logq: FloatArray, siblings: list[int], dice: Dice) -> int:
        first = siblings[0]
        if dice.flip(_ratio(rows.prob(row, first), math.exp(logq[first]))):
            return first
        r, q = rows.probs(row), np.exp(logq)
        for j, token in enumerate(siblings):
            if j > 0 and dice.flip(_ratio(float(r[token]), float(q[token]))):
                return token
            r = _residual(r, q)
            if self._removes:
                q = q.copy()
                q[token] = 0
                if (total := q.sum()) > 0:
                    q /= total
        return dice.pick(r)


def chain_rejection() -> RecursiveVerifier:
    """The rejection rule of speculative sampling, for chains: accept with probability min(1, p/q), else the residual.

    ``x ~ q`` is accepted if ``u < p(x) / q(x)``; the correction is drawn from ``norm((p - q)_+)``. Acceptance:
    ``sum_x min(p(x), q(x))``.

    Differs from paper: strict inequality; see :class:`RecursiveVerifier`, which this is with one sibling per node.
    Reference: Leviathan et al. 2022, arXiv:2211.17192, Algorithm 1; Chen et al. 2023, arXiv:2302.01318.

    >>> chain_rejection().lossless.value
    'L1'
    """
    return RecursiveVerifier()


class KSeqVerifier(_EmitVerifier):
    """k-SEQ of SpecTr: every sibling is accepted with the same damped ratio ``min(1, p / (rho q))``.

    With ``beta(rho) = sum_x min(q(x), p(x) / rho)`` and ``A = 1 - (1 - beta)^k``, the correction has law
    ``(p - min(q, p / rho) A / beta) / (1 - A)``; ``rho`` in [1, k] is the smallest with ``A <= rho beta``.
    Acceptance is at least ``1 - 1/e`` of the optimum. Cost: about 10 passes over V per row with children.

    Differs from paper: the walk continues when the correction is a child.
    Reference: Sun et al. 2023, arXiv:2310.15141, Algorithm 3.

    >>> KSeqVerifier().schemes
    ('iid',)
    """

    schemes = ("iid",)

    def _emit(self, rows: TargetRows, row: int, logq: FloatArray, siblings: list[int], dice: Dice) -> int:
        p, q = rows.probs(row), np.exp(logq)
        k = len(siblings)
        rho = smallest_rho(p, q, k)
        for token in siblings:
            if dice.flip(_ratio(float(p[token]), rho * float(q[token]))):
                return token
        common = np.minimum(q, p / rho)
        beta = float(common.sum())
        accepted = 1 - (1 - beta) ** k
        if beta <= 0:
            return dice.pick(p)
        rest = np.maximum(p - common * (accepted / beta), 0)
        return dice.pick(rest if rest.sum() > 0 else p)


def smallest_rho(p: FloatArray, q: FloatArray, k: int) -> float:
    """The smallest rho in [1, k] with ``1 - (1 - beta(rho))^k <= rho beta(rho)``, by regula falsi (Illinois).

    What it returns always satisfies the condition, so the rule is exact; it is smallest to about 1e-15.
    """

    def slack(rho: float) -> float:
        beta = float(np.minimum(q, p / rho).sum())
        return rho * beta - (1 - (1 - beta) ** k)

    low, high = 1.0, float(k)
    at_low, at_high = slack(low), slack(high)
    if at_low >= 0:
        return low
    side = 0
    for _ in range(100):
        if at_high <= 1e-15 or high - low <= 1e-15 * high:
            break
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        if not low < middle < high:
            break
        value = slack(middle)
        if value >= 0:
            high, at_high = middle, value
            at_low = at_low / 2 if side > 0 else at_low
            side = 1
        else:
            low, at_low = middle, value
            at_high = at_high / 2 if side < 0 else at_high
            side = -1
    return high


class GreedyTailVerifier(_EmitVerifier):
    """Greedy draft sampling: all siblings but the last are the draft's most probable tokens, the last is random.

    With ``T`` the fixed siblings and ``q'`` the law q restricted to the rest, ``x ~ q'`` is accepted with probability
    ``min(1, p(x) / q'(x))``; otherwise ``y ~ norm((p - q')_+)``, which is accepted when it lies in ``T``. Acceptance
    ``sum_T p + sum_rest min(p, q')`` is the optimum of this way of drafting. Cost: two passes over V.

    Differs from paper: none.
    Reference: Hu et al. 2025, arXiv:2502.18779, section 5.

    >>> GreedyTailVerifier().lossless.value
    'L1'
    """

    schemes = ("greedy_tail",)

    def _emit(self, rows: TargetRows, row: int, logq: FloatArray, siblings: list[int], dice: Dice) -> int:
        fixed, token = siblings[:-1], siblings[-1]
        rest = np.exp(logq)
        rest[fixed] = 0
        total = float(rest.sum())
        if total <= 0 or token in fixed:  # q has no tail: the last sibling is no draw, the others are certain
            return dice.pick_row(rows, row)
        rest /= total
        if dice.flip(_ratio(rows.prob(row, token), float(rest[token]))):
            return token
        return dice.pick(_residual(rows.probs(row), rest))


def _ratio(p: float, q: float) -> float:
    if q <= 0:
        return 1.0 if p > 0 else 0.0
    return p / q


def _residual(p: FloatArray, q: FloatArray) -> FloatArray:
    rest = p - q
    np.maximum(rest, 0, out=rest)
    total = float(rest.sum())
    if total <= 0:
        return p
    rest /= total
    return rest
