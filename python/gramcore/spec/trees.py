"""Draft trees grown from a draft law: which continuations to put before the target.

A builder asks for laws layer by layer (``laws(tree)`` returns the draft's natural logarithms at the root and at every
node so far) and returns a tree within the budget. Deterministic builders return trees without a law; random ones return
the laws their siblings were drawn from.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from gramcore._checks import check_int, check_real
from gramcore.spec.base import CounterRng, DraftTree, FloatArray, IntArray
from gramcore.spec.stop_rules import Candidate, MinProbStop, StopRule

__all__ = ["ChainTree", "Eagle2Tree", "Laws", "OptTree", "StaticTree", "TreeBuilder", "best_choices"]

#: ``laws(tree) -> (n + 1, V)`` float64 natural logarithms; row 0 the root, row i + 1 node i. A row of ``-inf`` alone
#: says that the draft knows no continuation there. An object with an attribute ``hidden`` also shows the draft's hidden
#: states ``(n + 1, width)`` of its last call.
Laws = Callable[[DraftTree], FloatArray]


class TreeBuilder(ABC):
    """Grows a draft tree from laws."""

    #: Whether siblings are drawn at random (the tree then carries ``logq``).
    random: bool = False
    #: Ask the drafter for ``laws.hidden``.
    needs_hidden: bool = False

    @abstractmethod
    def build(self, laws: Laws, budget: int, rng: CounterRng) -> DraftTree:
        """A tree of at most ``budget`` nodes."""


class ChainTree(TreeBuilder):
    """One sequence: the most probable token at each step, or a random one.

    Args:
        depth: ``>= 1``; longest chain.
        sample: draw the tokens (the tree then carries the laws, scheme ``"iid"``).
        min_prob: in ``[0, 1)``; short for ``stop=MinProbStop(min_prob)``.
        stop: asked before every token; the chain ends where it says so.

    Raises:
        ValueError: ``min_prob`` and ``stop`` together.

    Differs from paper: none.
    Reference: Leviathan et al. 2022, arXiv:2211.17192; the confidence stop is that of assisted generation.

    >>> ChainTree(depth=3).random
    False
    """

    def __init__(
        self, *, depth: int = 8, sample: bool = False, min_prob: float = 0.0, stop: StopRule | None = None
    ) -> None:
        self.depth = check_int("depth", depth, low=1)
        self.random = bool(sample)
        self.min_prob = check_real("min_prob", min_prob, low=0, high=1, high_open=True)
        if stop is not None and min_prob > 0:
            raise ValueError(f"min_prob must be 0 beside a stop rule, got {min_prob}; give one of them")
        self.stop = MinProbStop(min_prob) if min_prob > 0 else stop
        self.needs_hidden = self.stop is not None and self.stop.needs_hidden

    def build(self, laws: Laws, budget: int, rng: CounterRng) -> DraftTree:
        tokens: list[int] = []
        numbers = draft_numbers(rng)
        rows: list[FloatArray] = []
        for index in range(min(self.depth, budget)):
            law = laws(DraftTree.chain(tokens))[-1]
            if not known(law):
                break
            if self.stop is not None:
                hidden = laws.hidden[-1] if self.needs_hidden else None  # type: ignore[attr-defined]
                if self.stop.stop(Candidate(index, law, hidden)):
                    break
            if not self.random:
                tokens.append(int(np.argmax(law)))
                continue
            rows.append(law)
            edges = np.cumsum(np.exp(law))
            support = int(np.flatnonzero(np.exp(law))[-1])
            tokens.append(min(int(np.searchsorted(edges, numbers.random() * edges[-1], side="right")), support))
        chain = DraftTree.chain(tokens)
        if not self.random or not tokens:
            return chain
        return DraftTree(chain.tokens, chain.parents, np.stack([*rows, rows[-1]]), "iid")


class StaticTree(TreeBuilder):
    """A fixed shape: every node is named by the ranks of its ancestors and itself among their siblings.

    Args:
        choices: rank paths, for example ``[(0,), (1,), (0, 0)]``; default: the best 24 for typical rank accuracies.

    Differs from paper: shapes are cut to the budget in order of value.
    Reference: Cai et al. 2024, arXiv:2401.10774, appendix C.

    >>> len(StaticTree().choices)
    24
    """

    def __init__(self, *, choices: Sequence[Sequence[int]] | None = None) -> None:
        given = best_choices(typical_accuracy(5, 6), 24) if choices is None else choices
        self.choices = [tuple(check_int("choices", rank, low=0) for rank in path) for path in given]
        known = set(self.choices)
        for path in self.choices:
            if not path or (len(path) > 1 and path[:-1] not in known):
                raise ValueError(f"choices must contain the parent of every path, got {path} without {path[:-1]}")

    def build(self, laws: Laws, budget: int, rng: CounterRng) -> DraftTree:
        chosen = self.choices[:budget]
        tree = DraftTree.empty()
        where: dict[tuple[int, ...], int] = {(): -1}
        for depth in range(1, max((len(path) for path in chosen), default=0) + 1):
            layer = [path for path in chosen if len(path) == depth and path[:-1] in where]
            if not layer:
                break
            rows = laws(tree)
            tokens, parents = list(tree.tokens), list(tree.parents)
            widest = max(path[-1] for path in layer) + 1
            ranked = {parent: top_tokens(rows[where[parent] + 1], widest) for parent in {p[:-1] for p in layer}}
            for path in layer:
                if path[-1] >= len(ranked[path[:-1]]):
                    continue
                where[path] = len(tokens)
                tokens.append(int(ranked[path[:-1]][path[-1]]))
                parents.append(where[path[:-1]])
            tree = DraftTree(np.array(tokens, np.int32), np.array(parents, np.int32))
        return tree


class OptTree(TreeBuilder):
    """The tree of the budget's size with the largest expected accepted length under the draft's own law.

    ``E(T) = sum_{v in T} D(v)``, D(v) the product of draft probabilities down to v: the n nodes of largest D, which
    form a tree. Layers are drafted until another adds less than ``threshold`` expected tokens to the best n.

    Args:
        depth: ``>= 1``; most layers.
        threshold: in ``[0, 1)``; choose the time of a draft pass over that of a target pass.

    Differs from paper: sums of logarithms instead of products.
    Reference: Wang et al. 2024, arXiv:2406.17276, Algorithm 1.

    >>> OptTree(depth=4).threshold
    0.3
    """

    def __init__(self, *, depth: int = 8, threshold: float = 0.3) -> None:
        self.depth = check_int("depth", depth, low=1)
        self.threshold = check_real("threshold", threshold, low=0, high=1, high_open=True)

    def build(self, laws: Laws, budget: int, rng: CounterRng) -> DraftTree:
        grown = _Growing()
        value = 0.0
        frontier = [-1]
        for _ in range(self.depth):
            grown.expand(laws, frontier, budget, keep=budget)
            frontier = grown.newest
            best = np.sort(np.exp(grown.scores))[::-1][:budget].sum()
            if best - value <= self.threshold or not frontier:
                break
            value = float(best)
        return grown.best(budget)


class Eagle2Tree(TreeBuilder):
    """Expand the ``top_k`` most probable nodes of every layer, then keep the best of all candidates.

    Args:
        depth: ``>= 1``; layers.
        top_k: ``>= 1``; nodes expanded per layer and children per node.

    Differs from paper: none.
    Reference: Li et al. 2024, arXiv:2406.16858, section 4.

    >>> Eagle2Tree().top_k
    10
    """

    def __init__(self, *, depth: int = 5, top_k: int = 10) -> None:
        self.depth = check_int("depth", depth, low=1)
        self.top_k = check_int("top_k", top_k, low=1)

    def build(self, laws: Laws, budget: int, rng: CounterRng) -> DraftTree:
        grown = _Growing()
        frontier = [-1]
        for _ in range(self.depth):
            if not frontier:
                break
            grown.expand(laws, frontier, self.top_k, keep=None)
            scores = np.array(grown.scores)[grown.newest]
            order = np.argsort(-scores, kind="stable")[: self.top_k]
            frontier = [grown.newest[i] for i in order]
        return grown.best(budget)


class _Growing:
    """Candidates of a tree under construction: tokens, parents, cumulative log-probabilities."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.scores: list[float] = []
        self.newest: list[int] = []

    def expand(self, laws: Laws, frontier: list[int], width: int, keep: int | None) -> None:
        """Add the ``width`` best children of every frontier node; of the whole layer the ``keep`` best stay."""
        rows, names = self._laws(laws, frontier)
        layer: list[tuple[float, int, int]] = []
        for row, node in zip(names, frontier, strict=True):
            base = self.scores[node] if node >= 0 else 0.0
            for token in top_tokens(rows[row], width):
                layer.append((base + float(rows[row, token]), node, int(token)))
        if keep is not None:
            layer = sorted(layer, key=lambda item: -item[0])[:keep]
        self.newest = list(range(len(self.tokens), len(self.tokens) + len(layer)))
        for score, node, token in layer:
            self.tokens.append(token)
            self.parents.append(node)
            self.scores.append(score)

    def _laws(self, laws: Laws, frontier: list[int]) -> tuple[FloatArray, list[int]]:
        """Laws of the frontier: only it and its ancestors are put into the forward."""
        needed: set[int] = set()
        for start in frontier:
            node = start
            while node >= 0 and node not in needed:
                needed.add(node)
                node = self.parents[node]
        tree, renamed = self._subtree(sorted(needed))
        return laws(tree), [renamed[node] + 1 for node in frontier]

    def _subtree(self, nodes: list[int]) -> tuple[DraftTree, dict[int, int]]:
        renamed = {-1: -1, **{node: i for i, node in enumerate(nodes)}}
        tokens = np.array([self.tokens[n] for n in nodes], np.int32)
        parents = np.array([renamed[self.parents[n]] for n in nodes], np.int32)
        return DraftTree(tokens, parents), renamed

    def best(self, budget: int) -> DraftTree:
        """The ``budget`` candidates of largest score, parents first (a parent never scores below its child)."""
        order = sorted(range(len(self.tokens)), key=lambda i: (-self.scores[i], i))[:budget]
        return self._subtree(sorted(order))[0]


