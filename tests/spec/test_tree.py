"""Draft trees: validation, masks, pruning, compaction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gramcore._core import spec as native
from gramcore.spec import DraftTree
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import spec as reference


@st.composite
def parent_lists(draw: st.DrawFn, most: int = 70) -> np.ndarray:
    n = draw(st.integers(0, most))
    return np.array([draw(st.integers(-1, i - 1)) for i in range(n)], np.int32)


@given(parent_lists())
def test_layout_matches_the_definition(parents: np.ndarray) -> None:
    depths = native.tree_depths(parents)
    bits = native.tree_ancestors(parents)
    rows = len(parents) + 1
    assert bits.shape == (rows, (rows + 63) // 64)
    for r in range(rows):
        assert depths[r] == reference.depth(parents, r)
        for c in range(rows):
            assert bool(int(bits[r, c // 64]) >> (c % 64) & 1) == reference.sees(parents, r, c)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.bfloat16, torch.float16])
@given(parents=parent_lists(9), first=st.integers(0, 2), context=st.integers(0, 5), pad=st.integers(0, 3))
def test_mask_matches_the_definition(
    dtype: torch.dtype, parents: np.ndarray, first: int, context: int, pad: int
) -> None:
    base, rows = first + context, len(parents) + 1
    big = torch.ones(rows + pad, base + rows + pad + 4).to(dtype)
    mask = big[:, : base + rows + pad]  # rows with a stride of their own
    native.fill_tree_mask(parents, first, base, mask)
    opened = mask if dtype == torch.bool else mask == 0
    if dtype != torch.bool:
        assert torch.all((mask == 0) | (mask == torch.finfo(dtype).min))
    for r in range(rows + pad):
        for c in range(mask.shape[1]):
            if r >= rows:
                expected = c == first
            else:
                expected = first <= c < base or (base <= c < base + rows and reference.sees(parents, r, c - base))
            assert bool(opened[r, c]) == expected


@pytest.mark.parametrize(
    ("tokens", "parents", "message"),
    [
        ([1, 2], [-1, 1], "before their children"),
        ([1, 2], [1, -1], "before their children"),
        ([1], [-2], "before their children"),
        ([9], [-1], r"tokens must be in \[0, 9\)"),
        ([-1], [-1], r"tokens must be in \[0, 9\)"),
        ([1, 2], [-1], "one entry per token"),
    ],
)
def test_malformed_trees_are_named(tokens: list[int], parents: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DraftTree(np.int32(tokens), np.int32(parents)).check(9)


def test_law_must_sum_to_one() -> None:
    logq = np.log(np.full((2, 4), 0.3))
    with pytest.raises(ValueError, match="sum to 1"):
        DraftTree(np.int32([1]), np.int32([-1]), logq, "iid").check(4)
    with pytest.raises(ValueError, match="shape"):
        DraftTree(np.int32([1]), np.int32([-1]), logq[:1], "iid").check(4)
    with pytest.raises(ValueError, match="exactly when drafts are random"):
        DraftTree(np.int32([1]), np.int32([-1]), logq)


def paths(tokens: np.ndarray, parents: np.ndarray) -> set[tuple[int, ...]]:
    tree = DraftTree(tokens, parents)
    return {tuple(int(tokens[j]) for j in tree.path_to(i)) for i in range(len(tree))}


@given(parent_lists(30), st.data())
def test_merging_siblings_keeps_the_set_of_paths(parents: np.ndarray, data: st.DataObject) -> None:
    n = len(parents)
    tokens = np.array([data.draw(st.integers(0, 2)) for _ in range(n)], np.int32)
    merged = DraftTree(tokens, parents).pruned(None, 1000)
    merged.check(3)
    assert paths(merged.tokens, merged.parents) == paths(tokens, parents)
    assert len(merged) == len(paths(tokens, parents))
    keep = np.array([data.draw(st.booleans()) for _ in range(n)], bool)
    budget = data.draw(st.integers(0, 8))
    cut = DraftTree(tokens, parents).pruned(keep, budget)
    cut.check(3)
    assert len(cut) <= budget
    alive = {
        tuple(int(tokens[j]) for j in DraftTree(tokens, parents).path_to(i))
        for i in range(n)
        if all(keep[j] for j in DraftTree(tokens, parents).path_to(i))
    }
    assert paths(cut.tokens, cut.parents) <= alive


def test_paths_are_checked() -> None:
    parents = np.int32([-1, 0, -1, 2])
    native.check_path(parents, np.int32([2, 3]))
    native.check_path(parents, np.int32([]))
    for bad in ([1], [0, 3], [0, 0], [4]):
        with pytest.raises(ValueError, match="path must lead"):
            native.check_path(parents, np.int32(bad))


def test_children_and_lookup() -> None:
    tree = DraftTree(np.int32([4, 5, 4, 6]), np.int32([-1, -1, 1, -1]))
    assert tree.child(0, 5) == 1
    assert tree.child(2, 4) == 2
    assert tree.child(1, 4) == -1
    assert tree.children(0).tolist() == [0, 1, 3]
    with pytest.raises(IndexError):
        tree.child(9, 0)
