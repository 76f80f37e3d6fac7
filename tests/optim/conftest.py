"""Levels at which the optimizer kernels differ."""

from __future__ import annotations

from collections.abc import Iterator

import gramcore
import pytest

LEVELS = [level for level in gramcore.cpu_info()[1] if level in ("base", "avx2", "avx512")]


@pytest.fixture(params=LEVELS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once per level for which the kernels are compiled."""
    before = gramcore.cpu_level()
    gramcore.set_cpu_level(request.param)
    yield request.param
    gramcore.set_cpu_level(before)