def typical_accuracy(depth: int, ranks: int) -> FloatArray:
    """``[d, r]``: a plausible probability that the rank-r guess at depth d is right, for want of a measurement."""
    return np.array([[0.55 * 0.85**d * 0.35**r for r in range(ranks)] for d in range(depth)])


def best_choices(accuracy: FloatArray, num_nodes: int) -> list[tuple[int, ...]]:
    """The most valuable rank paths: ``value(path) = prod_d accuracy[d, rank_d]``, best first; worthless ones never.

    Args:
        accuracy: ``(depth, ranks)``, each ``>= 0``.
        num_nodes: ``>= 0``.
    """
    order = np.argsort(-accuracy, axis=1, kind="stable")
    ranked = np.take_along_axis(accuracy, order, 1).tolist()
    chosen: list[tuple[int, ...]] = []
    heap: list[tuple[float, tuple[int, ...], float]] = []  # -value, places in the sorted rows, value of the parent

    def offer(base: float, path: tuple[int, ...]) -> None:
        if len(path) <= len(ranked) and path[-1] < len(ranked[0]):
            value = base * ranked[len(path) - 1][path[-1]]
            if value > 0:
                heapq.heappush(heap, (-value, path, base))

    offer(1.0, (0,))
    while heap and len(chosen) < num_nodes:
        value, path, base = heapq.heappop(heap)
        chosen.append(tuple(int(order[d, place]) for d, place in enumerate(path)))
        offer(-value, (*path, 0))
        offer(base, (*path[:-1], path[-1] + 1))
    return chosen


