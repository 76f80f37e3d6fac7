"""What every registered drafter keeps, whatever its method."""

from __future__ import annotations

import functools
import shutil
import tempfile
from typing import Any

import numpy as np
import pytest
from gramcore._registry import Row, rows
from gramcore.ngram import Index, build_index
from gramcore.spec import Context, CounterRng, Drafter, NgramDrafter, Sampling

DRAFTERS = rows(protocol="drafter")
TEXT = np.int32([3, 5, 7, 9, 3, 5, 7, 11, 3, 5, 7, 9, 2, 3, 5])
VOCAB = 32


def arguments(row: Row) -> tuple[Any, ...]:
    """What a drafter needs beyond keywords, by declared fact."""
    need = row.facts.get("needs")
    if need == "model":
        return (tiny_model(),)
    if need == "fallback":
        return (NgramDrafter(),)
    if need == "index":
        return (tiny_index(),)
    if need == "heads":
        return (tiny_heads(),)
    if need == "heads and rescorer":
        from gramcore.spec.heads import BlockHeads, NgramRescorer

        return BlockHeads.for_model(tiny_model()), NgramRescorer(vocab_size=VOCAB)
    return ()


@functools.cache
def tiny_heads() -> Any:
    from gramcore.spec.heads import MLPSpeculator

    return MLPSpeculator.for_model(tiny_model())


@functools.cache
def tiny_model() -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            initializer_range=0.3,
        )
    ).eval()


@functools.cache
def tiny_index() -> Index:
    folder = tempfile.mkdtemp()
    build_index([TEXT.tolist(), [3, 5, 7, 9, 4, 4]], folder)
    index = Index(folder)
    shutil.rmtree(folder)  # the files are mapped
    return index


def make(row: Row) -> Drafter:
    made = row.load()(*arguments(row), **row.test_kwargs)
    assert isinstance(made, Drafter)
    return made


def look(text: Any) -> Context:
    import torch

    state = torch.sin(torch.arange(32.0))  # of the row that predicted the root, for drafters that ask for it
    return Context(np.asarray(text, np.int32), len(text), Sampling(temperature=1.0), CounterRng(1), state)


@pytest.fixture(params=DRAFTERS, ids=lambda r: r.name)
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


@pytest.mark.parametrize("budget", [1, 2, 7, 30])
def test_trees_are_well_formed_and_within_budget(row: Row, budget: int) -> None:
    drafter = make(row)
    drafter.observe(TEXT)
    tree = drafter.propose(look(TEXT), budget)
    assert len(tree) <= budget
    tree.check(VOCAB)
    assert (tree.logq is not None) == bool(row.facts.get("random"))


def test_proposals_are_deterministic_and_change_nothing(row: Row) -> None:
    drafter = make(row)
    drafter.observe(TEXT)
    first, second = drafter.propose(look(TEXT), 8), drafter.propose(look(TEXT), 8)
    assert first.tokens.tolist() == second.tokens.tolist()
    assert first.parents.tolist() == second.parents.tolist()


def test_observing_in_pieces_equals_observing_at_once(row: Row) -> None:
    whole, pieces = make(row), make(row)
    whole.observe(TEXT)
    for start in range(0, len(TEXT), 4):
        pieces.observe(TEXT[start : start + 4])
    pieces.observe(TEXT[:0])
    assert whole.propose(look(TEXT), 9).tokens.tolist() == pieces.propose(look(TEXT), 9).tokens.tolist()


def test_rollback_is_the_inverse_of_observe(row: Row) -> None:
    drafter, fresh = make(row), make(row)
    drafter.observe(TEXT)
    fresh.observe(TEXT)
    drafter.observe(np.int32([1, 2, 3]))
    drafter.rollback(3)
    assert drafter.propose(look(TEXT), 9).tokens.tolist() == fresh.propose(look(TEXT), 9).tokens.tolist()


def test_fork_starts_empty(row: Row) -> None:
    drafter, fresh = make(row), make(row)
    drafter.observe(TEXT)
    fork = drafter.fork()
    fork.observe(TEXT[:1])
    fresh.observe(TEXT[:1])
    assert fork.propose(look(TEXT[:1]), 5).tokens.tolist() == fresh.propose(look(TEXT[:1]), 5).tokens.tolist()


def test_one_token_of_history(row: Row) -> None:
    drafter = make(row)
    drafter.observe(np.int32([4]))
    drafter.propose(look([4]), 5).check(VOCAB)


def test_documentation_sections(row: Row) -> None:
    text = row.load().__doc__ or ""
    assert "Differs from paper:" in text
    assert "Reference:" in text


def test_unknown_keywords_are_refused(row: Row) -> None:
    with pytest.raises(TypeError):
        row.load()(*arguments(row), **row.test_kwargs, surely_unknown=1)
