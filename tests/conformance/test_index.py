"""What every token index of the registry must do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gramcore import _registry
from gramcore.ngram import build_index

from tests.reference import ngram as reference

ROWS = [r for r in _registry.rows(protocol="index") if r.family == "ngram"]


def make(row: _registry.Row, text: list[int], path: Path) -> Any:
    """An index of one document; those on disk are built first."""
    if row.facts.get("on_disk"):
        build_index([text], path)
        return row.load()(path, **row.test_kwargs)
    return row.load()(text, **row.test_kwargs)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_counts_are_exact_and_repeatable(row: _registry.Row, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    text = rng.integers(0, 5, 200).tolist()
    one, two = make(row, text, tmp_path / "a"), make(row, text, tmp_path / "b")
    for _ in range(50):
        ids = rng.integers(0, 6, rng.integers(1, 5)).tolist()
        expected = len(reference.occurrences(text, ids))
        assert one.count(ids) == two.count(ids) == one.count(np.array(ids)) == one.count(tuple(ids)) == expected
    assert one.count([]) == len(text) + 1  # every position and the end, or the separator
    strided = np.array([text[0], 9, text[1], 9], np.int32)[::2]
    assert one.count(strided) == len(reference.occurrences(text, text[:2]))


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_bad_queries_are_refused(row: _registry.Row, tmp_path: Path) -> None:
    index = make(row, [1, 2, 3], tmp_path / "a")
    with pytest.raises(IndexError, match="ids must be in"):
        index.count([-1])
    for bad in ([1.5], np.array([1.0]), None):
        with pytest.raises(TypeError):
            index.count(bad)
    with pytest.raises(TypeError):
        row.load()([1, 2], surely_unknown=1)
