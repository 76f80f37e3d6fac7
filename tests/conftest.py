"""Shared fixtures: instruction-set levels, the hypothesis profile."""

from __future__ import annotations

from collections.abc import Iterator

import gramcore
import hypothesis
import pytest

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=60)
hypothesis.settings.load_profile("fixed")


@pytest.fixture(params=gramcore.cpu_info()[1])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once per instruction-set level this machine has."""
    before = gramcore.cpu_level()
    gramcore.set_cpu_level(request.param)
    yield request.param
    gramcore.set_cpu_level(before)


@pytest.fixture
def restore_threads() -> Iterator[None]:
    """Returns the thread count to its default after the test."""
    yield
    gramcore.set_num_threads(0)
