"""What every automaton of the registry must do."""

from __future__ import annotations

import numpy as np
import pytest
from gramcore import _registry

from tests.reference import ngram as reference

ROWS = _registry.rows(protocol="automaton")


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_matches_drafts_and_undo(row: _registry.Row) -> None:
    rng = np.random.default_rng(0)
    text = rng.integers(0, 4, 60).tolist()
    whole, stepwise = row.load()(**row.test_kwargs), row.load()(**row.test_kwargs)
    assert (whole.num_tokens, whole.match_len, whole.propose(3).tolist()) == (0, 0, [])
    whole.extend(text)
    for token in text:
        stepwise.extend([token])
    for automaton in (whole, stepwise):
        assert automaton.num_tokens == len(text)
        assert automaton.match_len == reference.longest_repeat(text)
        assert automaton.propose(5).tolist() == reference.recent_draft(text, 5)
        assert automaton.propose(5).dtype == np.int32
    if row.facts.get("rollback"):
        whole.extend([1, 2, 3])
        whole.rollback(3)
        assert whole.propose(5).tolist() == reference.recent_draft(text, 5)
        with pytest.raises(ValueError, match="rollback must be in"):
            whole.rollback(len(text) + 1)
    whole.clear()
    assert (whole.num_tokens, whole.match_len) == (0, 0)
    with pytest.raises(IndexError):
        whole.extend([-1])
