"""Length policies against simulated machines and drafters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gramcore.spec import BassLength, Context, CostModelLength, CounterRng, DraftTree, FixedLength, Sampling, StepRecord

CONTEXT = Context(np.int32([1]), 1, Sampling(), CounterRng(0))


def simulate(
    policy: CostModelLength, acceptance: float, cost_per_node: float, steps: int = 400
) -> tuple[float, list[int]]:
    """Tokens per unit of time on a machine with T(n) = 1 + cost_per_node n (1 % noise), and the budgets."""
    rng = np.random.default_rng(1)
    tokens, seconds, budgets = 0, 0.0, []
    for _ in range(steps):
        n = policy.budget(CONTEXT)
        n = min(n, policy.cut(DraftTree.chain(np.zeros(n, np.int32))))
        accepted = 0
        while accepted < n and rng.random() < acceptance:
            accepted += 1
        cost = (1 + cost_per_node * n) * float(rng.normal(1, 0.01))
        policy.observe(StepRecord(n, n, accepted, 0.0, cost, 0.0))
        tokens += accepted + 1
        seconds += cost
        budgets.append(n)
    return tokens / seconds, budgets


@pytest.mark.parametrize("acceptance", [0.0, 0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("cost", [0.02, 0.1, 0.4, 0.9])
def test_cost_model_is_near_the_best_fixed_length(acceptance: float, cost: float) -> None:
    rate, _ = simulate(CostModelLength(), acceptance, cost)
    best = max(sum(acceptance**i for i in range(n + 1)) / (1 + cost * n) for n in range(33))
    assert rate >= 0.85 * best


def test_cost_model_switches_off_when_nothing_is_accepted() -> None:
    rate, budgets = simulate(CostModelLength(), 0.0, 0.5)
    assert rate > 0.93
    assert sum(b > 0 for b in budgets[50:]) <= 8
    assert np.mean(simulate(CostModelLength(), 1.0, 0.01)[1][50:]) > 25


def test_cost_model_learns_what_strengths_are_worth() -> None:
    # short matches are never accepted, long ones always; the machine takes 0.1 more per node
    policy = CostModelLength()
    used: dict[int, list[int]] = {2: [], 20: []}
    for step in range(300):
        strength = 20 if step % 2 else 2
        tree = DraftTree.chain(np.zeros(min(policy.budget(CONTEXT), 16), np.int32), strength)
        n = policy.cut(tree)
        used[strength].append(n)
        policy.observe(StepRecord(n, n, n if strength == 20 else 0, 0.0, 1 + 0.1 * n, 0.0, None, strength))
    assert np.mean(used[20][20:]) > 15
    assert sum(n > 0 for n in used[2][20:]) <= 8


def test_cost_model_counts_the_accepted_nodes_of_trees() -> None:
    # of four siblings the third one always stands: two nodes are useless, three are worth a token
    policy = CostModelLength()
    tree = DraftTree(np.int32([1, 2, 3, 4]), np.int32([-1] * 4), strength=3)
    lengths = []
    for _ in range(120):
        n = policy.cut(tree) if policy.budget(CONTEXT) else 0
        lengths.append(n)
        stood = (2,) if n >= 3 else ()
        policy.observe(StepRecord(n, min(n, 1), len(stood), 0.0, 1 + 0.05 * n, 0.0, stood, 3))
    assert set(lengths[40:]) <= {3, 4}  # a fourth costs about what the doubt about it is worth


def test_an_expensive_drafter_is_not_asked() -> None:
    policy = CostModelLength()
    asked = 0
    for _ in range(200):
        n = policy.budget(CONTEXT)
        asked += n > 0
        policy.observe(StepRecord(n, n, 0, 0.5 if n else 0.0, 1 + 0.02 * n, 0.0))
    assert asked <= 16


def test_bass_follows_its_rule() -> None:
    policy = BassLength()
    length, shrinking = 7, 0
    rng = np.random.default_rng(0)
    for _ in range(200):
        assert policy.budget(CONTEXT) == length
        accepted = int(rng.integers(0, length + 1))
        policy.observe(StepRecord(length, length, accepted, 0, 1, 0))
        if accepted == length:
            length, shrinking = min(length + 2, 32), 0
        else:
            length, shrinking = max(1, accepted, length - math.ceil(length / 10) - shrinking), 1


def test_arguments_are_checked() -> None:
    for make, bad in [
        (FixedLength, {"nodes": -1}),
        (BassLength, {"start": 0}),
        (BassLength, {"start": 9, "limit": 8}),
        (CostModelLength, {"max_nodes": 0}),
        (CostModelLength, {"first": 99}),
        (CostModelLength, {"memory_steps": 0}),
    ]:
        with pytest.raises(ValueError, match="must be in"):
            make(**bad)  # type: ignore[operator]


def test_one_draft_shows_what_rows_cost() -> None:
    def second_draft(cost: float) -> int:
        policy = CostModelLength()
        for n in (0, 8):
            policy.observe(StepRecord(n, n, 0, 0.0, 1 + cost * n, 0.0, None, 2))
        return policy.cut(DraftTree.chain(np.zeros(16, np.int32), strength=4))

    assert second_draft(0.01) == 16
    assert 0 < second_draft(0.2) <= 4
