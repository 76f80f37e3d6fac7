"""Exact output laws by enumerating every draft and every random decision, and a test of the sampled law."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from gramcore.spec import (
    BlockVerifier,
    CounterRng,
    DraftTree,
    GreedyTailVerifier,
    KSeqVerifier,
    RecursiveVerifier,
    SeededVerifier,
    TargetRows,
    TypicalVerifier,
    Verifier,
    optimal_acceptance,
)
from gramcore.spec.residual_verifiers import smallest_rho


class Enumerator:
    """Dice that take every way the decisions can fall, one run after the other, and weigh each run."""

    def __init__(self) -> None:
        self.script: list[tuple[int, list[float]]] = []

    def runs(self) -> Iterator[Enumerator]:
        pending: list[list[int]] = [[]]
        while pending:
            self.prefix = pending.pop()
            self.script, self.weight = [], 1.0
            yield self
            for i in range(len(self.prefix), len(self.script)):
                taken, weights = self.script[i]
                done = [choice for choice, _ in self.script[:i]]
                pending += [[*done, other] for other in range(len(weights)) if other != taken and weights[other] > 0]

    def at(self, offset: int) -> Enumerator:
        return self

    def _choose(self, weights: list[float]) -> int:
        i = len(self.script)
        choice = self.prefix[i] if i < len(self.prefix) else next(c for c, w in enumerate(weights) if w > 0)
        self.script.append((choice, weights))
        self.weight *= weights[choice]
        return choice

    def flip(self, probability: float) -> bool:
        p = min(1.0, max(0.0, probability))
        return self._choose([1 - p, p]) == 1

    def pick(self, weights: np.ndarray) -> int:
        return self._choose((np.asarray(weights) / np.sum(weights)).tolist())

    def pick_row(self, rows: TargetRows, row: int) -> int:
        return self.pick(rows.probs(row))


def emitted_law(verifier: Verifier, tree: DraftTree, rows: TargetRows) -> dict[tuple[int, ...], float]:
    """Probability of every emitted token sequence for one given tree."""
    law: dict[tuple[int, ...], float] = {}
    for dice in Enumerator().runs():
        path, token = verifier._walk(tree, rows, dice)  # type: ignore[arg-type]
        out = (*(int(t) for t in tree.tokens[path]), token)
        law[out] = law.get(out, 0.0) + dice.weight
    assert abs(sum(law.values()) - 1) < 1e-12
    return law


def laws(rng: np.random.Generator, vocab: int, sparse: bool) -> np.ndarray:
    law = rng.dirichlet(np.ones(vocab))
    if sparse:
        law[rng.integers(vocab)] = 0
    return law / law.sum()


def draws_iid(q: np.ndarray, k: int) -> Iterator[tuple[tuple[int, ...], float]]:
    for tokens in itertools.product(range(len(q)), repeat=k):
        weight = math.prod(q[t] for t in tokens)
        if weight > 0:
            yield tokens, weight


def draws_without(q: np.ndarray, k: int) -> Iterator[tuple[tuple[int, ...], float]]:
    for tokens in itertools.permutations(range(len(q)), min(k, int((q > 0).sum()))):
        weight, left = 1.0, 1.0
        for t in tokens:
            weight *= q[t] / left if left > 1e-300 else 0.0
            left -= q[t]
        if weight > 0:
            yield tokens, weight


def draws_tail(q: np.ndarray, k: int) -> Iterator[tuple[tuple[int, ...], float]]:
    fixed = np.argsort(-q, kind="stable")[: k - 1].tolist()
    rest = q.copy()
    rest[fixed] = 0
    if rest.sum() == 0:
        yield tuple(fixed), 1.0
    for t in np.flatnonzero(rest):
        yield (*fixed, int(t)), float(rest[t] / rest.sum())


RULES: list[tuple[str, Callable[[], Verifier], str, Any]] = [
    ("recursive iid", RecursiveVerifier, "iid", draws_iid),
    ("recursive without replacement", RecursiveVerifier, "without_replacement", draws_without),
    ("k-SEQ", KSeqVerifier, "iid", draws_iid),
    ("greedy draft sampling", GreedyTailVerifier, "greedy_tail", draws_tail),
]


@pytest.mark.parametrize(("name", "make", "scheme", "draws"), RULES, ids=lambda v: v if isinstance(v, str) else None)
@pytest.mark.parametrize("vocab", [2, 3, 5])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_one_node_is_exact_and_below_the_optimum(
    name: str, make: Callable[[], Verifier], scheme: str, draws: Any, vocab: int, k: int
) -> None:
    rng = np.random.default_rng(100 * vocab + k)
    for trial in range(4):
        p, q = laws(rng, vocab, trial == 2), laws(rng, vocab, trial >= 2)
        if trial == 1:
            q = p.copy()
        got, accepted = np.zeros(vocab), 0.0
        for tokens, weight in draws(q, k):
            n = len(tokens)
            with np.errstate(divide="ignore"):
                logq = np.log(np.tile(q, (n + 1, 1)))
            tree = DraftTree(np.int32(tokens), np.full(n, -1, np.int32), logq, scheme)
            probs = np.tile(np.full(vocab, 1 / vocab), (n + 1, 1))
            probs[0] = p
            for out, mass in emitted_law(make(), tree, TargetRows.from_probs(probs)).items():
                got[out[0]] += weight * mass
                accepted += weight * mass * (len(out) > 1)
        np.testing.assert_allclose(got, p, atol=1e-12, rtol=0)
        best = optimal_acceptance(p, q, k, scheme)
        assert accepted <= best + 1e-8
        if scheme == "greedy_tail" and (q > 0).sum() >= k:
            assert abs(accepted - best) < 1e-12  # this rule reaches it
        if k == 1:
            assert abs(accepted - np.minimum(p, q).sum()) < 1e-12


def two_level_tree(rng: np.random.Generator, scheme: str, vocab: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """Laws for every prefix of up to two tokens: target and draft."""
    target = {prefix: laws(rng, vocab, False) for n in range(3) for prefix in itertools.product(range(vocab), repeat=n)}
    draft = {prefix: laws(rng, vocab, False) for prefix in target}
    return scheme, target, draft


@pytest.mark.parametrize(("name", "make", "scheme", "draws"), RULES, ids=lambda v: v if isinstance(v, str) else None)
def test_two_levels_are_jointly_exact(name: str, make: Callable[[], Verifier], scheme: str, draws: Any) -> None:
    vocab, k = 3, 2
    _, target, draft = two_level_tree(np.random.default_rng(5), scheme, vocab)
    joint: dict[tuple[int, int], float] = {}
    for first, w1 in draws(draft[()], k):
        below = [list(draws(draft[(t,)], k)) for t in first]
        for combination in itertools.product(*below):
            weight = w1 * math.prod(w for _, w in combination)
            tokens, parents = list(first), [-1] * k
            for i, (second, _) in enumerate(combination):
                tokens += second
                parents += [i] * k
            prefixes = [(), *[(t,) for t in first], *[(first[i], t) for i, (s, _) in enumerate(combination) for t in s]]
            tree = DraftTree(
                np.int32(tokens), np.int32(parents), np.log(np.array([draft[x] for x in prefixes])), scheme
            )
            rows = TargetRows.from_probs(np.array([target[x] for x in prefixes]))
            for out, mass in emitted_law(make(), tree, rows).items():
                tails = [()] if len(out) >= 2 else [(t,) for t in range(vocab)]
                for tail in tails:
                    pair = (*out, *tail)[:2]
                    factor = target[out][tail[0]] if tail else 1.0
                    joint[pair] = joint.get(pair, 0.0) + weight * mass * factor
    for a, b in itertools.product(range(vocab), repeat=2):
        assert abs(joint[(a, b)] - target[()][a] * target[(a,)][b]) < 1e-12


@pytest.mark.parametrize(("make", "length"), [(BlockVerifier, 2), (BlockVerifier, 3), (RecursiveVerifier, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_chains_are_jointly_exact(make: Callable[[], Verifier], length: int, seed: int) -> None:
    vocab = 2
    rng = np.random.default_rng(seed)
    prefixes = [p for n in range(length + 1) for p in itertools.product(range(vocab), repeat=n)]
    target = {p: laws(rng, vocab, False) for p in prefixes}
    draft = {p: laws(rng, vocab, False) for p in prefixes}
    joint: dict[tuple[int, ...], float] = {}
    expected_length = 0.0
    for chain in itertools.product(range(vocab), repeat=length):
        weight = math.prod(draft[chain[:i]][chain[i]] for i in range(length))
        logq = np.log(np.array([draft[chain[:i]] for i in range(length + 1)]))
        tree = DraftTree(np.int32(chain), np.arange(-1, length - 1, dtype=np.int32), logq, "iid")
        rows = TargetRows.from_probs(np.array([target[chain[:i]] for i in range(length + 1)]))
        for out, mass in emitted_law(make(), tree, rows).items():
            expected_length += weight * mass * (len(out) - 1)
            for tail in itertools.product(range(vocab), repeat=length + 1 - len(out)):
                whole, factor = out, 1.0
                for t in tail:
                    factor *= target[whole][t]
                    whole = (*whole, t)
                joint[whole] = joint.get(whole, 0.0) + weight * mass * factor
    for whole, mass in joint.items():
        assert abs(mass - math.prod(target[whole[:i]][whole[i]] for i in range(length + 1))) < 1e-12
    if make is BlockVerifier:
        assert expected_length >= chain_length(target, draft, length, vocab) - 1e-12


def chain_length(target: Any, draft: Any, length: int, vocab: int) -> float:
    """Expected accepted tokens of token-wise rejection: sum over depths of the mass that survives."""
    total, alive = 0.0, {(): 1.0}
    for _ in range(length):
        after = {}
        for prefix, mass in alive.items():
            for t in range(vocab):
                after[(*prefix, t)] = mass * min(target[prefix][t], draft[prefix][t])
        alive = after
        total += sum(alive.values())
    return total


@pytest.mark.parametrize("k", [2, 3, 7])
def test_rho_is_valid_and_smallest(k: int) -> None:
    rng = np.random.default_rng(k)
    for _ in range(50):
        p, q = laws(rng, 9, rng.random() < 0.3), laws(rng, 9, rng.random() < 0.3)

        def slack(rho: float, p: np.ndarray = p, q: np.ndarray = q) -> float:
            beta = np.minimum(q, p / rho).sum()
            return float(rho * beta - (1 - (1 - beta) ** k))

        rho = smallest_rho(p, q, k)
        assert 1 <= rho <= k
        assert slack(rho) >= -1e-15
        assert rho == 1 or slack(rho - 1e-9) <= 1e-15


def test_optimum_without_replacement_by_all_subsets() -> None:
    rng = np.random.default_rng(0)
    for vocab in (3, 4, 5):
        for k in (1, 2, 3):
            p, q = laws(rng, vocab, False), laws(rng, vocab, False)
            best = 1.0
            for size in range(1, vocab + 1):
                for subset in itertools.combinations(range(vocab), size):
                    inside = sum(w for tokens, w in draws_without(q, k) if set(tokens) <= set(subset))
                    best = min(best, 1 + p[list(subset)].sum() - inside)
            assert abs(optimal_acceptance(p, q, k, "without_replacement") - best) < 1e-9
            everything = 1.0
            for size in range(1, vocab + 1):
                for subset in itertools.combinations(range(vocab), size):
                    everything = min(everything, 1 + p[list(subset)].sum() - q[list(subset)].sum() ** k)
            assert abs(optimal_acceptance(p, q, k, "iid") - everything) < 1e-12


def test_optimum_checks_its_arguments() -> None:
    assert optimal_acceptance([0.5, 0.5], [0.9, 0.1], 1, "fixed") == 0.5
    with pytest.raises(ValueError, match="p must be a law"):
        optimal_acceptance([0.5, 0.6], [0.5, 0.5], 1)
    with pytest.raises(ValueError, match="one length"):
        optimal_acceptance([1.0], [0.5, 0.5], 1)
    with pytest.raises(ValueError, match="scheme"):
        optimal_acceptance([1.0], [1.0], 1, "other")
    assert optimal_acceptance([0.2, 0.8], [0.8, 0.2], 5, "without_replacement") == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "make", "scheme", "draws"), RULES, ids=lambda v: v if isinstance(v, str) else None)
def test_sampled_law_by_chi_square(name: str, make: Callable[[], Verifier], scheme: str, draws: Any) -> None:
    # 2e5 draws of the whole pipeline with counter-based numbers; threshold at 1e-5: false alarm below 4e-5 in all
    vocab, k, runs = 6, 2, 200_000
    rng = np.random.default_rng(9)
    p, q = laws(rng, vocab, False), laws(rng, vocab, False)
    options = list(draws(q, k))
    chosen = rng.choice(len(options), size=runs, p=np.array([w for _, w in options]))
    logq = np.log(np.tile(q, (k + 1, 1)))
    rows = TargetRows.from_probs(np.vstack([p, np.full((k, vocab), 1 / vocab)]))
    counts = np.zeros(vocab)
    verifier = make()
    dice = CounterRng(3)
    trees = [DraftTree(np.int32(t), np.full(k, -1, np.int32), logq, scheme) for t, _ in options]
    for i in range(runs):
        dice.position = i * 4
        verdict = verifier.verify(trees[chosen[i]], rows, dice)
        tree = trees[chosen[i]]
        counts[tree.tokens[verdict.path[0]] if len(verdict.path) else verdict.next_token] += 1
    assert float(((counts - runs * p) ** 2 / (runs * p)).sum()) < 30.9  # 1 - 1e-5 quantile, 5 degrees of freedom


def test_deterministic_drafts_accept_their_mass() -> None:
    p = np.array([0.1, 0.2, 0.3, 0.4])
    tree = DraftTree(np.int32([3, 1]), np.int32([-1, -1]))
    law = emitted_law(SeededVerifier(), tree, TargetRows.from_probs(np.vstack([p, p, p])))
    assert sum(m for out, m in law.items() if len(out) > 1) == pytest.approx(0.6)
    for token in range(4):
        assert sum(m for out, m in law.items() if out[0] == token) == pytest.approx(p[token])


def test_a_token_of_probability_zero_is_never_accepted() -> None:
    p, q = np.array([0.0, 1.0]), np.array([1.0, 0.0])
    with np.errstate(divide="ignore"):
        tree = DraftTree(np.int32([0]), np.int32([-1]), np.log(np.vstack([q, q])), "iid")

    class Zero(CounterRng):
        def uniform(self, offset: int = 0, draw: int = 0) -> float:
            return 0.0

    for make in (RecursiveVerifier, KSeqVerifier, BlockVerifier):
        verdict = make().verify(tree, TargetRows.from_probs(np.vstack([p, p])), Zero(0))
        assert (verdict.path.tolist(), verdict.next_token) == ([], 1)


def test_typical_acceptance_follows_its_threshold() -> None:
    sharp, flat = np.array([0.97, 0.01, 0.02]), np.array([0.4, 0.3, 0.3])
    tree = DraftTree(np.int32([0, 1, 0, 2]), np.int32([-1, 0, 0, 2]))
    rows = TargetRows.from_probs(np.vstack([sharp, sharp, flat, flat, sharp]))
    # row 1 (after node 0) is sharp: token 1 with p = 0.01 < 0.09 falls, token 0 stands; row 3 is flat: token 2 stands
    verdict = TypicalVerifier().verify(tree, rows, CounterRng(0))
    assert (verdict.path.tolist(), verdict.next_token) == ([0, 2, 3], 0)
    strict = TypicalVerifier(epsilon=1.0, delta=1.0).verify(tree, rows, CounterRng(0))
    assert strict.path.tolist() == [0, 2]  # exp(-H) = 0.34 > 0.3 at the flat row
    halved = TypicalVerifier(epsilon=1.0, delta=0.5).verify(tree, rows, CounterRng(0))
    assert halved.path.tolist() == [0, 2, 3]  # 0.17 < 0.3
    # of two paths of one length the more probable one, though it is drafted behind the other
    fork = DraftTree(np.int32([0, 1, 2]), np.int32([-1, 0, 0]))
    likelier = TargetRows.from_probs(np.array([sharp, [0.3, 0.3, 0.4], sharp, flat]))
    assert TypicalVerifier().verify(fork, likelier, CounterRng(0)).path.tolist() == [0, 2]
    with pytest.raises(ValueError, match="epsilon"):
        TypicalVerifier(epsilon=0)


def test_block_verification_refuses_branches() -> None:
    tree = DraftTree(np.int32([0, 1]), np.int32([-1, -1]), np.log(np.full((3, 2), 0.5)), "iid")
    with pytest.raises(ValueError, match="chain"):
        BlockVerifier().verify(tree, TargetRows.from_probs(np.full((3, 2), 0.5)), CounterRng(0))
