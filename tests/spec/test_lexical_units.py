"""Lexical unit decoding against a decoder written from its description, its loss against counting, its level."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gramcore.spec import CounterRng, DraftTree, FixedLength, Sampling, TargetRows, generate
from gramcore.spec.heads import (
    BlockHeads,
    LexicalUnitLoss,
    LexicalUnitTree,
    LexicalUnitVerifier,
    MLPSpeculator,
    NextTokenLoss,
    read_text,
)
from gramcore.spec.heads.base import Batch

from tests.reference import heads as slow


def shaken(heads: Any, scale: float) -> Any:
    numbers = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in heads.parameters():
            p.add_(torch.randn(p.shape, generator=numbers) * scale)
    return heads


@pytest.fixture(scope="module")
def heads(model: Any) -> Any:
    return shaken(BlockHeads.for_model(model, num_heads=4), 0.3)


def decode_units(model: Any, heads: Any, prompt: list[int], new: int, alpha: float, repeats: bool) -> list[int]:
    """From the paper: heads say all that follows the last token with confidence, the target one token, and again."""
    weights = {k: v.double().numpy() for k, v in heads.state_dict().items()}
    rows = heads.target_rows.double().numpy()

    def read(text: list[int]) -> tuple[int, np.ndarray]:
        with torch.no_grad():
            out = model(torch.tensor([text]), output_hidden_states=True)
        return int(out.logits[0, -1].argmax()), out.hidden_states[-1][0, -1].double().numpy()

    text = list(prompt)
    while len(text) < len(prompt) + new:
        first = len(text) == len(prompt)
        span: list[int] = []
        for logits in slow.residual_heads(read(text[:-1])[1], weights, 4, 1, rows):
            law = slow.softmax(logits)
            token = int(law.argmax())
            if law[token] < alpha or (span and span[-1] == token and not repeats):
                break
            if first and read([*text, *span])[0] != token:  # the beginning is verified
                break
            span.append(token)
        text += span
        text.append(read(text)[0])
    return text[len(prompt) : len(prompt) + new]


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("alpha", [0.1, 0.25])
def test_text_is_that_of_the_description(model: Any, heads: Any, alpha: float, repeats: bool) -> None:
    drafter = heads.drafter(builder=LexicalUnitTree(alpha=alpha, repeats=repeats))
    lossy = 0
    for prompt in ([3, 4, 5], [7, 8], [20, 30, 40, 50]):
        settings: dict[str, Any] = {"max_new_tokens": 25, "eos_token_id": ()}
        made = generate(
            model, prompt, drafter=drafter, verifier=LexicalUnitVerifier(), policy=FixedLength(9), **settings
        )
        assert made.stats.accepted > 0
        wanted = decode_units(model, heads, prompt, 25, alpha, repeats)
        assert made.tokens[:-1] == wanted[:-1]  # the loop drafts nothing in place of its last token
        lossy += made.tokens != generate(model, prompt, **settings).tokens
    assert lossy > 0


def test_no_confidence_is_plain_decoding(model: Any, heads: Any) -> None:
    drafter = heads.drafter(builder=LexicalUnitTree(alpha=1.0))
    for law in ({}, {"temperature": 0.7, "seed": 3}):
        settings: dict[str, Any] = {"max_new_tokens": 12, "eos_token_id": (), **law}
        made = generate(model, [3, 4], drafter=drafter, verifier=LexicalUnitVerifier(), **settings)
        assert made.tokens == generate(model, [3, 4], **settings).tokens


def test_spans_end_before_doubt_and_repeats() -> None:
    rows = np.log(np.array([[0.95, 0.05], [0.92, 0.08], [0.1, 0.9], [0.2, 0.8]]))

    def laws(tree: DraftTree) -> np.ndarray:
        return rows[: len(tree) + 1]

    def span(budget: int = 9, **settings: Any) -> list[int]:
        return LexicalUnitTree(**settings).build(laws, budget, CounterRng(0)).tokens.tolist()

    assert span() == [0]
    assert span(repeats=True) == [0, 0, 1]
    assert span(repeats=True, alpha=0.93) == [0]
    assert span(repeats=True, alpha=0.7, depth=2) == [0, 0]
    assert span(budget=1, repeats=True) == [0]
    assert span(budget=0) == []
    for bad in ({"alpha": 0.0}, {"alpha": 1.1}, {"depth": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            LexicalUnitTree(**bad)


def test_the_first_children_stand_and_the_target_goes_on() -> None:
    tree = DraftTree(np.int32([4, 5, 6, 7]), np.int32([-1, -1, 0, 0]))
    logits = np.zeros((5, 9), np.float32)
    logits[3, 8] = 1.0
    numbers = CounterRng(1)
    assert LexicalUnitVerifier().verify(tree, logits, numbers).path.tolist() == []  # the beginning is verified
    numbers.position = 1
    verdict = LexicalUnitVerifier().verify(tree, logits, numbers)
    assert (verdict.path.tolist(), verdict.next_token) == ([0, 2], 8)
    logits[3, 8] = 50.0
    sampled = LexicalUnitVerifier().verify(tree, TargetRows(logits, Sampling(1.0)), numbers)
    assert (sampled.path.tolist(), sampled.next_token) == ([0, 2], 8)


@pytest.mark.parametrize("vocabulary", [None, [0, 2, 3, 5, 8, 13]])
def test_the_loss_counts_units_only(model: Any, vocabulary: Any) -> None:
    heads = shaken(MLPSpeculator.for_model(model, num_heads=2, vocabulary=vocabulary), 0.1)
    text = read_text(model, np.random.default_rng(1).integers(0, 14, 40).tolist(), length=20, progress=False)
    batch, places = Batch(text.ids, text.hidden), torch.arange(16)
    ids = vocabulary or list(range(97))
    weight = model.lm_head.weight.detach().double().numpy()[ids]
    with torch.no_grad():
        rollout = heads.rollout(batch, places)
        everything = float(LexicalUnitLoss(alpha=1e-30)(heads, batch, places, rollout))
        assert float(LexicalUnitLoss(alpha=1.0)(heads, batch, places, rollout)) == 0.0
    for alpha in (0.01, 0.05):
        total = 0.0
        for i in range(2):
            terms = []
            for b in range(2):
                for p, t in enumerate(places.tolist()):
                    span = text.ids[b, t + 2 : t + 3 + i].tolist()
                    laws = [slow.softmax(weight @ text.hidden[b, t + 1 + j].double().numpy()) for j in range(i + 1)]
                    if all(x in ids and law[ids.index(x)] >= alpha for x, law in zip(span, laws, strict=True)):
                        logits = rollout.logits[i][b, p].double().numpy()
                        terms.append(-math.log(slow.softmax(logits)[ids.index(span[-1])]))
            total += 0.5**i * sum(terms) / max(1, len(terms))
        loss = LexicalUnitLoss(alpha=alpha, decay=0.5)
        assert float(loss(heads, batch, places, rollout)) == pytest.approx(total, rel=1e-4)
        assert total > 0
        assert loss.name == f"LexicalUnitLoss(alpha={alpha:g}, decay=0.5)"
    if vocabulary is None:
        assert everything == pytest.approx(float(NextTokenLoss()(heads, batch, places, rollout)), rel=1e-5)
