"""Trees whose siblings are drawn at random, with the laws they were drawn from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from gramcore._checks import check_int
from gramcore.spec.base import CounterRng, DraftTree, FloatArray
from gramcore.spec.trees import Laws, TreeBuilder, draft_numbers, known, top_tokens

__all__ = ["GreedyTailTree", "IidTree", "RsdConstantTree", "RsdStochasticTree"]


class _BranchingTree(TreeBuilder):
    """Draws ``branching[d]`` children of every node at depth d; what exceeds the budget ends the tree."""

    random = True
    scheme: str

    def __init__(self, *, branching: Sequence[int] = (3, 2, 1, 1)) -> None:
        self.branching = tuple(check_int("branching", b, low=1) for b in branching)
        if not self.branching:
            raise ValueError("branching must name at least one depth, got none")

    def build(self, laws: Laws, budget: int, rng: CounterRng) -> DraftTree:
        numbers = draft_numbers(rng)
        tokens: list[int] = []
        parents: list[int] = []
        rows: dict[int, FloatArray] = {}
        frontier = [-1]
        for width in self.branching:
            if len(tokens) + width > budget or not frontier:
                break
            given = laws(_plain(tokens, parents))
            newest: list[int] = []
            for node in frontier:
                if not known(given[node + 1]):
                    continue
                children = self._draw(given[node + 1], width, numbers)
                if len(tokens) + len(children) > budget:
                    break
                rows[node] = given[node + 1]
                for token in children:
                    newest.append(len(tokens))
                    tokens.append(int(token))
                    parents.append(node)
            frontier = newest
        return _with_laws(tokens, parents, rows, self.scheme)

    @abstractmethod
    def _draw(self, law: FloatArray, width: int, numbers: np.random.Generator) -> list[int]:
        """``width`` children from ``law``, in drawing order."""


class RsdConstantTree(_BranchingTree):
    """RSD-C: children without replacement by Gumbel-top-k, siblings in drawing order.

    ``g(x) = log q(x) + G(x)`` with independent Gumbel G; the ``branching[d]`` largest, descending.

    Args:
        branching: children per node at each depth, ``>= 1``.

    Differs from paper: none.
    Reference: Jeon et al. 2024, arXiv:2402.14160, Algorithm 3.

    >>> RsdConstantTree().scheme
    'without_replacement'
    """

    scheme = "without_replacement"

    def _draw(self, law: FloatArray, width: int, numbers: np.random.Generator) -> list[int]:
        return [int(t) for t in top_tokens(law + numbers.gumbel(size=len(law)), width)]


class IidTree(_BranchingTree):
    """Children drawn independently from the draft's law; duplicates stay, each is a draw.

    Args:
        branching: children per node at each depth, ``>= 1``.

    Differs from paper: none.
    Reference: Sun et al. 2023, arXiv:2310.15141; Miao et al. 2023, arXiv:2305.09781.

    >>> IidTree().scheme
    'iid'
    """

    scheme = "iid"

    def _draw(self, law: FloatArray, width: int, numbers: np.random.Generator) -> list[int]:
        return [int(np.argmax(law + numbers.gumbel(size=len(law)))) for _ in range(width)]


class GreedyTailTree(_BranchingTree):
    """Greedy draft sampling: all children but the last are the most probable tokens, the last is drawn from the rest.

    Args:
        branching: children per node at each depth, ``>= 1``; 1 is a plain random draft.

    Differs from paper: none.
    Reference: Hu et al. 2025, arXiv:2502.18779, section 5.

    >>> GreedyTailTree().scheme
    'greedy_tail'
    """

    scheme = "greedy_tail"

    def _draw(self, law: FloatArray, width: int, numbers: np.random.Generator) -> list[int]:
        fixed = [int(t) for t in top_tokens(law, width - 1)] if width > 1 else []
        rest = law.copy()
        rest[fixed] = -np.inf
        if not np.isfinite(rest).any():
            return fixed
        return [*fixed, int(np.argmax(rest + numbers.gumbel(size=len(law))))]


class RsdStochasticTree(TreeBuilder):
    """RSD-S: stochastic beam search; the W sequences of each depth are drawn without replacement as sequences.

    With phi the log-probability of a sequence and G its perturbed value, children get ``phi + log q + Gumbel``
    conditioned on their maximum being G; the W largest of the layer stay. Siblings, descending, are a draw without
    replacement from their parent's law; unlikely prefixes die out early.

    Args:
        width: ``>= 1``; W.
        depth: ``>= 1``.

    Differs from paper: none.
    Reference: Jeon et al. 2024, arXiv:2402.14160, Algorithm 4; Kool et al. 2019, arXiv:1903.06059.

    >>> RsdStochasticTree().width
    4
    """

    random = True

    def __init__(self, *, width: int = 4, depth: int = 4) -> None:
        self.width = check_int("width", width, low=1)
        self.depth = check_int("depth", depth, low=1)

    def build(self, laws: Laws, budget: int, rng: CounterRng) -> DraftTree:
        numbers = draft_numbers(rng)
        tokens: list[int] = []
        parents: list[int] = []
        rows: dict[int, FloatArray] = {}
        beam: list[tuple[int, float, float]] = [(-1, 0.0, 0.0)]  # node, log-probability, perturbed value
        for _ in range(self.depth):
            if len(tokens) + self.width > budget or not beam:
                break
            given = laws(_plain(tokens, parents))
            layer: list[tuple[float, int, float, int]] = []
            for order, (node, phi, value) in enumerate(beam):
                law = given[node + 1]
                if not known(law):
                    continue
                rows[node] = law
                perturbed = phi + law + numbers.gumbel(size=len(law))
                conditioned = _given_maximum(perturbed, value)
                for token in top_tokens(conditioned, self.width):
                    layer.append((-float(conditioned[token]), order, phi + float(law[token]), int(token)))
            chosen = sorted(layer)[: self.width]
            newest = []
            for negative, order, phi, token in chosen:
                newest.append((len(tokens), phi, -negative))
                tokens.append(token)
                parents.append(beam[order][0])
            beam = newest
        return _with_laws(tokens, parents, rows, "without_replacement")


def _given_maximum(perturbed: FloatArray, maximum: float) -> FloatArray:
    """Gumbel values conditioned on their maximum, in the numerically stable form of Kool et al., appendix B.3."""
    top = float(perturbed.max())
    with np.errstate(divide="ignore", invalid="ignore"):
        v = maximum - perturbed + np.log1p(-np.exp(perturbed - top))
        result = maximum - np.maximum(v, 0) - np.log1p(np.exp(-np.abs(v)))
    result[np.isneginf(perturbed)] = -np.inf
    result[perturbed == top] = maximum
    return result


def _plain(tokens: list[int], parents: list[int]) -> DraftTree:
    return DraftTree(np.array(tokens, np.int32), np.array(parents, np.int32))


def _with_laws(tokens: list[int], parents: list[int], rows: dict[int, FloatArray], scheme: str) -> DraftTree:
    if not tokens:
        return DraftTree.empty()
    any_law = next(iter(rows.values()))
    logq = np.stack([rows.get(node, any_law) for node in range(-1, len(tokens))])  # leaves' rows are not read
    return DraftTree(np.array(tokens, np.int32), np.array(parents, np.int32), logq, scheme)
