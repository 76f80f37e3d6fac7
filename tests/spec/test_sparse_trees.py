"""PPD's dynamic sparse trees: value, prompt tokens, hardware-aware size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gramcore.spec import (
    CounterRng,
    DraftTree,
    SparseTree,
    best_sparse_plan,
    measure_cost,
    sparse_plan,
    sparse_trees,
)

from tests.reference.heads import walk_of_plan

TABLES = [
    np.array([[0.6, 0.2], [0.4, 0.1]]),
    np.array([[0.5, 0.2, 0.1], [0.45, 0.15, 0.1], [0.3, 0.1, 0.05]]),
    np.array([[0.7]]),
]


@pytest.mark.parametrize("rows", [4, 9, 16])
@pytest.mark.parametrize("table", TABLES, ids=len)
def test_the_value_is_the_tokens_per_step_of_a_long_walk(table: np.ndarray, rows: int) -> None:
    # 20 000 steps of at most m + 1 tokens; consecutive steps depend on each other, so 6 standard errors are allowed
    plan = sparse_plan(table, rows)
    found = walk_of_plan(plan.trees, table, 20_000, seed=rows)
    assert found == pytest.approx(plan.value, abs=6 * (len(table) + 1) / 2 / 20_000**0.5)


@pytest.mark.parametrize("rows", [4, 7, 12, 20])
@pytest.mark.parametrize("table", TABLES, ids=len)
def test_plans_keep_their_rows_and_are_deep_enough(table: np.ndarray, rows: int) -> None:
    plan = sparse_plan(table, rows)
    assert plan.rows <= rows
    assert len(plan.trees) == len(table) + 1
    for state, tree in enumerate(plan.trees):
        assert len(tree) + sum(tree.values()) <= rows
        assert all(1 <= count <= len(table) for count in tree.values())
        assert all(len(path) <= state and (not path or path[:-1] in tree) for path in tree)
    assert plan.value >= sparse_plan(table, max(rows - 3, 1 + len(table))).value - 1e-9


@pytest.mark.parametrize("rows", [8, 14])
def test_ascent_comes_close_to_the_grid(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for table in TABLES[:2]:
        best = sparse_plan(table, rows).value
        monkeypatch.setattr(sparse_trees, "_GRID", 0)
        assert 0.97 * best <= sparse_plan(table, rows).value <= best + 1e-9
        monkeypatch.undo()


def test_prompts_leave_where_least_is_lost() -> None:
    # T_2 = root, (0), (0, 0), last accepted with .4, .3, .3; f = (1, 1.6, 1.9); two of nine rows have to go: those
    # behind the nodes. State 1 lacks none and always leads to 2; 2 leads to itself with .4: pi = (.375, .625)
    plan = sparse_plan(np.array([[0.6], [0.5]]), 7)
    assert dict(plan.trees[1]) == {(): 2, (0,): 2}
    assert dict(plan.trees[2]) == {(): 2, (0,): 1, (0, 0): 1}
    assert plan.value == pytest.approx(0.375 * 1.6 + 0.625 * 1.9)
    assert dict(sparse_plan(np.array([[0.6], [0.0]]), 5).trees[2]) == {(): 2, (0,): 1}  # nothing to lose: the last


def test_the_tree_has_the_depth_that_is_known() -> None:
    plan = sparse_plan(TABLES[1], 20)
    for state in range(4):

        def laws(tree: DraftTree, state: int = state) -> np.ndarray:
            out = np.full((len(tree) + 1, 7), -np.inf)
            for row, depth in enumerate([0, *tree.depths().tolist()]):
                if depth < state:
                    out[row] = np.log(np.random.default_rng(depth).dirichlet(np.ones(7)))
            return out

        tree = SparseTree(plan=plan).build(laws, 30, CounterRng(0))
        assert len(tree) == len(plan.trees[state]) - 1
        assert plan.counts(tree.parents)[0] == plan.trees[state][()]
        assert sum(plan.counts(tree.parents)) == sum(plan.trees[state].values())
        cut = tree.pruned(None, 2)
        assert len(plan.counts(cut.parents)) == len(cut) + 1
        assert min(plan.counts(cut.parents)) >= 1


def test_size_follows_the_cost(model: Any) -> None:
    table = TABLES[1]
    flat = best_sparse_plan(table, {4: 1.0, 8: 1.0, 24: 1.0})
    steep = best_sparse_plan(table, {4: 1.0, 8: 2.0, 24: 6.0})
    assert flat == sparse_plan(table, 24)
    assert steep == sparse_plan(table, 4)
    cost = measure_cost(model, (4, 8), context=20, repeats=2)
    assert list(cost) == [4, 8]
    assert min(cost.values()) > 0
    assert best_sparse_plan(table, cost).rows in (4, 8)


@pytest.mark.parametrize("bad", [[[0.6, 0.5]], [[-0.1]], [0.5], [[]], [[float("nan")]]])
def test_accuracies_are_checked(bad: Any) -> None:
    with pytest.raises(ValueError, match="accuracy must be"):
        sparse_plan(bad, 8)


def test_sizes_and_costs_are_checked() -> None:
    with pytest.raises(ValueError, match="rows must be in"):
        sparse_plan(TABLES[1], 3)
    for cost in ({}, {8: 0.0}, {8: -1.0}):
        with pytest.raises(ValueError, match="cost must hold times"):
            best_sparse_plan(TABLES[1], cost)
    with pytest.raises(ValueError, match="more than m = 3 rows"):
        best_sparse_plan(TABLES[1], {3: 1.0})
