"""Blockwise drafts: rescorers against counting and plain forwards, the lattice against all its paths, exactness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gramcore.spec import Context, CounterRng, DraftTree, FixedLength, Sampling, generate
from gramcore.spec.heads import (
    BlockHeads,
    BlockwiseDrafter,
    Koala,
    MLPSpeculator,
    ModelRescorer,
    NgramRescorer,
    PromptTokenHeads,
)
from gramcore.spec.heads.drafter import HeadLaws

from tests.reference import heads as slow

from .conftest import tiny_model

SOME = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 96]


def shaken(heads: Any, seed: int = 0) -> Any:
    numbers = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in heads.parameters():
            p.add_(torch.randn(p.shape, generator=numbers) * 0.1)
    return heads


@pytest.mark.parametrize("order", [1, 2, 4])
def test_ngram_probabilities_are_counted_ones(order: int) -> None:
    rng = np.random.default_rng(order)
    corpus = [rng.integers(0, 3, 20).tolist(), rng.integers(0, 5, 9).tolist(), []]
    text = rng.integers(0, 4, 30).astype(np.int32)
    model = NgramRescorer(vocab_size=6, order=order, corpus=corpus)
    model.observe(text[:11])
    model.observe(np.int32([5, 5, 4]))
    model.rollback(3)
    model.observe(text[11:])
    paths = [(), *[(a,) for a in range(3)], *[(a, b) for a in range(2) for b in range(3)]]
    for path in paths:
        got = np.exp(model.score(text, [path], np.arange(6, dtype=np.int32))[0])
        assert got.sum() == pytest.approx(1)
        context = [*text.tolist(), *path][-(order - 1) :] if order > 1 else []
        texts = [*corpus, text.tolist()]
        want = [slow.witten_bell(texts, 6, context, x) for x in range(6)]
        np.testing.assert_allclose(got, want, rtol=1e-12)
    fresh = model.fork().score(text[:0], [()], np.arange(6, dtype=np.int32))
    np.testing.assert_allclose(np.exp(fresh[0]), [slow.witten_bell(corpus, 6, [], x) for x in range(6)], rtol=1e-12)


def test_a_model_rescores_with_its_last_row(model: Any) -> None:
    text = np.random.default_rng(0).integers(0, 97, 20).astype(np.int32)
    got = ModelRescorer(model, context=6).score(text, [(3, 4), (5, 6), (7, 7)], np.int32([9, 1]))
    for row, path in enumerate([(3, 4), (5, 6), (7, 7)]):
        with torch.no_grad():
            law = torch.log_softmax(model(torch.tensor([[*text[-6:].tolist(), *path]])).logits[0, -1].double(), -1)
        np.testing.assert_allclose(got[row], law[[9, 1]].numpy(), atol=1e-5)


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("vocabulary", [None, SOME])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_drafts_are_the_best_of_all_paths(model: Any, local: bool, vocabulary: Any, weight: float) -> None:
    heads = shaken(BlockHeads.for_model(model, num_heads=3, vocabulary=vocabulary))
    text = np.random.default_rng(1).choice(SOME, 40).astype(np.int32)
    rescorer = NgramRescorer(vocab_size=97, order=3)
    state = torch.randn(32, generator=torch.Generator().manual_seed(2))
    drafter = BlockwiseDrafter(heads, rescorer, top_k=4, paths=5, beam=64, weight=weight, local=local)
    drafter.observe(text)
    tree = drafter.propose(Context(text, 40, Sampling(), CounterRng(0), state), 30)
    laws = HeadLaws(heads, state, int(text[-1]))(DraftTree.chain([0, 0]))
    if vocabulary is not None:
        whole = np.full((3, 97), -np.inf)
        whole[:, SOME] = laws
        laws = whole

    def score(path: tuple[int, ...], token: int) -> float:
        return float(np.log(slow.witten_bell([text.tolist()], 97, [*text.tolist(), *path][-2:], token)))

    want = slow.best_paths(laws, 4, score, weight, local)[:5]
    leaves = [n for n in range(len(tree)) if n not in tree.parents]
    got = [tuple(tree.tokens[tree.path_to(n)].tolist()) for n in leaves]
    assert set(got) == set(want)
    first = next(n for n in range(len(tree)) if n not in tree.parents)
    assert tuple(tree.tokens[tree.path_to(first)].tolist()) == want[0]
    small = drafter.propose(Context(text, 40, Sampling(), CounterRng(0), state), 2)
    assert tuple(small.tokens.tolist()) == slow.best_paths(laws[:2], 4, score, weight, local)[0]


@pytest.mark.parametrize("kind", ["block", "koala", "prompt", "model"])
def test_text_is_that_of_plain_decoding(model: Any, kind: str) -> None:
    made = {"koala": Koala, "prompt": PromptTokenHeads}.get(kind, BlockHeads)
    heads = shaken(made.for_model(model, num_heads=3))
    rescorer = ModelRescorer(tiny_model(seed=4)) if kind == "model" else NgramRescorer(vocab_size=97)
    drafter = BlockwiseDrafter(heads, rescorer, paths=3)
    prompts = [[3, 4, 5, 3, 4, 5, 3], [7], [9, 9]]
    for law in ({}, {"temperature": 0.9, "seed": 1}):
        settings: dict[str, Any] = {"max_new_tokens": 18, "eos_token_id": (), **law}
        plain = generate(model, prompts, **settings)
        fast = generate(heads.target(model), prompts, drafter=drafter, policy=FixedLength(7), **settings)
        assert fast.sequences == plain.sequences
        assert fast.stats.drafted > 0


def test_rescoring_removes_what_the_text_never_says() -> None:
    # the text goes 5, 6, 7, 5, 6, 7; heads that all like 5 best draft 5, 5, 5; the n-grams of the text know better
    model = tiny_model(seed=7)
    text = [5, 6, 7] * 8
    heads = BlockHeads.for_model(model, num_heads=3)
    rescorer = NgramRescorer(vocab_size=97, order=3)
    rescorer.observe(np.int32(text))
    state = torch.zeros(32)
    with torch.no_grad():
        heads.target_rows = torch.zeros_like(heads.target_rows)
        heads.target_bias = torch.zeros(97)
        heads.target_bias[[5, 6, 7]] = torch.tensor([2.0, 1.9, 1.8])
    ctx = Context(np.int32(text), 24, Sampling(), CounterRng(0), state)
    plain = BlockwiseDrafter(heads, rescorer, paths=1, weight=0.0).propose(ctx, 3)
    rescored = BlockwiseDrafter(heads, rescorer, paths=1, weight=1.0).propose(ctx, 3)
    assert plain.tokens.tolist() == [5, 5, 5]
    assert rescored.tokens.tolist() == [5, 6, 7]


def test_mistakes_are_named(model: Any) -> None:
    rescorer = NgramRescorer(vocab_size=97)
    with pytest.raises(ValueError, match="must not read drafted tokens, got mlp_speculator"):
        BlockwiseDrafter(MLPSpeculator.for_model(model), rescorer)
    heads = BlockHeads.for_model(model)
    for bad in ({"top_k": 0}, {"paths": 0}, {"beam": 2, "paths": 3}, {"weight": -1.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            BlockwiseDrafter(heads, rescorer, **bad)
    for bad in ({"vocab_size": 0}, {"vocab_size": 3, "order": 0}):
        with pytest.raises(ValueError, match="must be in"):
            NgramRescorer(**bad)
    with pytest.raises(ValueError, match="context must be in"):
        ModelRescorer(model, context=0)
