"""Length policies: their rules and their arguments; the cost model's decisions are in test_cost_model.py."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gramcore.spec import BassLength, Context, CostModelLength, CounterRng, FixedLength, Sampling, StepRecord

CONTEXT = Context(np.int32([1]), 1, Sampling(), CounterRng(0))


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
