"""PPD: prompt tokens in the verifying forward, against one forward per prompt chain; training; exactness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gramcore.model import Decoder
from gramcore.spec import (
    ChainTree,
    FixedLength,
    Host,
    OptTree,
    TransformersHost,
    best_sparse_plan,
    generate,
    measure_cost,
    sparse_plan,
)
from gramcore.spec.heads import (
    DistillLoss,
    HeadDrafter,
    PromptTokenHeads,
    evaluate_heads,
    load_heads,
    read_text,
    save_heads,
    train_heads,
)
from gramcore.spec.heads.base import Batch
from gramcore.spec.trees import typical_accuracy

from tests.reference import heads as slow

from .conftest import tiny_model

VOCAB, LAG = 23, 3


def source(seed: list[int], length: int) -> list[int]:
    """Text that repeats what stood three places before, most of the time."""
    rng = np.random.default_rng(seed)
    text = rng.integers(VOCAB, size=LAG).tolist()
    while len(text) < length:
        text.append(text[-LAG] if rng.random() < 0.93 else int(rng.integers(VOCAB)))
    return text


@pytest.fixture(scope="module")
def world() -> dict[str, Any]:
    """A target that has learnt the source, text it has read, and prompts it has not."""
    model = tiny_model(VOCAB, seed=1, initializer_range=0.05)
    ids = torch.tensor([source([0, i], 32) for i in range(24 * 60)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(120):
        part = ids[24 * (step % 60) :][:24]
        optimizer.zero_grad()
        model(input_ids=part, labels=part).loss.backward()
        optimizer.step()
    text = read_text(model.eval(), [source([1, i], 32) for i in range(80)], length=32, progress=False)
    learn, held_out = text.split(16)
    return {"model": model, "text": learn, "held_out": held_out, "prompts": [source([2, i], 9) for i in range(6)]}


@pytest.mark.parametrize("ensemble", [1, 3])
def test_rollout_is_one_forward_per_chain(model: Any, ensemble: int) -> None:
    heads = PromptTokenHeads.for_model(model, num_heads=3, ensemble=ensemble, vocabulary=[1, 5, 40])
    ids = torch.randint(0, 97, (2, 11), generator=torch.Generator().manual_seed(0))
    places = torch.tensor([0, 2, 6])
    with torch.no_grad():
        rollout = heads.rollout(Batch(ids, torch.zeros(2, 11, 32)), places)
    rows = model.lm_head.weight.detach().double().numpy()[[1, 5, 40]]
    for b in range(2):
        for p, t in enumerate(places.tolist()):
            states = slow.prompt_states(model, ids[b, : t + 1].tolist(), heads.prompts.detach())
            for i in range(3):
                np.testing.assert_allclose(rollout.states[i][b, p], states[i], rtol=1e-3, atol=1e-4)
                np.testing.assert_allclose(rollout.logits[i][b, p], rows @ states[i], rtol=1e-3, atol=1e-3)
    assert all(p.grad is None for p in model.parameters())


class Recorder(HeadDrafter):
    """Keeps what the loop shows."""

    shown: list[tuple[list[int], Any]]

    def fork(self) -> Recorder:
        made = Recorder(self.heads, builder=self.builder)
        made.shown = self.shown
        return made

    def propose(self, ctx: Any, budget: int) -> Any:
        self.shown.append((ctx.tokens.tolist(), None if ctx.hidden is None else ctx.hidden.clone()))
        return super().propose(ctx, budget)


@pytest.mark.parametrize("target", ["kernel", "mask", "native"])
@pytest.mark.parametrize("ensemble", [1, 2])
def test_guesses_of_the_loop_are_those_behind_the_committed_text(model: Any, target: str, ensemble: int) -> None:
    heads = PromptTokenHeads.for_model(model, num_heads=3, ensemble=ensemble, seed=2)
    plain = Decoder.from_module(model).host() if target == "native" else TransformersHost(model, attention=target)
    host = heads.target(plain)
    drafter = Recorder(heads, builder=heads.drafter().builder)  # type: ignore[attr-defined]
    drafter.shown = []
    prompts = [[3, 4, 5, 6, 7], [9], [11, 12]]
    result = generate(host, prompts, drafter=drafter, policy=FixedLength(12), max_new_tokens=10, eos_token_id=())
    assert result.sequences == generate(plain, prompts, max_new_tokens=10, eos_token_id=()).sequences
    firsts = [[*ids, new[0]] for ids, new in zip(prompts, result.sequences, strict=True)]
    seen = 0
    for tokens, hidden in drafter.shown:
        if hidden is None:
            assert tokens in firsts
            continue
        got = hidden.view(3, 32).double().numpy()
        carried = int((~np.isnan(got[:, 0])).sum())
        assert np.isnan(got[carried:]).all()
        want = slow.prompt_states(model, tokens[:-1], heads.prompts.detach())[:carried]
        np.testing.assert_allclose(got[:carried], want, rtol=2e-3, atol=2e-3)
        seen += carried
    assert seen > 40


@pytest.mark.parametrize("builder", [None, ChainTree(depth=5), OptTree(depth=4, threshold=0.0)])
@pytest.mark.parametrize("native", [False, True])
def test_text_is_that_of_plain_decoding(world: dict[str, Any], native: bool, builder: Any) -> None:
    heads = PromptTokenHeads.for_model(world["model"], num_heads=2)
    world = {**world, "model": Decoder.from_module(world["model"])} if native else world
    for law in ({}, {"temperature": 0.8, "seed": 4}):
        settings: dict[str, Any] = {"max_new_tokens": 21, "eos_token_id": (), **law}
        plain = generate(world["model"], world["prompts"], **settings)
        drafter, policy = heads.drafter(builder=builder), FixedLength(9)
        fast = generate(heads.target(world["model"]), world["prompts"], drafter=drafter, policy=policy, **settings)
        assert fast.sequences == plain.sequences
        assert fast.stats.drafted > 0
    alone = generate(heads.target(world["model"]), world["prompts"], max_new_tokens=21, eos_token_id=())
    assert alone.sequences == generate(world["model"], world["prompts"], max_new_tokens=21, eos_token_id=()).sequences


def test_training_raises_accepted_tokens_and_a_plan_follows(world: dict[str, Any], tmp_path: Any) -> None:
    model = world["model"]
    heads = PromptTokenHeads.for_model(model, num_heads=2, ensemble=2)

    def tokens_per_step(builder: Any) -> float:
        settings: dict[str, Any] = {"max_new_tokens": 60, "eos_token_id": ()}
        plain = generate(model, world["prompts"], **settings)
        drafter, policy = heads.drafter(builder=builder), FixedLength(16)
        fast = generate(heads.target(model), world["prompts"], drafter=drafter, policy=policy, **settings)
        assert fast.sequences == plain.sequences
        return fast.stats.tokens_per_step

    frozen = {k: v.clone() for k, v in model.state_dict().items()}
    before = tokens_per_step(ChainTree(depth=2))
    report = train_heads(
        model, heads, world["text"], loss=DistillLoss(), steps=100, lr=3e-2, positions=10,
        held_out=world["held_out"], progress=False,
    )  # fmt: skip
    assert all(torch.equal(v, frozen[k]) for k, v in model.state_dict().items())
    assert all(a < b for a, b in zip(report.after["loss"], report.before["loss"], strict=True))
    after = tokens_per_step(ChainTree(depth=2))
    assert after > before + 0.05
    assert after > 2.2
    accuracy = np.array(report.after["accuracy"])
    heads.plan = best_sparse_plan(accuracy, measure_cost(TransformersHost(model), (4, 8, 16), context=16, repeats=1))
    assert tokens_per_step(None) > 1.7
    save_heads(tmp_path / "h", heads)
    again = load_heads(tmp_path / "h", model)
    assert evaluate_heads(model, again, world["held_out"]) == evaluate_heads(model, heads, world["held_out"])


def test_mistakes_are_named(model: Any) -> None:
    heads = PromptTokenHeads.for_model(model, num_heads=2)
    with pytest.raises(ValueError, match="plan must be for 2 guesses, got one for 3"):
        heads.plan = sparse_plan(typical_accuracy(3, 4), 12)
    with pytest.warns(RuntimeWarning, match=r"heads\.target\(model\)"):
        generate(model, [3, 4, 5], drafter=heads.drafter(), policy=FixedLength(4), max_new_tokens=4, eos_token_id=())
    with pytest.raises(ValueError, match="ensemble must be in"):
        PromptTokenHeads(hidden_size=4, vocab_size=9, ensemble=0)
    with pytest.raises(TypeError, match="transformers causal language model"):
        heads.target(3)
    with pytest.raises(ValueError, match="must have 97 ids as the heads' target, got 98"):
        heads.target(tiny_model(vocab=98))
    ids_only = heads.target(_IdsOnly(model))
    with pytest.raises(TypeError, match="must take embedding rows for prompt tokens, got _IdsOnly"):
        generate(ids_only, [3, 4, 5], drafter=heads.drafter(), policy=FixedLength(4), max_new_tokens=4, eos_token_id=())


class _IdsOnly(TransformersHost):
    forward_embedded = Host.forward_embedded
