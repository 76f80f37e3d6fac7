"""What every registered kind of draft heads keeps, whatever its form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gramcore._registry import Row, rows
from gramcore.spec import ChainTree, FixedLength, generate
from gramcore.spec.heads import load_heads, save_heads
from gramcore.spec.heads.base import Batch

from .test_drafter import VOCAB, tiny_model

HEADS = rows(protocol="draft_head")
WIDTH = 32


def made(row: Row, vocabulary: Any = None) -> Any:
    heads = row.load().for_model(tiny_model(), seed=3, vocabulary=vocabulary, **row.test_kwargs)
    with torch.no_grad():
        for i, p in enumerate(heads.parameters()):
            p.add_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return heads


def batch(seed: int = 0) -> Batch:
    numbers = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCAB, (2, 14), generator=numbers)
    return Batch(ids, torch.randn(2, 14, WIDTH, generator=numbers))


@pytest.fixture(params=HEADS, ids=lambda r: r.name)
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


@pytest.mark.parametrize("vocabulary", [None, [1, 4, 5, 20]])
def test_shapes_of_a_rollout(row: Row, vocabulary: Any) -> None:
    heads = made(row, vocabulary)
    out = heads.rollout(batch(), torch.tensor([0, 3, 7]))
    assert [tuple(x.shape) for x in out.logits] == [(2, 3, 4 if vocabulary else VOCAB)] * heads.num_heads
    assert len(out.states) == heads.num_heads
    assert all(torch.isfinite(x).all() for x in (*out.logits, *out.states))


def test_a_head_sees_the_past_and_the_tokens_it_may(row: Row) -> None:
    heads, text, place = made(row), batch(), torch.tensor([4])
    before = heads.rollout(text, place).logits
    later = Batch(text.ids.clone(), text.hidden.clone())
    later.hidden[:, 5:] += 1.0
    assert all(torch.equal(a, b) for a, b in zip(before, heads.rollout(later, place).logits, strict=True))
    for i in range(1, heads.num_heads + 1):  # x_{t + 1 + i} reaches head i and those behind it, if any head at all
        changed = Batch(text.ids.clone(), text.hidden)
        changed.ids[:, 5 + i] = (changed.ids[:, 5 + i] + 1) % VOCAB
        seen = [not torch.equal(a, b) for a, b in zip(before, heads.rollout(changed, place).logits, strict=True)]
        assert seen == [bool(row.facts["regressive"]) and j >= i for j in range(heads.num_heads)]


def test_steps_along_the_text_are_the_rollout(row: Row) -> None:
    heads, text = made(row), batch()
    rollout = heads.rollout(text, torch.tensor([6]))
    features, past = heads.context(text.hidden[:, :7], following=text.ids[:, 1:8])
    state = features[:, -1]
    if row.facts.get("states") == "own":  # of rows that the heads add to the target's forward
        state = torch.cat([s[:, 0] for s in rollout.states], -1)
    for i in range(heads.num_heads):
        state, logits = heads.step(i, state, text.ids[:, 7 + i], past)
        torch.testing.assert_close(logits, rollout.logits[i][:, 0], rtol=1e-4, atol=1e-4)


def test_every_parameter_learns_and_the_target_does_not(row: Row) -> None:
    heads = made(row)
    sum(z.square().mean() for z in heads.rollout(batch(), torch.arange(8)).logits).backward()
    for name, p in heads.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().max() > 0, name
    assert not any(name.startswith("target") for name in heads.state_dict())


def test_files_and_text(row: Row, tmp_path: Path) -> None:
    heads = made(row, range(0, VOCAB, 3))
    save_heads(tmp_path / "h", heads)
    again = load_heads(tmp_path / "h", tiny_model())
    assert again.settings() == heads.settings()
    plain = generate(tiny_model(), [3, 4, 5], max_new_tokens=12, eos_token_id=())
    drafter, target = again.drafter(builder=ChainTree(depth=3)), again.target(tiny_model())
    fast = generate(target, [3, 4, 5], drafter=drafter, policy=FixedLength(4), max_new_tokens=12, eos_token_id=())
    assert fast.tokens == plain.tokens
    assert fast.stats.drafted > 0


def test_the_seed_makes_the_weights(row: Row) -> None:
    one, two, other = (row.load().for_model(tiny_model(), seed=s, **row.test_kwargs).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(v, two[k]) for k, v in one.items())
    if any(v.abs().max() > 0 for v in one.values()):  # some start from zeros
        assert any(not torch.equal(v, other[k]) for k, v in one.items())


def test_documentation_sections(row: Row) -> None:
    text = row.load().__doc__ or ""
    assert "Differs from paper:" in text
    assert "Reference:" in text
