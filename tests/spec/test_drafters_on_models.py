"""Every kind of drafter in the loop on small models: the text is that of plain decoding, or of the target's law."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gramcore.ngram import Index, build_index
from gramcore.spec import (
    AdaptiveDrafter,
    ChainTree,
    Context,
    CostModelLength,
    CounterRng,
    Eagle2Tree,
    FixedLength,
    GreedyTailTree,
    IidTree,
    InfinigramDrafter,
    KSeqVerifier,
    ModelDrafter,
    OptTree,
    RsdConstantTree,
    RsdStochasticTree,
    Sampling,
    StaticTree,
    TokenRecycling,
    TrigramDrafter,
    early_exit,
    generate,
)

from .conftest import tiny_model


def prompt(seed: int = 0) -> list[int]:
    half = np.random.default_rng(seed).integers(0, 97, 15).tolist()
    return half + half


@pytest.fixture(scope="module")
def drafters(model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("index")
    documents = [generate(model, prompt(s), max_new_tokens=40).tokens for s in range(4)]
    build_index(documents, folder)
    return {
        "token recycling": TokenRecycling(),
        "trigram": TrigramDrafter(),
        "adaptive": AdaptiveDrafter(TokenRecycling()),
        "index": InfinigramDrafter(Index(Path(folder)), min_prob=0.0),
        "early exit chain": ModelDrafter(early_exit(model, 1), builder=ChainTree(depth=4)),
        "early exit OPT-Tree": ModelDrafter(early_exit(model, 1), builder=OptTree(depth=3, threshold=0.0)),
        "early exit EAGLE-2": ModelDrafter(early_exit(model, 1), builder=Eagle2Tree(depth=3, top_k=3)),
        "static": ModelDrafter(early_exit(model, 1), builder=StaticTree()),
        "short context": ModelDrafter(model, builder=ChainTree(depth=4), context=6),
        "frequent ids": ModelDrafter(model, builder=ChainTree(depth=4), vocabulary=range(0, 97, 2)),
        "same model": ModelDrafter(model, builder=ChainTree(depth=4)),
    }


NAMES = [
    "token recycling", "trigram", "adaptive", "index", "early exit chain", "early exit OPT-Tree", "early exit EAGLE-2",
    "static", "short context", "frequent ids", "same model",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sampled", [False, True])
def test_text_is_that_of_plain_decoding(model: Any, drafters: dict[str, Any], name: str, sampled: bool) -> None:
    law = {"temperature": 0.7, "seed": 3} if sampled else {}
    length = 32 if name != "trigram" else 120  # before two tokens come again
    for seed in range(2):
        plain = generate(model, prompt(seed), max_new_tokens=length, **law)
        settings: dict[str, Any] = {"policy": FixedLength(10), "max_new_tokens": length, **law}
        fast = generate(model, prompt(seed), drafter=drafters[name], **settings)
        assert fast.tokens == plain.tokens
        assert fast.stats.drafted > 0
        if name == "same model" and not sampled:
            assert fast.stats.steps <= 9
        if name == "index" and not sampled:
            assert fast.stats.accepted > 0


@pytest.mark.parametrize("name", NAMES)
def test_batch_equals_single(model: Any, drafters: dict[str, Any], name: str) -> None:
    rows = [prompt(1), prompt(2)[:7]]
    fast = generate(model, rows, drafter=drafters[name], policy=FixedLength(6), max_new_tokens=16).sequences
    assert fast == [generate(model, row, max_new_tokens=16).tokens for row in rows]


@pytest.mark.parametrize(
    ("builder", "verifier"),
    [
        (RsdConstantTree(branching=(3, 2, 1)), None),
        (RsdStochasticTree(width=3, depth=3), None),
        (IidTree(branching=(2, 2)), None),
        (IidTree(branching=(2, 2)), KSeqVerifier()),
        (GreedyTailTree(branching=(3, 1)), None),
        (ChainTree(depth=4, sample=True), None),
    ],
)
def test_random_drafts_keep_the_law_of_a_token(model: Any, builder: Any, verifier: Any) -> None:
    # law of the second new token, the first that may be drafted, given a forced first one: 300 seeds, chi-square over
    # the 6 likeliest tokens and the rest, threshold at 1e-5 per case: false alarm below 6e-5
    ids = prompt(3)
    drafter = ModelDrafter(early_exit(model, 1), builder=builder)

    def forced(before: Any, scores: Any) -> Any:
        only = torch.full_like(scores, -torch.inf).index_fill(-1, torch.tensor([5]), 0.0)
        return only if before.shape[1] == len(ids) else scores

    with torch.inference_mode():
        p = torch.softmax(model(torch.tensor([[*ids, 5]])).logits[0, -1].double() / 0.8, 0).numpy()
    likely = np.argsort(-p)[:6]
    counts = np.zeros(7)
    accepted = 0
    for seed in range(300):
        result = generate(
            model,
            ids,
            drafter=drafter,
            verifier=verifier,
            policy=FixedLength(12),
            processors=[forced],
            temperature=0.8,
            seed=seed,
            max_new_tokens=3,
        )
        accepted += result.stats.accepted
        where = np.flatnonzero(likely == result.tokens[1])
        counts[where[0] if len(where) else 6] += 1
    expected = 300 * np.append(p[likely], 1 - p[likely].sum())
    assert float(((counts - expected) ** 2 / expected).sum()) < 33.2  # 6 degrees of freedom, 1 - 1e-5
    assert accepted > 30


def test_default_policy_keeps_the_text(model: Any, drafters: dict[str, Any]) -> None:
    plain = generate(model, prompt(5), max_new_tokens=60).tokens
    for name in ("token recycling", "same model"):
        fast = generate(model, prompt(5), drafter=drafters[name], policy=CostModelLength(), max_new_tokens=60)
        assert fast.tokens == plain


def test_model_drafter_follows_a_shortened_text(model: Any) -> None:
    drafter, fresh = (ModelDrafter(model, builder=ChainTree(depth=3)) for _ in range(2))
    text = np.int32(prompt(1))

    def draft(d: ModelDrafter, tokens: np.ndarray) -> list[int]:
        return d.propose(Context(tokens, len(tokens), Sampling(), CounterRng(0)), 8).tokens.tolist()

    draft(drafter, text)
    assert draft(drafter, text[:20]) == draft(fresh, text[:20])
    changed = text.copy()
    changed[10:] = 5
    assert draft(drafter, changed) == draft(ModelDrafter(model, builder=ChainTree(depth=3)), changed)


def test_early_exit_shares_weights_and_leaves_the_model_alone(model: Any) -> None:
    shallow = early_exit(model, 1)
    assert len(model.model.layers) == 2
    assert model.config.num_hidden_layers == 2
    assert shallow.lm_head.weight.data_ptr() == model.lm_head.weight.data_ptr()
    assert len(shallow.model.layers) == 1
    for bad in (0, 3):
        with pytest.raises(ValueError, match="num_layers"):
            early_exit(model, bad)


def test_draft_vocabulary_is_checked(model: Any) -> None:
    for bad in ([], [97], [-1]):
        with pytest.raises(ValueError, match="vocabulary must be ids"):
            ModelDrafter(model, vocabulary=bad)


def test_a_context_end_cuts_model_drafts() -> None:
    small = tiny_model(max_position_embeddings=40)
    plain = generate(small, prompt(), max_new_tokens=50)
    fast = generate(small, prompt(), drafter=ModelDrafter(small), policy=FixedLength(8), max_new_tokens=50)
    assert fast.tokens == plain.tokens
    assert len(plain.tokens) == 10