def top_tokens(law: FloatArray, k: int) -> IntArray:
    """The k most probable tokens with probability above 0, best first, lowest id among equals."""
    k = min(k, len(law))
    if k <= 0:
        return np.empty(0, np.int32)
    part = np.argpartition(-law, k - 1)[:k] if k < len(law) else np.arange(len(law))
    part = np.flatnonzero(law >= law[part].min())
    order = part[np.lexsort((part, -law[part]))][:k]
    return order[np.isfinite(law[order])].astype(np.int32)


def known(law: FloatArray) -> bool:
    """Whether the draft has a law here."""
    return bool(law.max() > -np.inf)


def beside(trees: Sequence[DraftTree], budget: int) -> DraftTree:
    """Trees with a common root as one, their common paths merged, those first named first; as strong as the first."""
    if not trees:
        return DraftTree.empty()
    starts = np.cumsum([0, *(len(tree) for tree in trees)])
    tokens = np.concatenate([tree.tokens for tree in trees])
    parents = np.concatenate([np.where(t.parents < 0, -1, t.parents + s) for t, s in zip(trees, starts, strict=False)])
    return DraftTree(tokens, parents.astype(np.int32), strength=trees[0].strength).pruned(None, budget)


def draft_numbers(rng: CounterRng) -> np.random.Generator:
    """A generator for one tree, named by seed, stream and output position."""
    return np.random.Generator(np.random.Philox(key=[rng.seed, rng.stream << 32 | rng.position & 0xFFFFFFFF]))
