"""The model's own samples follow its law, and repeat for a seed."""

from __future__ import annotations

import pytest
import torch
from gramcore.quant import quantize_, sample_texts
from transformers import LlamaConfig, LlamaForCausalLM


def chi_square_limit(freedom: int) -> float:
    """Exceeded with probability 1e-6 (Wilson and Hilferty's cube of a normal variable)."""
    share = 2 / (9 * freedom)
    return freedom * (1 - share + 4.7534 * share**0.5) ** 3


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=5,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config)
    for p in model.parameters():
        p.data += 0.3 * torch.randn_like(p)
    return model


def test_draws_follow_the_models_law() -> None:
    """Chi-square of every token given all before it, up to 4 (5 + 25 + 125) degrees of freedom; false alarms 1e-6."""
    model = tiny()
    ids = torch.cat(sample_texts(model, sequences=40_000, length=4, seed=1))
    assert model.training
    model.eval()
    statistic, freedom = 0.0, 0
    for length in range(1, 4):
        prefixes, which = ids[:, :length].unique(dim=0, return_inverse=True)
        with torch.no_grad():
            law = model(prefixes).logits[:, -1].double().softmax(-1)
        counts = torch.zeros_like(law).index_put_(
            (which, ids[:, length]), torch.ones(len(ids)).double(), accumulate=True
        )
        expected = law * counts.sum(1, keepdim=True)
        enough = (expected >= 5).all(1)
        statistic += float(((counts - expected).square() / expected)[enough].sum())
        freedom += 4 * int(enough.sum())
    assert freedom > 60
    assert statistic < chi_square_limit(freedom)


def test_first_tokens_are_uniform_and_seeds_repeat() -> None:
    """Chi-square with 4 degrees of freedom; false alarms 1e-6."""
    model = tiny()
    first = torch.cat(sample_texts(model, sequences=5000, length=2, seed=7))[:, 0].bincount(minlength=5).double()
    assert float(((first - 1000).square() / 1000).sum()) < chi_square_limit(4)
    one, again, other = (sample_texts(model, sequences=5, length=9, seed=s) for s in (0, 0, 1))
    assert [tuple(b.shape) for b in one] == [(2, 9), (2, 9), (1, 9)]
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], other[0])


def test_samples_calibrate() -> None:
    model = tiny()
    report = quantize_(model, "gptq4", calibration=sample_texts(model, sequences=3, length=8), progress=False)
    assert len(report.layers) == 14
    assert report.error < 0.2


def test_bad_arguments() -> None:
    for bad, message in (
        ({"sequences": 0}, "sequences must be"),
        ({"length": 1}, "length must be"),
        ({"seed": -1}, "seed must be"),
    ):
        with pytest.raises(ValueError, match=message):
            sample_texts(tiny(), **bad)
