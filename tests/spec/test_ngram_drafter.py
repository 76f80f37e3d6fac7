"""N-gram drafts against a scan of the text."""

from __future__ import annotations

import numpy as np
import pytest
from gramcore.spec import Context, CounterRng, NgramDrafter, Sampling
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import spec as reference


def context(text: list[int]) -> Context:
    return Context(np.int32(text), len(text), Sampling(), CounterRng(0))


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.integers(0, 12),
    st.integers(2, 4),
    st.integers(0, 3),
    st.sampled_from(["frequent", "recent"]),
)
def test_drafts_match_the_scan(text: list[int], budget: int, low: int, more: int, pick: str) -> None:
    drafter = NgramDrafter(max_ngram=low + more, min_ngram=low, pick=pick)
    for start in range(0, len(text), 7):
        drafter.observe(np.int32(text[start : start + 7]))
    expected = reference.anpd(text, budget, low + more, low, pick == "recent")
    draft = drafter.propose(context(text), budget)
    assert draft.tokens.tolist() == expected
    orders = range(low - 1, min(low + more, len(text)))  # contexts that occurred before with a token behind them
    seen = [n for n in orders if text[-n:] in (text[i : i + n] for i in range(len(text) - n))]
    assert draft.strength == max(seen, default=0)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.lists(st.integers(0, 2), max_size=20))
def test_rollback_undoes_observe(text: list[int], more: list[int]) -> None:
    drafter, fresh = NgramDrafter(), NgramDrafter()
    drafter.observe(np.int32(text))
    fresh.observe(np.int32(text))
    drafter.observe(np.array(more, np.int32))
    drafter.rollback(len(more))
    assert drafter.propose(context(text), 9).tokens.tolist() == fresh.propose(context(text), 9).tokens.tolist()
    drafter.rollback(len(text))
    assert len(drafter.propose(context(text), 9)) == 0
    with pytest.raises(ValueError, match="n must be"):
        drafter.rollback(1)


@pytest.mark.parametrize("bad", [{"max_ngram": 1}, {"min_ngram": 1}, {"max_ngram": 99}, {"pick": "any"}])
def test_arguments_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        NgramDrafter(**bad)  # type: ignore[arg-type]
