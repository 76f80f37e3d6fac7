"""The examples in the documentation of every optimizer module."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import gramcore.optim
import pytest

MODULES = [m.name for m in pkgutil.iter_modules(gramcore.optim.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"gramcore.optim.{name}"))
    assert result.failed == 0
