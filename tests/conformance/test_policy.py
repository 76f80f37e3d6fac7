"""What every registered length policy keeps."""

from __future__ import annotations

import numpy as np
import pytest
from gramcore._registry import Row, rows
from gramcore.spec import Context, CounterRng, LengthPolicy, Sampling, StepRecord

CONTEXT = Context(np.int32([1, 2, 3]), 3, Sampling(), CounterRng(0))


@pytest.fixture(params=rows(protocol="policy"), ids=lambda r: r.name)
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


def make(row: Row) -> LengthPolicy:
    made = row.load()(**row.test_kwargs)
    assert isinstance(made, LengthPolicy)
    return made


def test_budgets_are_small_non_negative_integers_whatever_happens(row: Row) -> None:
    policy = make(row)
    rng = np.random.default_rng(0)
    for _ in range(300):
        budget = policy.budget(CONTEXT)
        assert isinstance(budget, int)
        assert 0 <= budget <= 256
        drafted = int(rng.integers(0, budget + 1))
        accepted = int(rng.integers(0, drafted + 1))
        policy.observe(StepRecord(drafted, drafted, accepted, 1e-5, float(rng.random()) * 0.01, 1e-5))


def test_forks_forget(row: Row) -> None:
    policy, fresh = make(row), make(row)
    for _ in range(20):
        policy.observe(StepRecord(8, 8, 0, 1e-5, 0.5, 1e-5))
    assert policy.fork().budget(CONTEXT) == fresh.budget(CONTEXT)


def test_documentation_sections(row: Row) -> None:
    text = row.load().__doc__ or ""
    assert "Differs from paper:" in text
    assert "Reference:" in text
