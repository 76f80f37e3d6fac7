"""What every registered choice of draftable ids keeps."""

from __future__ import annotations

from typing import Any

import pytest
from gramcore._registry import Row, rows
from gramcore.spec import Eagle2Tree, FixedLength, FrequencyVocabulary, GreedyTailTree, ModelDrafter, generate
from gramcore.spec.heads import HeadDrafter, MLPSpeculator

from .test_drafter import VOCAB, tiny_model


@pytest.fixture(params=rows(protocol="vocabulary"), ids=lambda r: r.name)
def vocabulary(request: pytest.FixtureRequest) -> FrequencyVocabulary:
    row: Row = request.param
    assert "Reference:" in (FrequencyVocabulary.__doc__ or "")
    made = row.load()(**row.test_kwargs)
    assert isinstance(made, FrequencyVocabulary)
    assert made.vocab_size == VOCAB
    return made


@pytest.mark.parametrize("kind", ["model", "heads"])
def test_only_its_ids_are_drafted_and_the_text_stays(vocabulary: FrequencyVocabulary, kind: str) -> None:
    model = tiny_model()
    seen: list[int] = []

    class Watched(Eagle2Tree):
        def build(self, *args: Any) -> Any:
            tree = super().build(*args)
            seen.extend(vocabulary.ids[tree.tokens].tolist())
            return tree

    builder = Watched(depth=3, top_k=3)
    if kind == "model":
        drafter: Any = ModelDrafter(model, builder=builder, vocabulary=vocabulary)
    else:
        drafter = HeadDrafter(MLPSpeculator.for_model(model, vocabulary=vocabulary), builder=builder)
    for law in ({}, {"temperature": 1.0, "seed": 3}):
        settings: dict[str, Any] = {"max_new_tokens": 24, "eos_token_id": (), **law}
        plain = generate(model, [3, 5, 7], **settings)
        assert generate(model, [3, 5, 7], drafter=drafter, policy=FixedLength(6), **settings).tokens == plain.tokens
    assert set(seen) <= set(vocabulary.ids.tolist())
    assert len(set(seen)) > 1


def test_random_drafts_have_no_mass_elsewhere(vocabulary: FrequencyVocabulary) -> None:
    drafter = ModelDrafter(tiny_model(), builder=GreedyTailTree(branching=(3, 2)), vocabulary=vocabulary)
    from .test_drafter import look

    tree = drafter.propose(look([3, 5, 7]), 12)
    tree.check(VOCAB)
    assert tree.logq is not None
    outside = [x for x in range(VOCAB) if x not in vocabulary.ids]
    assert (tree.logq[:, outside] == float("-inf")).all()
