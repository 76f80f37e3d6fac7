"""Registry rows load and are unique; checks produce the promised sentences."""

from __future__ import annotations

import pytest
from gramcore import _registry
from gramcore._checks import check_choice, check_int, check_real, require
from gramcore._registry import Row
from gramcore.errors import MissingExtraError


def test_every_row_loads_and_is_complete() -> None:
    for row in _registry.rows():
        assert callable(row.load()), row.name
        assert 1 <= len(row.summary.split()) <= 12, row.name
        assert row.family in _registry.FAMILIES, row.name
        assert row.load().__doc__, row.name


def test_a_second_row_of_the_same_name_is_refused() -> None:
    row = Row("x", "ngram", "test", "gramcore.ngram:missing", "one")
    _registry.register(row)
    try:
        with pytest.raises(ValueError, match="must be unique"):
            _registry.register(Row("x", "ngram", "test", "gramcore.ngram:missing", "two"))
    finally:
        del _registry._rows[("ngram", "x")]


def test_integer_check() -> None:
    assert check_int("rank", 3, low=1) == 3
    with pytest.raises(ValueError, match=r"rank must be in \[1, inf\), got 0"):
        check_int("rank", 0, low=1)
    for bad in (True, 1.0, "1"):
        with pytest.raises(TypeError, match="rank must be an int"):
            check_int("rank", bad)


def test_real_check() -> None:
    assert check_real("lr", 1, low=0) == 1.0
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="lr must be in"):
            check_real("lr", bad, low=0)
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\), got 1.0"):
        check_real("beta", 1.0, low=0, high=1, high_open=True)
    with pytest.raises(TypeError):
        check_real("lr", "0.1")


def test_choice_check() -> None:
    assert check_choice("state", "fp32", ("fp32", "bf16")) == "fp32"
    with pytest.raises(ValueError, match="state must be one of fp32, bf16"):
        check_choice("state", "int4", ("fp32", "bf16"))


def test_missing_extra_names_the_remedy() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'gramcore\[ray\]'"):
        require("surely_not_installed", "ray")
