"""Draft heads against their equations, restricted vocabularies, and the drafter inside the loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gramcore.spec import (
    AcceptanceHead,
    AcceptanceHeadStop,
    AdaptiveDrafter,
    ChainTree,
    Context,
    CounterRng,
    DraftTree,
    Eagle2Tree,
    FixedLength,
    GreedyTailTree,
    OptTree,
    RsdConstantTree,
    RsdStochasticTree,
    Sampling,
    StaticTree,
    generate,
)
from gramcore.spec.heads import (
    AdversarialLoss,
    BlockHeads,
    Clover,
    DistillLoss,
    Eagle,
    HeadDrafter,
    HiddenLoss,
    Koala,
    MLPSpeculator,
    NextTokenLoss,
    read_text,
)
from gramcore.spec.heads.base import Batch
from gramcore.spec.heads.drafter import HeadLaws

from tests.reference import heads as slow
from tests.reference.spec import warp

SOME = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 96]


def shaken(heads: Any, seed: int = 0, scale: float = 0.2) -> Any:
    """No weight stays at a special value."""
    numbers = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in heads.parameters():
            p.add_(torch.randn(p.shape, generator=numbers) * scale)
    return heads


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "block": (BlockHeads, {"num_heads": 3}),
    "koala": (Koala, {"num_heads": 2, "layers": 3}),
    "mlp": (MLPSpeculator, {"num_heads": 3}),
    "mlp untied": (MLPSpeculator, {"num_heads": 3, "tie_weights": False, "inner_dim": 20, "scale_input": False}),
    "mlp one": (MLPSpeculator, {"num_heads": 1, "inner_dim": 7}),
    "clover": (Clover, {"num_heads": 3, "attention_heads": 4}),
    "clover flat": (Clover, {"num_heads": 2, "attention_heads": 2, "blocks": 0}),
    "clover deep": (Clover, {"num_heads": 2, "attention_heads": 1, "blocks": 2}),
    "eagle": (Eagle, {"num_heads": 3, "attention_heads": 4}),
    "koala over eagle": (Eagle, {"num_heads": 4, "attention_heads": 2, "layers": 2}),
    "block, some ids": (BlockHeads, {"num_heads": 3, "vocabulary": SOME}),
    "mlp, some ids": (MLPSpeculator, {"num_heads": 3, "vocabulary": SOME}),
    "eagle, some ids": (Eagle, {"num_heads": 2, "attention_heads": 4, "layers": 3, "vocabulary": SOME}),
    "clover, some ids": (Clover, {"num_heads": 3, "attention_heads": 4, "vocabulary": SOME}),
}


@pytest.fixture(scope="module")
def made(model: Any) -> dict[str, Any]:
    return {name: shaken(kind.for_model(model, seed=1, **k), 3) for name, (kind, k) in KINDS.items()}


def expected(heads: Any, hidden: torch.Tensor, tokens: list[int], before: list[int]) -> list[np.ndarray]:
    weights = {k: v.double().numpy() for k, v in heads.state_dict().items()}
    target = (heads.target_rows.double().numpy(), heads.target_embedding.double().numpy())
    return slow.logits_at(heads.kind, heads.settings(), weights, hidden.double().numpy(), tokens, target, before)


@pytest.mark.parametrize("name", KINDS)
def test_rollout_is_the_equations(model: Any, made: dict[str, Any], name: str) -> None:
    heads = made[name]
    ids = np.random.default_rng(0).integers(0, 97, 24).tolist()
    text = read_text(model, ids, length=12, progress=False)
    places = torch.tensor([0, 1, 4, 12 - 2 - heads.num_heads])
    with torch.no_grad():
        rollout = heads.rollout(Batch(text.ids, text.hidden), places)
    assert len(rollout.logits) == heads.num_heads
    for b in range(2):
        for p, t in enumerate(places.tolist()):
            before, tokens = text.ids[b, 1 : t + 1].tolist(), text.ids[b, t + 1 :].tolist()
            want = expected(heads, text.hidden[b, : t + 1], tokens, before)
            for i, logits in enumerate(want):
                np.testing.assert_allclose(rollout.logits[i][b, p].numpy(), logits, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", KINDS)
def test_a_history_in_pieces_equals_one_at_once(model: Any, made: dict[str, Any], name: str) -> None:
    heads = made[name]
    hidden = torch.randn(1, 11, 32, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(11)[None]
    with torch.no_grad():
        whole, past_whole = heads.context(hidden, following=ids)
        past, parts = None, []
        for a, b in [(0, 4), (4, 5), (5, 11)]:
            part, past = heads.context(hidden[:, a:b], past, following=ids[:, a:b])
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-5, atol=1e-5)
        if heads.uses_history and past_whole.layers:
            again, _ = heads.context(hidden[:, 7:], past_whole.crop(7), following=ids[:, 7:])
            torch.testing.assert_close(again, whole[:, 7:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_laws_along_a_tree_are_those_of_its_paths(made: dict[str, Any], name: str) -> None:
    heads = made[name]
    feature = torch.randn(32, generator=torch.Generator().manual_seed(1))
    numbers = np.random.default_rng(0)
    parents = [int(numbers.integers(max(-1, i - 4), i)) for i in range(30)]
    tree = DraftTree(numbers.choice(SOME, 30).astype(np.int32), np.int32(parents))
    assert tree.depths().max() > heads.num_heads
    with torch.no_grad():
        _, past = heads.context(torch.randn(1, 5, 32), following=torch.arange(5)[None])
    laws = HeadLaws(heads, feature, 4, past=past)(tree)
    for node in range(-1, len(tree)):
        tokens = [4, *tree.tokens[tree.path_to(node)].tolist()]
        if len(tokens) > heads.num_heads:
            assert (laws[node + 1] == -np.inf).all()
            continue
        with torch.no_grad():
            state = feature[None]
            for i, token in enumerate(tokens):
                state, logits = heads.step(i, state, torch.tensor([token]), past)
        np.testing.assert_allclose(laws[node + 1], torch.log_softmax(logits[0].double(), -1).numpy(), atol=1e-5)


def test_losses_are_the_definitions(model: Any, made: dict[str, Any]) -> None:
    for name in ("clover", "mlp, some ids"):
        heads = made[name]
        ids = np.random.default_rng(4).choice([*SOME, 0, 4, 6], 20).tolist()
        text = read_text(model, ids, length=10, progress=False)
        batch, places = Batch(text.ids, text.hidden), torch.tensor([0, 3, 5])
        with torch.no_grad():
            rollout = heads.rollout(batch, places)
        n = heads.num_heads
        flat = [z.flatten(0, 1).double().numpy() for z in rollout.logits]
        order = heads.vocabulary.ids.tolist() if heads.vocabulary is not None else list(range(97))
        at = [(b, t) for b in range(2) for t in places.tolist()]
        wanted = [[text.ids[b, t + 2 + i].item() for b, t in at] for i in range(n)]
        wanted = [[order.index(y) if y in order else -1 for y in row] for row in wanted]
        weight = model.lm_head.weight.detach().double().numpy()[order]
        goals = [[weight @ text.hidden[b, t + 1 + i].double().numpy() for b, t in at] for i in range(n)]
        args = (heads, batch, places, rollout)
        near = {"rel": 2e-4, "abs": 1e-5}
        for decay in (1.0, 0.5):
            plain = NextTokenLoss(decay=decay)(*args)
            assert float(plain) == pytest.approx(slow.next_token_loss(flat, wanted, decay), **near)
            distill = DistillLoss(decay=decay)(*args)
            assert float(distill) == pytest.approx(slow.distill_loss(flat, goals, decay), **near)
        both = (NextTokenLoss() + 0.5 * DistillLoss())(*args)
        assert float(both) == pytest.approx(float(NextTokenLoss()(*args) + 0.5 * DistillLoss()(*args)), **near)
        adversary = AdversarialLoss(heads, hidden=5, seed=2)
        w = {k: v.double().numpy() for k, v in adversary.discriminator.state_dict().items()}
        odds = np.array([[slow.discriminator(slow.softmax(z), w) for z in row] for row in flat])
        assert float(adversary(*args).detach()) == pytest.approx(np.log1p(np.exp(-odds)).mean(), **near)
        if name == "clover":
            gaps = [slow.smooth_l1(rollout.states[i].numpy(), text.hidden[:, places + 1 + i].numpy()) for i in range(n)]
            assert float(HiddenLoss()(*args)) == pytest.approx(sum(gaps), **near)


def test_the_discriminator_learns_in_turn(model: Any, made: dict[str, Any]) -> None:
    heads = made["block"]
    text = read_text(model, np.random.default_rng(5).integers(0, 97, 80).tolist(), length=20, progress=False)
    batch, places = Batch(text.ids, text.hidden), torch.arange(12)
    with torch.no_grad():
        rollout = heads.rollout(batch, places)
    adversary = AdversarialLoss(heads, lr=0.01)
    before = float(adversary(heads, batch, places, rollout).detach())
    for _ in range(60):
        adversary.prepare(heads, batch, places, rollout)
    assert float(adversary(heads, batch, places, rollout).detach()) > before + 1  # it tells the heads' laws apart


class Recorder(HeadDrafter):
    """Keeps what the loop shows."""

    shown: list[tuple[list[int], torch.Tensor | None, list[torch.Tensor]]]

    def fork(self) -> Recorder:
        made = Recorder(self.heads, builder=self.builder)
        made.shown = self.shown
        made.features = made._track._features  # type: ignore[attr-defined]
        return made

    def propose(self, ctx: Context, budget: int) -> Any:
        self._track.feature(ctx)
        self.shown.append((ctx.tokens.tolist(), ctx.hidden, list(self._track._features)))
        return super().propose(ctx, budget)


@pytest.mark.parametrize("kind", ["same", "native"])
def test_the_loop_shows_every_committed_row_once(model: Any, made: dict[str, Any], kind: str) -> None:
    heads = made["clover"]
    drafter = Recorder(heads, builder=Eagle2Tree(depth=3, top_k=3))
    drafter.shown = []
    target = model
    if kind == "native":
        from gramcore.model import Decoder

        target = Decoder.from_module(model)
    prompts = [list(range(3, 14)), [5], [7, 9, 7]]
    result = generate(target, prompts, drafter=drafter, policy=FixedLength(8), max_new_tokens=14, eos_token_id=())
    assert result.stats.steps > 3
    assert len(drafter.shown) > 10
    for tokens, hidden, features in drafter.shown:
        assert len(features) == len(tokens) - 1 or (len(tokens) == 1 and not features)
        if not features:
            continue
        with torch.no_grad():
            states = model(torch.tensor([tokens[:-1]]), output_hidden_states=True).hidden_states[-1]
            whole = heads.context(states.float(), following=torch.tensor([tokens[1:]]))[0][0]
        torch.testing.assert_close(torch.stack(features), whole, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(hidden, states[0, -1], rtol=1e-3, atol=1e-3)


BUILDERS = [ChainTree(depth=9), StaticTree(), OptTree(depth=9, threshold=0.0), Eagle2Tree(depth=9, top_k=3)]


@pytest.mark.parametrize("name", KINDS)
def test_text_is_that_of_plain_decoding(model: Any, made: dict[str, Any], name: str) -> None:
    prompts = [np.random.default_rng(s).integers(0, 97, 3 + 4 * s).tolist() for s in range(3)]
    for law in ({}, {"temperature": 0.8, "seed": 5}):
        plain = generate(model, prompts, max_new_tokens=20, eos_token_id=(), **law).sequences
        for builder in BUILDERS[2:] if law else BUILDERS:
            drafter = HeadDrafter(made[name], builder=builder)
            fast = generate(
                model, prompts, drafter=drafter, policy=FixedLength(9), max_new_tokens=20, eos_token_id=(), **law
            )
            assert fast.sequences == plain
            assert fast.stats.drafted > 0


@pytest.mark.parametrize("name", ["mlp", "clover, some ids", "block"])
@pytest.mark.parametrize(
    "builder",
    [
        ChainTree(depth=9, sample=True),
        RsdConstantTree(branching=(2, 2, 1, 1)),
        RsdStochasticTree(width=2, depth=9),
        GreedyTailTree(branching=(3, 1, 1, 1)),
    ],
    ids=lambda b: type(b).__name__,
)
def test_random_trees_end_at_the_last_head_and_carry_its_laws(made: dict[str, Any], name: str, builder: Any) -> None:
    heads = made[name]
    drafter = HeadDrafter(heads, builder=builder)
    state = torch.randn(1, 32, generator=torch.Generator().manual_seed(2))
    drafter.observe_hidden(state)
    text = np.int32([4, 7])
    for seed in range(5):
        tree = drafter.propose(Context(text, 2, Sampling(0.8, top_k=6), CounterRng(seed), state[0]), 30)
        tree.check(97)
        assert tree.depths().max() == heads.num_heads
        with torch.no_grad():
            _, z = heads.step(0, heads.context(state[None])[0][0], torch.tensor([7]))
        ids = SOME if "some" in name else list(range(97))
        law = np.zeros(97)
        law[ids] = warp(z[0].double().tolist(), 0.8, 6, 1.0, 0.0)
        np.testing.assert_allclose(np.exp(tree.logq[0]), law, atol=1e-5)


def test_rollback_forgets_and_fork_starts_empty(made: dict[str, Any]) -> None:
    states = torch.randn(9, 32, generator=torch.Generator().manual_seed(3))
    text = np.arange(10, dtype=np.int32)

    def draft(drafter: HeadDrafter, tokens: np.ndarray) -> list[int]:
        ctx = Context(tokens, 1, Sampling(), CounterRng(0), states[len(tokens) - 2])
        return drafter.propose(ctx, 12).tokens.tolist()

    for name in ("clover", "clover flat", "mlp"):
        once, twice = HeadDrafter(made[name]), HeadDrafter(made[name])
        once.observe_hidden(states[:5])
        twice.observe_hidden(states[:8])
        twice.observe(text[:9])
        twice.rollback(3)
        assert draft(once, text[:6]) == draft(twice, text[:6])
        for d in (once, twice):
            d.observe_hidden(states[5:7])
        assert draft(once, text[:8]) == draft(twice, text[:8])
        twice.rollback(100)
        ctx = Context(text[:1], 1, Sampling(), CounterRng(0), None)
        assert len(twice.propose(ctx, 5)) == len(once.fork().propose(ctx, 5)) == 0


def test_composition_and_refusals(model: Any, made: dict[str, Any]) -> None:
    prompt = [3, 4, 5, 6, 7, 8] * 3
    drafter = AdaptiveDrafter(HeadDrafter(made["clover"]), min_match=3)
    fast = generate(model, prompt, drafter=drafter, policy=FixedLength(6), max_new_tokens=24, eos_token_id=())
    assert fast.tokens == generate(model, prompt, max_new_tokens=24, eos_token_id=()).tokens
    head = AcceptanceHead(blocks=[], weight=np.zeros((2, 32)), bias=np.zeros(2))
    with pytest.raises(ValueError, match="builder must not ask"):
        HeadDrafter(made["mlp"], builder=ChainTree(stop=AcceptanceHeadStop(head)))
    with pytest.raises(TypeError, match="attached to a model"):
        HeadDrafter(MLPSpeculator(hidden_size=4, vocab_size=9))
    with pytest.raises(ValueError, match=r"output layer of shape \(97, 16\)"):
        MLPSpeculator(hidden_size=16, vocab_size=97).attach(model)
    with pytest.raises(ValueError, match="num_heads must be in"):
        Koala(hidden_size=8, vocab_size=9, num_heads=0)
    with pytest.raises(ValueError, match=r"multiple of 2 \* num_heads"):
        Clover(hidden_size=12, vocab_size=9, attention_heads=5)
