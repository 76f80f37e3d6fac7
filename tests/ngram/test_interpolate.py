"""Interpolation with a neural model: the equation, tuned weights, and transformers.generate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gramcore.ngram import Index, build_index
from gramcore.ngram.interpolate import (
    InfinigramLogitsProcessor,
    Weights,
    held_out_probabilities,
    interpolate,
    tune_weights,
)


def test_weights_minimise_the_held_out_loss() -> None:
    rng = np.random.default_rng(0)
    infgram, neural = rng.random(400), rng.uniform(0.05, 0.6, 400)
    infgram[rng.random(400) < 0.3] = 0
    sparse = rng.random(400) < 0.5
    tuned = tune_weights(infgram, neural, sparse)
    grid = np.linspace(0, 1, 201)[:-1]

    def loss(weights: Weights) -> float:
        return float(-np.log(interpolate(infgram, neural, sparse, weights)).sum())

    best = min(loss(Weights(a, tuned.dense)) for a in grid), min(loss(Weights(tuned.sparse, b)) for b in grid)
    assert loss(tuned) <= min(best) + 1e-6
    with pytest.raises(ValueError, match="neural must be > 0"):
        tune_weights(infgram, np.zeros(400), sparse)
    with pytest.raises(ValueError, match="sparse must be in"):
        Weights(1.5, 0)


def test_held_out_probabilities_and_sparseness(tmp_path: Path) -> None:
    build_index([[1, 2, 3, 1, 2, 4, 5, 6]], tmp_path)
    index = Index(tmp_path)
    probs, sparse = held_out_probabilities(index, [[1, 2, 3], [5, 6]])
    assert probs.tolist() == [2 / 9, 1.0, 0.5, 1 / 9, 1.0]
    assert sparse.tolist() == [False, True, False, False, True]


def test_logits_processor_in_generate(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    build_index([[5, 6, 7, 8, 9], [5, 6, 7, 3]], tmp_path)
    index = Index(tmp_path)
    config = transformers.GPT2Config(
        vocab_size=12, n_positions=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    ids = torch.tensor([[5, 6], [1, 6]])
    processor = InfinigramLogitsProcessor(index, Weights(0.5, 0.25), eos_token_id=0)
    scores = torch.randn(2, 12)
    got = processor(ids, scores).exp().numpy()
    neural = torch.softmax(scores, -1).numpy()
    infgram = np.zeros(12)
    infgram[7] = 1.0
    np.testing.assert_allclose(got, 0.5 * infgram + 0.5 * neural, rtol=1e-5)
    np.testing.assert_allclose(got.sum(1), 1, rtol=1e-5)
    dense = processor(torch.tensor([[6, 7]]), scores[:1]).exp().numpy()
    infgram = np.zeros(12)
    infgram[[3, 8]] = 0.5
    np.testing.assert_allclose(dense[0], 0.25 * infgram + 0.75 * neural[0], rtol=1e-5)
    build_index([[5], [5, 0]], tmp_path / "ends")  # both ways to end count for the one token
    ends = InfinigramLogitsProcessor(Index(tmp_path / "ends"), Weights(1, 0.5), eos_token_id=0)
    probs, sparse = ends.distribution([5], 12)
    assert (probs.tolist(), sparse) == ([1.0] + [0.0] * 11, True)
    unseen = InfinigramLogitsProcessor(index, Weights(1, 1), min_suffix=2)
    np.testing.assert_allclose(unseen(torch.tensor([[1, 6]]), scores[:1]).exp().numpy()[0], neural[0], rtol=1e-5)
    sure = InfinigramLogitsProcessor(index, Weights(1, 1), eos_token_id=0)
    out = model.generate(
        torch.tensor([[5, 6, 7, 8]]),
        attention_mask=torch.ones(1, 4, dtype=torch.int64),
        max_new_tokens=4,
        do_sample=False,
        pad_token_id=0,
        logits_processor=transformers.LogitsProcessorList([sure]),
    )
    assert out[0, 4:].tolist() == [9, 0]
    with pytest.raises(IndexError, match="model's 6 logits"):
        processor(torch.tensor([[5, 6]]), scores[:1, :6])
