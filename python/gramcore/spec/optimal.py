"""How often the best possible rule could accept, by way of drafting: an upper bound beside measured acceptance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gramcore._checks import check_choice, check_int
from gramcore.spec.base import FloatArray

__all__ = ["optimal_acceptance"]

# Double-exponential quadrature on (0, inf): t = exp(pi/2 sinh(x)).
_X = np.linspace(-4.3, 4.3, 260)
_T = np.exp(np.pi / 2 * np.sinh(_X))
_W = _T * (np.pi / 2) * np.cosh(_X) * (_X[1] - _X[0])


def optimal_acceptance(p: npt.ArrayLike, q: npt.ArrayLike, k: int, scheme: str = "iid") -> float:
    """Largest probability that a token of law p is among k drafts, over all rules that emit exactly p.

    By duality of optimal transport ``alpha = 1 + min_H [P(H) - Q(H)]`` with ``P(H) = sum_H p`` and ``Q(H)`` the
    probability that all drafts lie in H; a minimiser is a prefix of the tokens sorted by q/p descending.

    * ``"iid"``: ``Q(H) = q(H)^k``.
    * ``"without_replacement"``: by exponential clocks, ``Q(H) = int c e^{-ct} P(at least k clocks of H rang by t) dt``
      with ``c = q(not H)``; for all prefixes together in ``O(V k)`` per quadrature node.
    * ``"greedy_tail"``: ``sum_T p + sum_rest min(p, q')``, T the k - 1 most probable tokens of q.
    * ``"fixed"``: mass of p on the k most probable tokens of q.

    Args:
        p, q: laws over the same V tokens.
        k: drafts, ``>= 1``.
        scheme: as above.

    Raises:
        ValueError: not laws of one length.

    Differs from paper: quadrature instead of sampling for drafts without replacement (error below 1e-9).
    Reference: Hu et al. 2025, arXiv:2502.18779, Theorem 3.

    >>> round(optimal_acceptance([0.5, 0.5], [1.0, 0.0], 1), 3)
    0.5
    """
    target, draft = _law("p", p), _law("q", q)
    if target.shape != draft.shape:
        raise ValueError(f"p and q must have one length, got {len(target)} and {len(draft)}")
    check_int("k", k, low=1)
    check_choice("scheme", scheme, ("fixed", "iid", "without_replacement", "greedy_tail"))
    order = np.argsort(-draft, kind="stable")
    if scheme == "fixed":
        return float(target[order[:k]].sum())
    if scheme == "greedy_tail":
        rest = draft.copy()
        rest[order[: k - 1]] = 0
        total = rest.sum()
        tail = np.minimum(target, rest / total) if total > 0 else np.zeros_like(rest)
        tail[order[: k - 1]] = 0
        return float(target[order[: k - 1]].sum() + tail.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(target > 0, draft / target, np.where(draft > 0, np.inf, -1.0))
    prefix = np.argsort(-ratio, kind="stable")
    mass_p = np.cumsum(target[prefix])
    if scheme == "iid":
        all_inside = np.minimum(np.cumsum(draft[prefix]), 1.0) ** k
    else:
        all_inside = _inside_without_replacement(draft[prefix], min(k, int((draft > 0).sum())))
    return float(1 + min(0.0, np.min(mass_p - all_inside)))


def _inside_without_replacement(q: FloatArray, k: int) -> FloatArray:
    """``[i]``: probability that the first k draws without replacement are among tokens 0..i."""
    outside = np.maximum(1 - np.cumsum(q), 0)
    remaining = np.concatenate([np.cumsum(q[::-1])[::-1][1:], [0.0]])  # like `outside`, without cancellation
    counts = np.zeros((k + 1, len(_T)))  # P(j clocks rang by t), the last row collects >= k
    counts[0] = 1
    result = np.empty(len(q))
    for i, rate in enumerate(q):
        rang = -np.expm1(-rate * _T)
        moved = counts[:-1] * rang
        counts[:-1] -= moved
        counts[1:] += moved
        c = remaining[i]
        result[i] = 1.0 if c <= 1e-15 and outside[i] <= 1e-12 else float((c * np.exp(-c * _T) * counts[k] * _W).sum())
    return result


def _law(name: str, value: npt.ArrayLike) -> FloatArray:
    law = np.asarray(value, np.float64)
    if law.ndim != 1 or not len(law) or not np.all(law >= 0) or not abs(law.sum() - 1) < 1e-6:
        raise ValueError(f"{name} must be a law (1-D, non-negative, sum 1), got sum {law.sum():.6g}, shape {law.shape}")
    return law
