"""What every registered stop rule keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gramcore._registry import Row, rows
from gramcore.spec import AcceptanceHead, Candidate, ChainTree, CounterRng, DiscoClassifier, DraftTree, StopRule

VOCAB, WIDTH = 11, 6


@pytest.fixture(params=rows(protocol="stop"), ids=lambda r: r.name)
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


def part(row: Row) -> tuple[Any, ...]:
    """The trained part a rule needs, by declared fact."""
    rng = np.random.default_rng(0)
    if row.facts.get("needs") == "classifier":
        zero = np.zeros(7)
        return (
            DiscoClassifier(mean=zero, scale=zero + 1, w1=rng.normal(size=(4, 7)), b1=zero[:4], w2=zero[:4], b2=[1]),
        )
    if row.facts.get("needs") == "head":
        return (AcceptanceHead(blocks=[], weight=rng.normal(size=(2, WIDTH)), bias=np.zeros(2)),)
    return ()


def make(row: Row) -> StopRule:
    made = row.load()(*part(row), **row.test_kwargs)
    assert isinstance(made, StopRule)
    return made


class Laws:
    """A law and a hidden state per prefix."""

    def __call__(self, tree: DraftTree) -> np.ndarray:
        prefixes = [[int(tree.tokens[i]) for i in tree.path_to(node)] for node in range(-1, len(tree))]
        self.hidden = np.array([np.random.default_rng([2, *p]).normal(size=WIDTH) for p in prefixes])
        return np.log([np.random.default_rng([1, *p]).dirichlet(np.ones(VOCAB) / 3) for p in prefixes])


@pytest.mark.parametrize("sample", [False, True])
def test_a_stopped_chain_is_a_beginning_of_the_whole_chain(row: Row, sample: bool) -> None:
    for seed in range(5):
        whole = ChainTree(depth=12, sample=sample).build(Laws(), 12, CounterRng(seed))
        cut = ChainTree(depth=12, sample=sample, stop=make(row)).build(Laws(), 12, CounterRng(seed))
        assert cut.tokens.tolist() == whole.tokens[: len(cut)].tolist()
        cut.check(VOCAB)


def test_a_new_draft_forgets_the_last_one(row: Row) -> None:
    rule = make(row)

    def decisions() -> list[bool]:
        rng = np.random.default_rng(4)
        out = []
        for index in range(6):
            law = np.log(rng.dirichlet(np.ones(VOCAB)))
            out.append(rule.stop(Candidate(index, law, rng.normal(size=WIDTH))))
        return out

    assert decisions() == decisions()


def test_documentation_sections(row: Row) -> None:
    text = row.load().__doc__ or ""
    assert "Differs from paper:" in text
    assert "Reference:" in text


def test_unknown_keywords_are_refused(row: Row) -> None:
    with pytest.raises(TypeError):
        row.load()(*part(row), surely_unknown=1)
