"""Training of heads on a source they can learn: loss, accepted tokens, exactness, resuming, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gramcore.errors import FormatError
from gramcore.spec import ChainTree, FixedLength, FrequencyVocabulary, IidTree, StaticTree, best_choices, generate
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
    evaluate_heads,
    load_heads,
    own_text,
    read_text,
    save_heads,
    train_heads,
)

from .conftest import tiny_model

VOCAB = 41


def source(rng: np.random.Generator, length: int) -> list[int]:
    """A walk along a fixed permutation that jumps to another place every tenth token."""
    order = np.random.default_rng(99).permutation(VOCAB)
    text = [int(rng.integers(VOCAB))]
    while len(text) < length:
        text.append(int(order[text[-1]]) if rng.random() < 0.9 else int(rng.integers(VOCAB)))
    return text


@pytest.fixture(scope="module")
def world() -> dict[str, Any]:
    """A target that has learnt the source, text it has read, and prompts it has not."""
    model = tiny_model(VOCAB, seed=1, initializer_range=0.05)
    ids = torch.tensor([source(np.random.default_rng(s), 48) for s in range(160)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(120):
        part = ids[step % 8 :: 8]
        optimizer.zero_grad()
        model(input_ids=part, labels=part).loss.backward()
        optimizer.step()
    model.eval()
    text = read_text(model, ids.tolist(), length=48, progress=False)
    learn, held_out = text.split(16)
    prompts = [source(np.random.default_rng(1000 + s), 8) for s in range(6)]
    return {"model": model, "text": learn, "held_out": held_out, "prompts": prompts}


def tokens_per_step(world: dict[str, Any], heads: Any) -> float:
    """Of greedy chains on prompts nobody has seen; the text is checked on the way."""
    law = {"max_new_tokens": 24, "eos_token_id": ()}
    plain = generate(world["model"], world["prompts"], **law)
    drafter, target = heads.drafter(builder=ChainTree(depth=heads.num_heads)), heads.target(world["model"])
    fast = generate(target, world["prompts"], drafter=drafter, policy=FixedLength(8), **law)
    assert fast.sequences == plain.sequences
    return fast.stats.tokens_per_step


CASES: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "blockwise": (BlockHeads, {}, lambda h: NextTokenLoss(decay=0.8)),
    "koala": (Koala, {}, lambda h: NextTokenLoss() + 0.1 * AdversarialLoss(h)),
    "mlp": (MLPSpeculator, {}, lambda h: NextTokenLoss()),
    "mlp, distilled": (MLPSpeculator, {"tie_weights": False, "inner_dim": 48}, lambda h: DistillLoss()),
    "clover": (Clover, {"attention_heads": 4}, lambda h: NextTokenLoss()),
    "clover-2": (Clover, {"attention_heads": 4}, lambda h: NextTokenLoss() + 0.5 * HiddenLoss()),
    "eagle": (Eagle, {"attention_heads": 4}, lambda h: HiddenLoss() + 0.5 * NextTokenLoss()),
    "koala over eagle": (
        Eagle,
        {"attention_heads": 4, "layers": 2},
        lambda h: NextTokenLoss() + 0.1 * AdversarialLoss(h),
    ),
    "mlp, half the ids": (MLPSpeculator, {"vocabulary": range(0, VOCAB, 2)}, lambda h: NextTokenLoss()),
}


@pytest.mark.parametrize("name", CASES)
def test_training_lowers_the_loss_and_raises_accepted_tokens(world: dict[str, Any], name: str) -> None:
    kind, settings, loss = CASES[name]
    heads = kind.for_model(world["model"], num_heads=3, **settings)
    untrained = tokens_per_step(world, heads)
    frozen = {k: v.clone() for k, v in world["model"].state_dict().items()}
    report = train_heads(
        world["model"],
        heads,
        world["text"],
        loss=loss(heads),
        steps=150,
        lr=1e-2,
        held_out=world["held_out"],
        progress=False,
    )
    assert all(torch.equal(v, frozen[k]) for k, v in world["model"].state_dict().items())
    assert np.mean(report.losses[-10:]) < 0.8 * np.mean(report.losses[:3])
    assert all(a < b for a, b in zip(report.after["loss"], report.before["loss"], strict=True))
    reached = tokens_per_step(world, heads)
    if "half" in name:
        assert reached > untrained + 0.3
        first = [ranks[0] for ranks in report.after["accuracy"]]
        assert 0.3 < first[0] < 0.7  # half of the target's tokens can be drafted
    else:
        assert reached > untrained + 1
        assert reached > 2.2
    choices = best_choices(np.array(report.after["accuracy"]), 12)
    drafter = HeadDrafter(heads, builder=StaticTree(choices=choices))
    for law in ({}, {"temperature": 1.0, "seed": 2}):
        settings = {"max_new_tokens": 20, "eos_token_id": (), **law}
        plain = generate(world["model"], world["prompts"], **settings)
        fast = generate(world["model"], world["prompts"], drafter=drafter, policy=FixedLength(12), **settings)
        assert fast.sequences == plain.sequences


@pytest.mark.parametrize("chain", [True, False])
def test_sampled_drafts_of_trained_heads_keep_the_law(world: dict[str, Any], chain: bool) -> None:
    # law of the second new token: 400 seeds, chi-square over the 5 likeliest tokens and the rest at 1e-5 per case
    model, ids = world["model"], [*world["prompts"][0], 3]
    heads = MLPSpeculator.for_model(model, num_heads=3)
    train_heads(model, heads, world["text"], steps=60, lr=1e-2, progress=False)
    builder = ChainTree(depth=3, sample=True) if chain else IidTree(branching=(2, 2))
    temperature = 1.5
    with torch.no_grad():
        first = torch.softmax(model(torch.tensor([ids])).logits[0, -1].double() / temperature, 0).numpy()
        after = model(torch.tensor([[*ids, t] for t in range(VOCAB)])).logits[:, -1].double() / temperature
    p = first @ torch.softmax(after, -1).numpy()
    likely = np.argsort(-p)[:5]
    counts = np.zeros(6)
    accepted = 0
    for seed in range(400):
        result = generate(
            model,
            ids,
            drafter=HeadDrafter(heads, builder=builder),
            policy=FixedLength(8),
            temperature=temperature,
            seed=seed,
            max_new_tokens=3,
            eos_token_id=(),
        )
        accepted += result.stats.accepted
        where = np.flatnonzero(likely == result.tokens[1])
        counts[where[0] if len(where) else 5] += 1
    expected = 400 * np.append(p[likely], 1 - p[likely].sum())
    assert float(((counts - expected) ** 2 / expected).sum()) < 30.9  # 5 degrees of freedom, 1 - 1e-5
    assert accepted > 100


def test_accuracy_counts_the_targets_own_tokens(world: dict[str, Any]) -> None:
    model, text = world["model"], world["held_out"]
    heads = BlockHeads.for_model(model, num_heads=2, vocabulary=[0, 4, 9, 20])
    found = evaluate_heads(model, heads, text, positions=45, top=3)
    with torch.no_grad():
        best = model(text.ids).logits.argmax(-1)
        rows = model.lm_head.weight[[0, 4, 9, 20]]
        for d in range(2):
            hits = np.zeros(3)
            for b in range(len(text)):
                for t in range(45):
                    ranked = torch.topk(rows @ text.hidden[b, t], 3).indices.tolist()
                    hits += [[0, 4, 9, 20][r] == best[b, t + 1 + d] for r in ranked]
            np.testing.assert_allclose(found["accuracy"][d], hits / (45 * len(text)), atol=2e-3)


@pytest.mark.parametrize("adversarial", [False, True])
def test_a_run_that_was_cut_goes_on_to_the_same_bits(world: dict[str, Any], tmp_path: Path, adversarial: bool) -> None:
    def run(path: Path | None, cut: bool = False) -> Any:
        heads = BlockHeads.for_model(world["model"], num_heads=2)
        loss = NextTokenLoss() + 0.1 * AdversarialLoss(heads, hidden=4) if adversarial else NextTokenLoss()
        if cut:
            loss = _Cut(loss)
        report = train_heads(
            world["model"], heads, world["text"], loss=loss, steps=12, lr=1e-2, checkpoint=path,
            checkpoint_every=5, held_out=world["held_out"], progress=False,
        )  # fmt: skip
        return heads, report

    whole, report = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "c", cut=True)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    resumed, again = run(tmp_path / "c")
    assert again.losses == report.losses
    assert again.before == report.before
    assert again.after == report.after
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])
    finished, third = run(tmp_path / "c")
    assert third.losses == report.losses
    assert torch.equal(next(iter(finished.parameters())), next(iter(whole.parameters())))


class _Cut(NextTokenLoss):
    """Someone presses Ctrl-C in the eighth step."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.left = inner, 8
        self.prepare, self.state_dict = inner.prepare, inner.state_dict

    @property
    def name(self) -> str:
        return self.inner.name

    def __call__(self, *args: Any) -> torch.Tensor:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return self.inner(*args)


