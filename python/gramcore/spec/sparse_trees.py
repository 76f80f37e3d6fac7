"""PPD's dynamic sparse tree: which nodes to draft, and how many prompt tokens each of them carries.

A prompt token behind a node guesses a token further on, in the same forward that verifies the node. What is guessed
decides how deep the *next* tree can be, so trees come in states: with s usable guesses the tree has depth s.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from gramcore._checks import check_int
from gramcore.spec.base import CounterRng, DraftTree, FloatArray, IntArray
from gramcore.spec.trees import Laws, StaticTree, TreeBuilder, best_choices, known, typical_accuracy

__all__ = ["SparsePlan", "SparseTree", "best_sparse_plan", "measure_cost", "sparse_plan"]

Path = tuple[int, ...]
_GRID = 4096


@dataclass(frozen=True)
class SparsePlan:
    """Trees by state, and what they bring.

    Attributes:
        trees: ``[s]``: prompt tokens by rank path, best path first; ``()`` is the root. s = 0 .. m.
        value: expected tokens per step in the long run.
        rows: rows of a step: root, nodes and prompt tokens of the largest tree.
    """

    trees: tuple[Mapping[Path, int], ...]
    value: float
    rows: int

    def counts(self, parents: IntArray) -> list[int]:
        """Prompt tokens of the root and of every node of a tree that may have been cut."""
        paths: list[Path] = [()]
        born: dict[int, int] = {}
        for parent in parents.tolist():
            rank = born.get(parent, 0)
            born[parent] = rank + 1
            paths.append((*paths[parent + 1], rank))
        shape = set(paths)
        tree = next((t for t in self.trees if t.keys() == shape), None)
        if tree is None:
            tree = self.trees[min(max(map(len, paths)), len(self.trees) - 1)]
        return [tree.get(path, 1) for path in paths]


class SparseTree(TreeBuilder):
    """The tree of the plan's state: as deep as the node before carried prompt tokens.

    Args:
        plan: from :func:`sparse_plan`; default: for typical accuracies, three guesses and 24 rows.

    Differs from paper: none.
    Reference: Chen et al. 2024, arXiv:2405.18628 (PPD), section 4.

    >>> len(SparseTree().plan.trees)
    4
    """

    def __init__(self, *, plan: SparsePlan | None = None) -> None:
        self.plan = sparse_plan(typical_accuracy(3, 6), 24) if plan is None else plan

    def build(self, laws: Laws, budget: int, rng: CounterRng) -> DraftTree:
        deepest = len(self.plan.trees) - 1
        rows = laws(DraftTree.chain([0] * (deepest - 1)))  # heads that read no tokens: any chain shows their laws
        state = next((d for d in range(deepest) if not known(rows[d])), deepest)
        return StaticTree(choices=[path for path in self.plan.trees[state] if path]).build(laws, budget, rng)


def sparse_plan(accuracy: FloatArray, rows: int) -> SparsePlan:
    """Trees of at most ``rows`` rows for every state, with the largest value found.

    With ``D(v) = prod_d accuracy[d, rank_d]`` the tree of state s has the ``c_s`` nodes of largest D down to depth s,
    so ``f_s = 1 + sum D`` expected tokens. All nodes start with m prompt tokens; as long as there are too many, one
    goes from the node where ``P(v is the last accepted) (f_k - f_{k-1})`` is smallest, k its count, ``P(v) = D(v) -
    sum of D over its children``; each keeps one. The last accepted node's count is the next state; with pi the
    stationary law of that chain the value is ``sum_s pi_s f_s``. All combinations of ``c_s`` are tried, or, beyond 4096
    of them, each is improved in turn until none changes.

    Args:
        accuracy: ``(m, ranks)`` in [0, 1], rows summing to at most 1: share of right guesses by distance and rank; see
            ``evaluate_heads``.
        rows: ``>= 1 + m``.

    Differs from paper: coordinate ascent where the grid is large.
    Reference: Chen et al. 2024, arXiv:2405.18628, section 4.

    >>> round(sparse_plan(np.array([[0.6, 0.2], [0.4, 0.1]]), 8).value, 2)
    1.91
    """
    table = np.asarray(accuracy, np.float64)
    if table.ndim != 2 or not table.size or not (table >= 0).all() or (table.sum(1) > 1 + 1e-9).any():
        raise ValueError(f"accuracy must be (m, ranks) shares that sum to at most 1, got {table.tolist()!r}")
    deepest = len(table)
    check_int("rows", rows, low=1 + deepest)
    most = max(0, rows // 2 - 1)
    ranked = [best_choices(table[:s], most) for s in range(deepest + 1)]
    choices = [range(min(most, len(ranked[s])), -1, -1) for s in range(1, deepest + 1)]
    if math.prod(len(c) for c in choices) <= _GRID:
        return max((_evaluate(table, ranked, c, rows) for c in product(*choices)), key=lambda plan: plan.value)
    sizes = [c[0] for c in choices]
    best = _evaluate(table, ranked, sizes, rows)
    while True:
        before = best.value
        for i, c in product(range(deepest), range(most, -1, -1)):
            tried = _evaluate(table, ranked, [*sizes[:i], min(c, choices[i][0]), *sizes[i + 1 :]], rows)
            if tried.value > best.value + 1e-12:
                best, sizes[i] = tried, min(c, choices[i][0])
        if best.value <= before:
            return best


def _evaluate(table: FloatArray, ranked: Sequence[list[Path]], sizes: Sequence[int], rows: int) -> SparsePlan:
    deepest = len(table)
    chosen = [[], *(ranked[s + 1][:size] for s, size in enumerate(sizes))]
    reach = [
        {(): 1.0, **{p: float(np.prod([table[d, r] for d, r in enumerate(p)])) for p in paths}} for paths in chosen
    ]
    expected = [sum(d.values()) for d in reach]
    trees, moves = [], np.zeros((deepest + 1, deepest + 1))
    for s in range(deepest + 1):
        last = dict(reach[s])
        for path in chosen[s]:
            last[path[:-1]] -= reach[s][path]
        trees.append(_remove_prompts(last, expected, deepest, rows))
        for path, count in trees[s].items():
            moves[s, count] += last[path]
    system = np.vstack([moves.T - np.eye(deepest + 1), np.ones(deepest + 1)])
    share = np.linalg.lstsq(system, np.append(np.zeros(deepest + 1), 1.0), rcond=None)[0]
    used = max(len(tree) + sum(tree.values()) for tree in trees)
    return SparsePlan(tuple(trees), float(share @ expected), used)


def _remove_prompts(last: Mapping[Path, float], expected: Sequence[float], most: int, rows: int) -> dict[Path, int]:
    """Prompt tokens by path, as many as fit."""
    counts = dict.fromkeys(last, most)
    order = list(last)

    def loss(i: int) -> tuple[float, int]:
        count = counts[order[i]]
        return last[order[i]] * (expected[count] - expected[count - 1]), -i

    heap = [(*loss(i), i) for i in range(len(order)) if most > 1]
    heapq.heapify(heap)
    for _ in range(len(order) * (1 + most) - rows):
        i = heapq.heappop(heap)[2]
        counts[order[i]] -= 1
        if counts[order[i]] > 1:
            heapq.heappush(heap, (*loss(i), i))
    return counts


def best_sparse_plan(accuracy: FloatArray, cost: Mapping[int, float]) -> SparsePlan:
    """The plan of largest value per time: hardware-aware size of the trees.

    Args:
        accuracy: see :func:`sparse_plan`.
        cost: rows of a forward -> its time, any unit, ``> 0``; see :func:`measure_cost`.
    """
    if not cost or min(cost.values()) <= 0:
        raise ValueError(f"cost must hold times > 0 by rows, got {dict(cost)!r}; measure_cost makes it")
    plans = [(sparse_plan(accuracy, rows), seconds) for rows, seconds in cost.items() if rows > len(accuracy)]
    if not plans:
        raise ValueError(f"cost must have an entry for more than m = {len(accuracy)} rows, got {sorted(cost)}")
    return max(plans, key=lambda item: item[0].value / item[1])[0]


def measure_cost(
    model: Any, sizes: Sequence[int] = (4, 8, 12, 16, 24, 32), *, context: int = 256, repeats: int = 5
) -> dict[int, float]:
    """C(n) of this machine: median seconds of a forward with n rows behind a context.

    Args:
        model: what ``generate`` takes.
        sizes: rows, each ``>= 1``.
        context: ``>= 1`` tokens before them.
        repeats: ``>= 1`` timed forwards per size, after one that is not counted.
    """
    import torch

    from gramcore.spec.generation import as_host

    check_int("context", context, low=1)
    check_int("repeats", repeats, low=1)
    host = as_host(model)
    cost: dict[int, float] = {}
    with torch.inference_mode():
        for rows in sizes:
            check_int("sizes", rows, low=1)
            host.open(1, context + rows + repeats + 1)
            host.prefill([np.zeros(context, np.int32)])
            chain = DraftTree.chain([0] * (rows - 1))
            times = []
            for _ in range(repeats + 1):
                started = time.perf_counter()
                host.forward([0], [(chain.tokens, chain.parents)])
                times.append(time.perf_counter() - started)
                host.commit(0, np.empty(0, np.int32))
            cost[int(rows)] = float(np.median(times[1:]))
    return cost
