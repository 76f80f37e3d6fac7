"""Tree builders against brute force, and random builders against their law."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from gramcore.spec import (
    ChainTree,
    CounterRng,
    DraftTree,
    Eagle2Tree,
    GreedyTailTree,
    IidTree,
    OptTree,
    RsdConstantTree,
    RsdStochasticTree,
    StaticTree,
    TargetRows,
    best_choices,
)
from gramcore.spec.default_verifier import DefaultVerifier

VOCAB = 4


def laws_from(seed: int) -> Any:
    def laws(tree: DraftTree) -> np.ndarray:
        out = []
        for node in range(-1, len(tree)):
            prefix = [int(tree.tokens[i]) for i in tree.path_to(node)]
            out.append(np.log(np.random.default_rng([seed, *prefix]).dirichlet(np.ones(VOCAB))))
        return np.array(out)

    return laws


def expected_length(tree: DraftTree, laws: Any) -> float:
    rows = laws(tree)
    return sum(
        float(np.exp(sum(rows[tree.parents[i] + 1, tree.tokens[i]] for i in tree.path_to(node))))
        for node in range(len(tree))
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", [1, 3, 6])
def test_opt_tree_has_the_largest_expected_length(seed: int, budget: int) -> None:
    laws = laws_from(seed)
    paths = [p for n in (1, 2, 3) for p in itertools.product(range(VOCAB), repeat=n)]
    rows = {p: laws(DraftTree.chain(p))[-1] for p in [(), *paths]}
    mass = sorted((float(np.exp(sum(rows[p[:i]][p[i]] for i in range(len(p))))) for p in paths), reverse=True)
    best = sum(mass[:budget])
    assert expected_length(OptTree(depth=3, threshold=0.0).build(laws, budget, CounterRng(0)), laws) == pytest.approx(
        best
    )
    wide = Eagle2Tree(depth=3, top_k=VOCAB**2).build(laws, budget, CounterRng(0))
    assert expected_length(wide, laws) == pytest.approx(best)


def test_opt_tree_stops_when_a_layer_adds_little() -> None:
    calls = []

    def flat(tree: DraftTree) -> np.ndarray:
        calls.append(len(tree))
        return np.log(np.full((len(tree) + 1, 50), 1 / 50))

    OptTree(depth=8, threshold=0.5).build(flat, 10, CounterRng(0))
    assert len(calls) == 1


@pytest.mark.parametrize(
    "accuracy",
    [
        np.array([[0.6, 0.2, 0.1], [0.5, 0.2, 0.05]]),
        np.array([[0.1, 0.3, 0.1], [0.0, 0.2, 0.5]]),  # measured ranks need not fall, and some are never right
        np.array([[0.0, 0.4, 0.0], [0.0, 0.0, 0.0]]),
    ],
)
def test_best_choices_are_the_most_valuable_paths(accuracy: np.ndarray) -> None:
    every = [(a,) for a in range(3)] + [(a, b) for a in range(3) for b in range(3)]
    value = {p: float(np.prod([accuracy[d, r] for d, r in enumerate(p)])) for p in every}
    for n in range(13):
        chosen = best_choices(accuracy, n)
        assert sum(value[p] for p in chosen) == pytest.approx(sum(sorted(value.values(), reverse=True)[:n]))
        assert all(p[:-1] in [(), *chosen] for p in chosen)
        assert all(value[p] > 0 for p in chosen)
        assert len(set(chosen)) == len(chosen)


def test_static_tree_follows_ranks() -> None:
    laws = laws_from(3)
    tree = StaticTree(choices=[(0,), (1,), (0, 0), (1, 1)]).build(laws, 10, CounterRng(0))
    rows = laws(tree)
    order = np.argsort(-rows, axis=1, kind="stable")
    assert tree.tokens.tolist() == [order[0, 0], order[0, 1], order[1, 0], order[2, 1]]
    with pytest.raises(ValueError, match="parent of every path"):
        StaticTree(choices=[(0, 0)])


BUILDERS = [
    RsdConstantTree(branching=(2, 2)),
    RsdStochasticTree(width=3, depth=2),
    IidTree(branching=(2, 2)),
    GreedyTailTree(branching=(2, 2)),
    ChainTree(depth=2, sample=True),
]


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda b: type(b).__name__)
def test_drafting_and_verifying_gives_the_target_law(builder: Any) -> None:
    # joint law of two tokens, 16 cells, 2000 draws, threshold at 1e-5 per builder: false alarm below 5e-5 in all
    draft, target = laws_from(1), laws_from(2)
    verifier, rng = DefaultVerifier(), CounterRng(21)
    numbers = np.random.default_rng(0)
    counts = np.zeros((VOCAB, VOCAB))
    runs, accepted = 2_000, 0
    from gramcore.spec import Sampling

    for i in range(runs):
        rng.position = 4 * i
        drafting = CounterRng(5, 7)
        drafting.position = i
        tree = builder.build(draft, 12, drafting)
        rows = TargetRows.from_probs(np.exp(target(tree)))
        rows.sampling = Sampling(1.0)
        verdict = verifier.verify(tree, rows, rng)
        out = [*(int(t) for t in tree.tokens[verdict.path]), verdict.next_token]
        accepted += len(verdict.path)
        if len(out) == 1:
            out.append(int(numbers.choice(VOCAB, p=np.exp(target(DraftTree.chain(out))[-1]))))
        counts[out[0], out[1]] += 1
    first = np.exp(target(DraftTree.empty())[0])
    expected = np.array([first[a] * np.exp(target(DraftTree.chain([a]))[-1]) for a in range(VOCAB)])
    assert float(((counts - runs * expected) ** 2 / (runs * expected)).sum()) < 50.5  # 15 degrees of freedom, 1 - 1e-5
    assert accepted > 0.3 * runs


def test_gumbel_siblings_are_drawn_without_replacement() -> None:
    # first sibling ~ q, second given first ~ q without it; 12 ordered pairs, 4000 draws, threshold at 1e-5
    q = np.array([0.5, 0.25, 0.15, 0.1])

    def laws(tree: DraftTree) -> np.ndarray:
        return np.log(np.tile(q, (len(tree) + 1, 1)))

    for builder in (RsdConstantTree(branching=(2,)), RsdStochasticTree(width=2, depth=1)):
        counts = np.zeros((4, 4))
        rng = CounterRng(17)
        for i in range(4_000):
            rng.position = i
            a, b = builder.build(laws, 9, rng).tokens
            counts[a, b] += 1
        chi2 = 0.0
        for a, b in itertools.permutations(range(4), 2):
            expected = 4_000 * q[a] * q[b] / (1 - q[a])
            chi2 += (counts[a, b] - expected) ** 2 / expected
        assert chi2 < 42.6  # 11 degrees of freedom, 1 - 1e-5
