"""What every registered tree builder keeps."""

from __future__ import annotations

import numpy as np
import pytest
from gramcore._registry import Row, rows
from gramcore.spec import CounterRng, DraftTree, TreeBuilder

VOCAB = 11


@pytest.fixture(params=rows(protocol="tree"), ids=lambda r: r.name)
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


def make(row: Row) -> TreeBuilder:
    made = row.load()(**row.test_kwargs)
    assert isinstance(made, TreeBuilder)
    return made


def prefix_laws(tree: DraftTree) -> np.ndarray:
    """A law per prefix, the same whenever it is asked for."""
    out = []
    for node in range(-1, len(tree)):
        prefix = [int(tree.tokens[i]) for i in tree.path_to(node)]
        out.append(np.log(np.random.default_rng([1, *prefix]).dirichlet(np.ones(VOCAB))))
    return np.array(out)


@pytest.mark.parametrize("budget", [0, 1, 2, 7, 30, 64])
def test_trees_are_well_formed_and_within_budget(row: Row, budget: int) -> None:
    builder = make(row)
    tree = builder.build(prefix_laws, budget, CounterRng(3))
    assert len(tree) <= budget
    tree.check(VOCAB)
    assert tree.logq is None or builder.random
    assert len(tree) > 0 or budget < 4


def test_laws_in_the_tree_are_those_asked_for(row: Row) -> None:
    tree = make(row).build(prefix_laws, 30, CounterRng(3))
    if tree.logq is None:
        return
    expected = prefix_laws(tree)
    for parent in np.unique(tree.parents) + 1:
        np.testing.assert_array_equal(tree.logq[parent], expected[parent])


def test_the_same_numbers_give_the_same_tree(row: Row) -> None:
    one, two = (make(row).build(prefix_laws, 20, CounterRng(5)) for _ in range(2))
    assert one.tokens.tolist() == two.tokens.tolist()
    assert one.parents.tolist() == two.parents.tolist()


def test_siblings_differ_unless_independent(row: Row) -> None:
    tree = make(row).build(prefix_laws, 40, CounterRng(9))
    if tree.scheme != "iid":
        pairs = list(zip(tree.parents.tolist(), tree.tokens.tolist(), strict=True))
        assert len(set(pairs)) == len(pairs)


def test_tokens_of_probability_zero_are_never_drafted(row: Row) -> None:
    def sparse(tree: DraftTree) -> np.ndarray:
        laws = np.full((len(tree) + 1, VOCAB), -np.inf)
        laws[:, [2, 5]] = np.log(0.5)
        return laws

    tree = make(row).build(sparse, 30, CounterRng(1))
    assert set(tree.tokens.tolist()) <= {2, 5}


def test_documentation_sections(row: Row) -> None:
    text = row.load().__doc__ or ""
    assert "Differs from paper:" in text
    assert "Reference:" in text
