"""Stop rules against slow twins, training on worlds whose answer is known, files, and the rules inside the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gramcore.errors import FormatError
from gramcore.spec import (
    AcceptanceHead,
    AcceptanceHeadStop,
    AcceptanceTraces,
    Candidate,
    ChainTree,
    DiscoClassifier,
    DiscoStop,
    FixedLength,
    MinProbStop,
    ModelDrafter,
    acceptance_examples,
    acceptance_loss,
    collect_traces,
    early_exit,
    generate,
    law_features,
    train_acceptance_head,
    train_disco,
    tune_threshold,
)

from tests.reference import spec as slow


def prompt(seed: int = 0) -> list[int]:
    half = np.random.default_rng(seed).integers(0, 97, 15).tolist()
    return half + half


def random_classifier(seed: int, top_k: int = 4) -> DiscoClassifier:
    rng = np.random.default_rng(seed)
    f = top_k + 2
    return DiscoClassifier(
        mean=rng.normal(size=f), scale=rng.random(f) + 0.5, w1=rng.normal(size=(5, f)), b1=rng.normal(size=5),
        w2=rng.normal(size=5), b2=rng.normal(size=1),
    )  # fmt: skip


def random_head(seed: int, width: int, blocks: int = 2) -> AcceptanceHead:
    rng = np.random.default_rng(seed)
    pairs = [(rng.normal(size=(width, width)) / width, rng.normal(size=width)) for _ in range(blocks)]
    return AcceptanceHead(blocks=pairs, weight=rng.normal(size=(2, width)), bias=rng.normal(size=2))


@pytest.mark.parametrize("vocab", [1, 3, 50])
def test_features_are_the_definition(vocab: int) -> None:
    rng = np.random.default_rng(vocab)
    law = rng.dirichlet(np.ones(vocab))
    law[0] = 0 if vocab > 1 else 1
    law /= law.sum()
    with np.errstate(divide="ignore"):
        got = law_features(np.log(law), 3, 5)
    np.testing.assert_allclose(got, slow.disco_features(law.tolist(), 3, 5), rtol=1e-6, atol=1e-7)


def test_classifier_and_head_are_the_definition() -> None:
    classifier, head = random_classifier(0), random_head(1, 6)
    rng = np.random.default_rng(2)
    for _ in range(20):
        x, h = rng.normal(size=6).astype(np.float32), rng.normal(size=6).astype(np.float32)
        t = {k: v.tolist() for k, v in classifier.tensors.items()}
        expected = slow.disco_probability(x.tolist(), **t)
        np.testing.assert_allclose(classifier(x), expected, rtol=1e-5)
        pairs = [(w.tolist(), b.tolist()) for w, b in head.blocks]
        expected = slow.acceptance_probability(h.tolist(), pairs, head.weight.tolist(), head.bias.tolist())
        np.testing.assert_allclose(head(h), expected, rtol=1e-4)
    with pytest.raises(ValueError, match="width 6, got 5"):
        head(np.zeros(5))


def test_loss_is_the_definition() -> None:
    rng = np.random.default_rng(0)
    logits, soft = rng.normal(size=(7, 2)), rng.random(7)
    got = acceptance_loss(torch.from_numpy(logits), torch.from_numpy(soft), 6.0)
    assert float(got) == pytest.approx(slow.acceptance_loss(logits.tolist(), soft.tolist(), 6.0), rel=1e-9)


def test_survival_rule_keeps_its_bounds() -> None:
    head = random_head(3, 4, 0)
    rng = np.random.default_rng(0)
    for low, high, h in [(0, 20, 0.3), (2, 20, 0.3), (3, 5, 0.99), (0, 20, 1.0), (0, 0, 0.5)]:
        rule = AcceptanceHeadStop(head, threshold=h, min_tokens=low, max_tokens=high)
        for _ in range(10):
            states = rng.normal(size=(30, 4))
            length = 0
            while not rule.stop(Candidate(length, np.zeros(1), states[length])):
                length += 1
                if length == 25:
                    break
            p = [float(head(s)) for s in states]
            assert length == slow.specdec_length(p, h, low, high)


def world(rng: np.random.Generator, drafts: int, length: int) -> tuple[AcceptanceTraces, np.ndarray]:
    """Drafts of a two-state chain: easy places are accepted with 0.95, hard ones with 0.35, and persist with 0.8."""
    accept = np.empty((drafts, length))
    for row in accept:
        hard = rng.random() < 0.3
        for j in range(length):
            row[j] = 0.35 if hard else 0.95
            hard = hard if rng.random() < 0.8 else not hard
    features = np.zeros((accept.size, 3), np.float32)
    features[:, 0] = accept.ravel()
    features[:, 2] = np.tile(np.arange(length), drafts)
    return AcceptanceTraces(features, accept.ravel(), np.repeat(np.arange(drafts), length)), accept


@pytest.mark.parametrize("draft_cost", [0.05, 0.2, 0.6])
def test_tuned_threshold_is_the_best_by_enumeration(draft_cost: float) -> None:
    traces, accept = world(np.random.default_rng(1), 60, 6)
    survival = np.ones_like(accept)
    survival[:, 1:] = np.cumprod(accept, 1)[:, :-1]
    for scores in (traces.accept, survival.ravel()):
        threshold, rate = tune_threshold(
            scores, traces, draft_cost=draft_cost, target_cost=lambda rows: 1 + 0.02 * rows, candidates=2000
        )
        rows = [s.tolist() for s in np.asarray(scores).reshape(accept.shape)]
        best = max(
            slow.rate_of_threshold(t, rows, accept.tolist(), draft_cost, lambda rows: 1 + 0.02 * rows)
            for t in [0.0, *np.unique(scores).tolist(), 2.0]
        )
        assert rate == pytest.approx(best, rel=1e-12)
        again = slow.rate_of_threshold(threshold, rows, accept.tolist(), draft_cost, lambda rows: 1 + 0.02 * rows)
        assert again == pytest.approx(best, rel=1e-12)


def test_the_classifier_finds_the_best_policy_of_a_known_world() -> None:
    # The features tell state and place, so a rule is a set of (state, place) at which to stop: the trained classifier
    # with its tuned threshold must come within 1 % of the best of all 2^12 sets.
    traces, accept = world(np.random.default_rng(2), 400, 6)
    tossed = (np.random.default_rng(3).random(len(traces.accept)) < traces.accept) * 1.0
    classifier = train_disco(AcceptanceTraces(traces.features, tossed, traces.step), hidden=8, epochs=150, seed=0)
    scores = classifier(traces.features)
    assert np.corrcoef(scores, traces.accept)[0, 1] > 0.95
    _, rate = tune_threshold(scores, traces, draft_cost=0.3)
    easy = (accept > 0.5).astype(int)
    alive = np.cumsum(np.concatenate([np.ones((400, 1)), np.cumprod(accept, 1)], 1), 1)
    best = 0.0
    for bits in range(2**12):
        stops = np.array([(bits >> i) & 1 for i in range(12)]).reshape(2, 6)[easy, np.arange(6)]
        cut = np.where(stops.any(1), stops.argmax(1), 6)
        best = max(best, alive[np.arange(400), cut].sum() / (1 + 0.3 * np.minimum(cut + 1, 6)).sum())
    assert 0.99 * best <= rate <= best * (1 + 1e-9)
    never = slow.rate_of_threshold(0.0, accept.tolist(), accept.tolist(), 0.3, lambda rows: 1.0)
    assert rate > 1.1 * never


def test_the_head_learns_probabilities() -> None:
    # labels are a known function of the state; weight 1 makes the head calibrated, weight 6 pessimistic
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(4096, 8)).astype(np.float32)
    truth = 1 / (1 + np.exp(-(2 * hidden[:, 0] - np.abs(hidden[:, 1]))))
    soft = (rng.random(4096) < truth).astype(np.float32)
    fair = train_acceptance_head(hidden, soft, blocks=2, rejection_weight=1.0, epochs=40, lr=5e-3)
    wary = train_acceptance_head(hidden, soft, blocks=2, rejection_weight=6.0, epochs=40, lr=5e-3)
    assert np.abs(fair(hidden) - truth).mean() < 0.06
    assert wary(hidden).mean() < fair(hidden).mean() - 0.1
    for bad in [(hidden, soft[:5]), (hidden[0], soft[:8]), (hidden[:0], soft[:0])]:
        with pytest.raises(ValueError, match="hidden must be"):
            train_acceptance_head(*bad)


def test_files_come_back_and_strangers_are_refused(tmp_path: Path) -> None:
    classifier, head = random_classifier(0), random_head(1, 6)
    classifier.save(tmp_path / "c.safetensors")
    head.save(tmp_path / "h.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.safetensors", "h.safetensors"]
    x = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    np.testing.assert_array_equal(DiscoClassifier.load(tmp_path / "c.safetensors")(x), classifier(x))
    np.testing.assert_array_equal(AcceptanceHead.load(tmp_path / "h.safetensors")(x), head(x))
    with pytest.raises(FormatError, match=r"kind 'acceptance_head', got gramcore.spec disco"):
        AcceptanceHead.load(tmp_path / "c.safetensors")
    (tmp_path / "x").write_bytes(b"no such thing")
    with pytest.raises(FormatError, match="safetensors"):
        DiscoClassifier.load(tmp_path / "x")
    from safetensors.numpy import save_file

    def forged(version: str, settings: str, tensors: dict[str, Any]) -> None:
        meta = {"format": "gramcore.spec", "version": version, "kind": "acceptance_head", "settings": settings}
        save_file(tensors, str(tmp_path / "f"), metadata=meta)

    good = {"weight": head.weight, "bias": head.bias}
    for version, settings, tensors, message in [
        ("2", '{"num_blocks": 0}', good, "version"),
        ("1", "{", good, "JSON"),
        ("1", "[]", good, "JSON object"),
        ("1", '{"num_blocks": 3}', good, "num_blocks 3"),
        ("1", '{"num_blocks": 0}', {**good, "bias": np.zeros(3, np.float32)}, r"bias \(2,\)"),
    ]:
        forged(version, settings, tensors)
        with pytest.raises(FormatError, match=message):
            AcceptanceHead.load(tmp_path / "f")


@pytest.mark.parametrize("sampled", [False, True])
def test_traces_are_what_the_target_says(model: Any, sampled: bool) -> None:
    law = {"temperature": 0.7} if sampled else {}
    traces = collect_traces(
        model, early_exit(model, 1), [prompt(0), prompt(1)], depth=4, top_k=5, max_new_tokens=20, **law
    )
    assert traces.features.shape == (len(traces.accept), 7)
    assert set(np.diff(traces.step)) <= {0, 1}
    assert traces.features[:, 6].tolist() == [
        float(i) for rows in traces.chains() for i in range(rows.stop - rows.start)
    ]
    assert ((traces.accept >= 0) & (traces.accept <= 1)).all()
    if not sampled:
        assert set(traces.accept.tolist()) <= {0.0, 1.0}
    same = collect_traces(model, model, [prompt(0)], depth=3, max_new_tokens=12, **law)
    np.testing.assert_allclose(same.accept, 1.0, atol=1e-4)  # the target itself drafts


def test_examples_of_the_target_as_its_own_draft_are_all_accepted(model: Any) -> None:
    answer = generate(model, prompt(0), max_new_tokens=30, temperature=1.0).tokens
    hidden, soft = acceptance_examples(model, model, [(prompt(0), answer)], mixing_ratio=0.5)
    assert hidden.shape == (len(soft), 32)
    assert 5 <= len(soft) <= 25
    np.testing.assert_allclose(soft, 1.0)
    _, other = acceptance_examples(model, early_exit(model, 1), [(prompt(0), answer)], mixing_ratio=0.0)
    assert len(other) == 30
    assert other.min() < 0.9


@pytest.mark.parametrize("sampled", [False, True])
def test_rules_inside_the_loop(model: Any, sampled: bool) -> None:
    draft = early_exit(model, 1)
    traces = collect_traces(model, draft, [prompt(s) for s in range(3)], depth=6, max_new_tokens=30)
    classifier = train_disco(traces, hidden=8, epochs=60)
    threshold, _ = tune_threshold(classifier(traces.features), traces, draft_cost=0.5)
    answers = [(prompt(s), generate(model, prompt(s), max_new_tokens=30).tokens) for s in range(3)]
    head = train_acceptance_head(*acceptance_examples(model, draft, answers), blocks=1, epochs=20)
    law = {"temperature": 0.7, "seed": 3} if sampled else {}
    plain = generate(model, prompt(5), max_new_tokens=40, **law)
    free = generate(
        model, prompt(5), drafter=ModelDrafter(draft, builder=ChainTree(depth=6)), policy=FixedLength(6),
        max_new_tokens=40, **law,
    )  # fmt: skip
    for rule in (DiscoStop(classifier, threshold=threshold), AcceptanceHeadStop(head, min_tokens=1), MinProbStop(0.3)):
        drafter = ModelDrafter(draft, builder=ChainTree(depth=6, stop=rule))
        fast = generate(model, prompt(5), drafter=drafter, policy=FixedLength(6), max_new_tokens=40, **law)
        assert fast.tokens == plain.tokens
        assert fast.stats.drafted < free.stats.drafted


def test_arguments_are_checked() -> None:
    classifier, head = random_classifier(0), random_head(1, 6)
    with pytest.raises(TypeError, match="train_disco"):
        DiscoStop(head)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="train_acceptance_head"):
        AcceptanceHeadStop(classifier)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_tokens"):
        AcceptanceHeadStop(head, min_tokens=3, max_tokens=2)
    with pytest.raises(ValueError, match="threshold"):
        DiscoStop(classifier, threshold=1.5)
    with pytest.raises(ValueError, match="weights must have shapes"):
        DiscoClassifier(mean=[0], scale=[1], w1=[[1.0]], b1=[0], w2=[0], b2=[0])
    with pytest.raises(ValueError, match="one of them"):
        ChainTree(min_prob=0.4, stop=MinProbStop())
