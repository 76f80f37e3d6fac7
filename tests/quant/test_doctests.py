"""The examples in the docstrings of the quantisation and model packages run and print what they claim."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import gramcore.quant
import pytest

MODULES = [f"gramcore.quant.{m.name}" for m in pkgutil.iter_modules(gramcore.quant.__path__)] + ["gramcore.model.hf"]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), verbose=False)
    assert result.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    examples = sum(len(t.examples) for n in MODULES for t in finder.find(importlib.import_module(n)))
    assert examples > 20