def test_checkpoints_of_others_are_refused(world: dict[str, Any], tmp_path: Path) -> None:
    heads = BlockHeads.for_model(world["model"], num_heads=2)
    args = (world["model"], heads, world["text"])
    train_heads(*args, steps=2, checkpoint=tmp_path / "c", progress=False)
    for change in ({"seed": 1}, {"steps": 3}, {"loss": DistillLoss()}):
        with pytest.raises(ValueError, match="checkpoint must be of this run"):
            train_heads(*args, **{"steps": 2, "checkpoint": tmp_path / "c", "progress": False, **change})
    data = (tmp_path / "c").read_bytes()
    torch.save({"state": {}}, tmp_path / "other")
    for bad in (b"", b"nothing", data[: len(data) // 2], (tmp_path / "other").read_bytes()):
        (tmp_path / "bad").write_bytes(bad)
        with pytest.raises(FormatError, match="checkpoint must be"):
            train_heads(*args, steps=2, checkpoint=tmp_path / "bad", progress=False)


def test_bad_training_is_refused(world: dict[str, Any]) -> None:
    model, heads = world["model"], BlockHeads.for_model(world["model"], num_heads=3)
    short = read_text(model, list(range(8)), length=4, progress=False)
    assert len(short) == 2
    with pytest.raises(ValueError, match="at least 5 tokens for 3 heads, got 4"):
        train_heads(model, heads, short, progress=False)
    with pytest.raises(ValueError, match="ids must hold a sequence of at least length = 9"):
        read_text(model, [1, 2, 3], length=9)
    for name, value in {"steps": 0, "lr": 0.0, "batch": 0, "positions": 0, "warmup": -1, "max_norm": -1.0}.items():
        with pytest.raises(ValueError, match=name):
            train_heads(model, heads, world["text"], progress=False, **{name: value})
    with torch.no_grad():
        heads.heads[0].blocks[0].bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="loss must stay finite, got nan at step 0"):
        train_heads(model, heads, world["text"], progress=False)


def test_own_text_is_the_targets(world: dict[str, Any]) -> None:
    texts = own_text(world["model"], world["prompts"], new_tokens=10, temperature=0.0, batch=4, progress=False)
    plain = generate(world["model"], world["prompts"], max_new_tokens=10, eos_token_id=())
    assert texts == [[*p, *s] for p, s in zip(world["prompts"], plain.sequences, strict=True)]
    one, two = (own_text(world["model"], world["prompts"], new_tokens=9, seed=s, progress=False) for s in (1, 2))
    assert one != two


class Tokenizer:
    def __init__(self, shift: int = 0) -> None:
        self.shift = shift

    def get_vocab(self) -> dict[str, int]:
        return {f"t{i + self.shift}": i for i in range(VOCAB)}


@pytest.mark.parametrize("name", CASES)
def test_files_keep_heads(world: dict[str, Any], tmp_path: Path, name: str) -> None:
    kind, settings, _ = CASES[name]
    heads = kind.for_model(world["model"], num_heads=2, seed=4, **settings)
    path = tmp_path / "h.safetensors"
    save_heads(path, heads, tokenizer=Tokenizer())
    again = load_heads(path, world["model"], tokenizer=Tokenizer())
    assert type(again) is kind
    assert again.settings() == heads.settings()
    for key, value in heads.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert not again.training
    assert tokens_per_step(world, again) == tokens_per_step(world, heads)
    with pytest.raises(ValueError, match="tokenizer must be the one"):
        load_heads(path, world["model"], tokenizer=Tokenizer(1))
    with pytest.raises(ValueError, match="model must have an output layer"):
        load_heads(path, tiny_model(VOCAB + 1))
    assert [p.name for p in tmp_path.iterdir()] == ["h.safetensors"]


def test_damaged_files_are_refused(world: dict[str, Any], tmp_path: Path) -> None:
    from gramcore.spec.weights_file import read_weights, write_weights

    model, path = world["model"], tmp_path / "h"
    save_heads(path, MLPSpeculator.for_model(model, num_heads=2, vocabulary=FrequencyVocabulary([1, 5], VOCAB)))
    data = path.read_bytes()
    for cut in (0, 7, 100, len(data) - 1):
        (tmp_path / "cut").write_bytes(data[:cut])
        with pytest.raises(FormatError):
            load_heads(tmp_path / "cut", model)
    with pytest.raises(FileNotFoundError, match="heads must exist"):
        load_heads(tmp_path / "none", model)
    header, tensors = read_weights(path, "draft heads")

    def forged(change: dict[str, Any], tensor_change: dict[str, Any], settings: dict[str, Any]) -> None:
        kept = {k: v for k, v in {**tensors, **tensor_change}.items() if v is not None}
        head = {**header, "settings": {**header["settings"], **settings}, **change}
        write_weights(tmp_path / "f", "draft heads", {k: v for k, v in head.items() if v is not None}, kept)

    forged({}, {}, {})
    load_heads(tmp_path / "f", model)
    one = next(k for k in tensors if k != "vocabulary")
    nan = tensors[one].copy()
    nan.flat[0] = np.nan
    for change, tensor_change, settings in [
        ({"draft": "gpt"}, {}, {}),
        ({"draft": None}, {}, {}),
        ({"draft": []}, {}, {}),
        ({"settings": None}, {}, {}),
        ({"settings": 3}, {}, {}),
        ({}, {}, {"num_heads": 0}),
        ({}, {}, {"num_heads": 1}),
        ({}, {}, {"num_heads": "2"}),
        ({}, {}, {"inner_dim": 16}),
        ({}, {}, {"hidden_size": 1 << 40}),
        ({}, {}, {"surprise": 1}),
        ({}, {"vocabulary": np.array([1, VOCAB])}, {}),
        ({}, {"vocabulary": np.array([5, 1])}, {}),
        ({}, {"vocabulary": np.array([[1, 5]])}, {}),
        ({}, {"vocabulary": np.array([1.0, 5.0])}, {}),
        ({}, {"vocabulary": None}, {}),
        ({}, {one: None}, {}),
        ({}, {"weight.extra": np.zeros(2, np.float32)}, {}),
        ({}, {one: tensors[one].astype(np.float64)}, {}),
        ({}, {one: nan}, {}),
    ]:
        forged(change, tensor_change, settings)
        with pytest.raises(FormatError):
            load_heads(tmp_path / "f", model)
