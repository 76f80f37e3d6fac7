"""Length policies against simulated machines and drafters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gramcore.spec import BassLength, Context, CostModelLength, CounterRng, FixedLength, Sampling, StepRecord

CONTEXT = Context(np.int32([1]), 1, Sampling(), CounterRng(0))


def simulate(
    policy: CostModelLength, acceptance: float, cost_per_node: float, steps: int = 400
) -> tuple[float, list[int]]:
    """Tokens per unit of time on a machine with T(n) = 1 + cost_per_node n (1 % noise), and the budgets."""
    rng = np.random.default_rng(1)
    tokens, seconds, budgets = 0, 0.0, []
    for _ in range(steps):
        n = policy.budget(CONTEXT)
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
