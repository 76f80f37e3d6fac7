"""Rules that look at a whole draft before deciding: block verification, and typical acceptance (lossy)."""

from __future__ import annotations

import math

import numpy as np

from gramcore._checks import check_real
from gramcore.spec.base import Dice, DraftTree, Lossless, TargetRows, Verifier

__all__ = ["BlockVerifier", "TypicalVerifier"]


class BlockVerifier(Verifier):
    """Block verification of a chain: accepts at least as many tokens in expectation as token-wise rejection.

    ``pi_0 = 1``, ``pi_i = min(1, pi_{i-1} p(x_i) / q(x_i))``; for ``i < g``: ``s_i = sum_x (pi_i p(x | x_<=i) - q(x |
    x_<=i))_+`` and ``h_i = s_i / (s_i + 1 - pi_i)``; ``h_g = pi_g``. The last ``i`` with ``u_i < h_i`` is accepted; the
    next token is drawn from ``norm((pi_i p - q)_+)``, or from p after the whole chain. Cost: three passes over V per
    drafted token.

    Differs from paper: strict inequality; ``h_i = 1`` where ``pi_i = 1`` and ``s_i = 0``.
    Reference: Sun et al. 2024, arXiv:2403.10444, Algorithm 2.

    >>> BlockVerifier().lossless.value
    'L1'
    """

    lossless = Lossless.L1
    schemes = ("iid", "without_replacement")

    def _walk(self, tree: DraftTree, rows: TargetRows, dice: Dice) -> tuple[list[int], int]:
        n = len(tree)
        dice.at(0)  # the numbers of the first token, always emitted, serve the whole block
        if n == 0:
            return [], dice.pick_row(rows, 0)
        if not np.array_equal(tree.parents, np.arange(-1, n - 1)):
            raise ValueError("tree must be a chain for block verification, got branches; choose RecursiveVerifier")
        assert tree.logq is not None
        pi = [1.0]
        for i, token in enumerate(tree.tokens):
            q = math.exp(tree.logq[i, token])
            ratio = rows.prob(i, int(token)) / q if q > 0 and pi[-1] > 0 else 0.0
            pi.append(min(1.0, pi[-1] * ratio))
        while n > 0 and pi[n] == 0:  # nothing beyond a token of probability 0 can stand
            n -= 1
        if n == len(tree) and dice.flip(pi[n]):
            return list(range(n)), dice.pick_row(rows, n)
        for i in range(min(n, len(tree) - 1), -1, -1):
            rest = np.maximum(pi[i] * rows.probs(i) - np.exp(tree.logq[i]), 0)
            s = float(rest.sum())
            h = 1.0 if i == 0 or s + 1 - pi[i] <= 0 else s / (s + 1 - pi[i])
            if i == 0 or dice.flip(h):
                weights = rest if s > 0 else rows.probs(i)
                return list(range(i)), dice.pick(weights)
        raise AssertionError("unreachable: depth 0 always stands")


class TypicalVerifier(Verifier):
    """Typical acceptance, lossy: ``p(x) > min(epsilon, delta exp(-H(p)))``, H the entropy at the parent.

    The longest path of standing nodes is emitted, among equals the one of the highest summed log p; the token after it
    is the argmax. The first token is the argmax too, drafted or not.

    Args:
        epsilon: in (0, 1]; hard threshold.
        delta: in (0, 1]; weight of the entropy-dependent threshold; the paper pairs 0.09 with 0.3 = sqrt(0.09).

    Differs from paper: none.
    Reference: Cai et al. 2024, arXiv:2401.10774, section 2.3.1.

    >>> TypicalVerifier().lossless.value
    'L2'
    """

    lossless = Lossless.L2
    schemes = ("fixed", "iid", "without_replacement", "greedy_tail")

    def __init__(self, *, epsilon: float = 0.09, delta: float = 0.3) -> None:
        self.epsilon = check_real("epsilon", epsilon, low=0, high=1, low_open=True)
        self.delta = check_real("delta", delta, low=0, high=1, low_open=True)

    def _walk(self, tree: DraftTree, rows: TargetRows, dice: Dice) -> tuple[list[int], int]:
        start = rows.argmax(0)
        root = tree.child(0, start)
        if root < 0:
            return [], start
        score = {root: (1, 0.0)}  # node -> (length, summed log p)
        for node in range(root + 1, len(tree)):
            parent = int(tree.parents[node])
            if parent not in score:
                continue
            p = rows.probs(parent + 1)
            value = float(p[tree.tokens[node]])
            positive = p[p > 0]
            entropy = -float((positive * np.log(positive)).sum())
            if value > min(self.epsilon, self.delta * math.exp(-entropy)):
                length, total = score[parent]
                score[node] = (length + 1, total + math.log(value))
        best = max(score, key=lambda node: (*score[node], -node))
        return tree.path_to(best), rows.argmax(best + 1)
