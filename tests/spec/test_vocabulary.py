"""Drafting over frequent ids only: which they are, heads cut to their rows, laws over them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gramcore.spec import Context, CounterRng, FrequencyVocabulary, ModelDrafter, RsdConstantTree, Sampling
from gramcore.spec.heads import MLPSpeculator
from gramcore.spec.restrict import restrict_head

from tests.reference.spec import warp

from .conftest import tiny_model

SOME = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 96]


@pytest.mark.parametrize("bias", [False, True])
def test_a_restricted_head_computes_the_full_heads_rows(model: Any, bias: bool) -> None:
    target = tiny_model(seed=3)
    if bias:
        target.lm_head.bias = torch.nn.Parameter(torch.randn(97, generator=torch.Generator().manual_seed(0)))
    ids = torch.randint(0, 97, (2, 9), generator=torch.Generator().manual_seed(1))
    few = restrict_head(target, FrequencyVocabulary(SOME, 97))
    with torch.no_grad():
        torch.testing.assert_close(few(ids).logits, target(ids).logits[..., SOME], rtol=1e-5, atol=1e-6)
    assert few.lm_head.weight.shape == (11, 32)
    assert target.lm_head.weight.shape == (97, 32)
    with pytest.raises(ValueError, match="97 ids, got 50"):
        restrict_head(target, FrequencyVocabulary([1], 50))


@pytest.mark.parametrize("sampling", [Sampling(1.0), Sampling(0.7, top_k=5), Sampling(0.9, top_p=0.6)])
def test_laws_over_a_vocabulary_are_the_full_laws_renormalised(model: Any, sampling: Sampling) -> None:
    # q(x) = exp(z_x) / sum over F; 0 outside; temperature and truncation act inside F
    text = np.random.default_rng(0).integers(0, 97, 12).astype(np.int32)
    drafter = ModelDrafter(model, builder=RsdConstantTree(branching=(3, 2)), vocabulary=SOME)
    tree = drafter.propose(Context(text, 12, sampling, CounterRng(0)), 20)
    assert tree.logq is not None
    assert set(tree.tokens.tolist()) <= set(SOME)
    for row in {0, *(tree.parents + 1).tolist()}:
        path = tree.tokens[tree.path_to(row - 1)].tolist()
        with torch.no_grad():
            z = model(torch.tensor([[*text.tolist(), *path]])).logits[0, -1].double().numpy()[SOME]
        law = np.zeros(97)
        law[SOME] = warp(z.tolist(), sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
        np.testing.assert_allclose(np.exp(tree.logq[row]), law, atol=1e-5)


def test_frequency_vocabularies() -> None:
    counts = np.array([3, 0, 7, 7, 1])
    assert FrequencyVocabulary.from_counts(counts, 2).ids.tolist() == [2, 3]
    assert FrequencyVocabulary.from_counts(counts, 3, keep=[1, 1]).ids.tolist() == [1, 2, 3]
    assert FrequencyVocabulary.from_counts(counts, 5).ids.tolist() == [0, 1, 2, 3, 4]

    class Words:
        eos_token_id = 9

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [int(c) for c in text]}

    chosen = FrequencyVocabulary.from_text(["1123", "114"], Words(), 3, vocab_size=12)
    assert chosen.ids.tolist() == [1, 2, 9]
    assert chosen.coverage([1, 1, 5, 2]) == 0.75
    assert chosen.coverage([]) == 0.0
    assert chosen.index([9, 0, 1, 11]).tolist() == [2, -1, 0, -1]
    with pytest.raises(ValueError, match="at most r = 1 ids"):
        FrequencyVocabulary.from_counts(counts, 1, keep=[1, 2])
    for bad in ([[1.0]], [-1.0, 2], [float("nan")]):
        with pytest.raises(ValueError, match="counts must be"):
            FrequencyVocabulary.from_counts(bad, 1)
    with pytest.raises(ValueError, match="of a model with 97 ids, got 12"):
        MLPSpeculator(hidden_size=4, vocab_size=97, vocabulary=chosen)
