"""Argmax, the warped law and sampling of one row, at every instruction-set level."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gramcore._core import spec as native
from gramcore.spec import Sampling, TargetRows

from tests.reference import spec as reference

SIZES = [1, 2, 63, 64, 65, 127, 128, 1000]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n", SIZES)
def test_argmax_takes_the_lowest_of_equals(isa: str, dtype: torch.dtype, n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    for _ in range(20):
        row = torch.randint(-3, 4, (n,), generator=generator).to(dtype)  # many ties
        assert native.argmax_row(row) == int(np.argmax(row.float().numpy()))
    row = torch.randn(n, generator=generator).to(dtype)
    assert native.argmax_row(row) == int(np.argmax(row.float().numpy()))


def test_argmax_skips_nan_and_refuses_empty_support(isa: str) -> None:
    row = torch.full((130,), float("nan"))
    row[129] = -5.0
    assert native.argmax_row(row) == 129
    row[3] = float("inf")
    assert native.argmax_row(row) == 3
    for bad in (torch.full((70,), float("-inf")), torch.full((70,), float("nan"))):
        with pytest.raises(ValueError, match="above -inf"):
            native.argmax_row(bad)
    with pytest.raises(TypeError, match="dtype"):
        native.argmax_row(torch.zeros(3, dtype=torch.int32))
    with pytest.raises(ValueError, match="one dense row"):
        native.argmax_row(torch.zeros(6)[::2])


LAWS = [
    (1.0, 0, 1.0, 0.0),
    (0.7, 5, 1.0, 0.0),
    (1.3, 0, 0.8, 0.0),
    (0.5, 9, 0.6, 0.0),
    (1.0, 0, 1.0, 0.1),
    (2.0, 30, 0.9, 0.05),
    (0.0, 0, 1.0, 0.0),
]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("n", SIZES)
def test_law_matches_the_definition(isa: str, law: tuple[float, int, float, float], n: int) -> None:
    row = torch.randn(n, generator=torch.Generator().manual_seed(n)) * 3
    expected = np.array(reference.warp(row.double().tolist(), *law))
    got = native.probs_row(row, *law)
    assert np.array_equal(got > 0, expected > 0)
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-12)
    assert abs(got.sum() - 1) < 1e-12


def test_levels_agree_to_the_bit() -> None:
    import gramcore

    row = torch.randn(5003, generator=torch.Generator().manual_seed(1)) * 9
    before, results = gramcore.cpu_level(), []
    try:
        for level in gramcore.cpu_info()[1]:
            gramcore.set_cpu_level(level)
            one = [native.prob_row(row, 0.8, 0, 1.0, 0.0, token) for token in range(0, 5003, 300)]
            results.append(np.concatenate([native.probs_row(row, 0.8, 0, 1.0, 0.0), one]))
    finally:
        gramcore.set_cpu_level(before)
    for other in results[1:]:
        assert np.array_equal(other, results[0])


def test_extreme_logits() -> None:
    row = torch.tensor([0.0, float("inf"), float("-inf"), float("inf"), float("nan")])
    assert native.probs_row(row, 1.0, 0, 1.0, 0.0).tolist() == [0, 0.5, 0, 0.5, 0]
    tiny = torch.tensor([1e30, 0.0, -1e30])
    assert native.probs_row(tiny, 1e-3, 0, 1.0, 0.0).tolist() == [1, 0, 0]
    assert native.sample_row(tiny, 1e-6, 0, 1.0, 0.0, 0.9999) == 0
    exact = native.probs_row(torch.zeros(4), 1.0, 0, 0.5, 0.0)  # two of four are the mass asked for, to the bit
    assert exact.tolist() == [0.5, 0.5, 0, 0]


def test_sampling_inverts_the_distribution_function(isa: str) -> None:
    row = torch.randn(300, generator=torch.Generator().manual_seed(2))
    law = (0.9, 40, 0.95, 0.0)
    p = native.probs_row(row, *law)
    edges = np.cumsum(p)
    for u in np.linspace(0, 0.999999, 201):
        token = native.sample_row(row, *law, float(u))
        assert p[token] > 0
        assert edges[token] > u - 1e-9
        assert token == 0 or edges[token] - p[token] <= u + 1e-9


def test_sampled_tokens_follow_the_law() -> None:
    # chi-square over 12 tokens, 20 seeds, threshold at 1e-4 each: false alarm below 0.002 for the whole test
    row = torch.randn(12, generator=torch.Generator().manual_seed(3))
    p = native.probs_row(row, 1.0, 0, 1.0, 0.0)
    draws = 10_000
    for seed in range(20):
        u = [native.uniform(seed, i, 0) for i in range(draws)]
        counts = np.bincount([native.sample_row(row, 1.0, 0, 1.0, 0.0, x) for x in u], minlength=12)
        chi2 = float(((counts - draws * p) ** 2 / (draws * p)).sum())
        assert chi2 < 37.4  # 1 - 1e-4 quantile of chi-square with 11 degrees of freedom


def test_uniform_is_a_function_of_its_names() -> None:
    assert native.uniform(1, 2, 3) == native.uniform(1, 2, 3)
    values = {native.uniform(s, p, r) for s in range(5) for p in range(5) for r in range(5)}
    assert len(values) == 125
    assert all(0 <= v < 1 for v in values)


def test_weights_are_checked() -> None:
    assert native.sample_weights(np.array([0.0, 2.0, 0.0]), 0.999) == 1
    for bad in (np.zeros(3), np.array([np.nan, 1.0]), np.array([-1.0, 2.0]), np.zeros(0)):
        with pytest.raises(ValueError):
            native.sample_weights(bad, 0.5)


@pytest.mark.parametrize(
    "bad", [{"temperature": -1}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.1}, {"min_p": 2}, {"temperature": np.nan}]
)
def test_sampling_is_validated(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Sampling(**bad)  # type: ignore[arg-type]


def test_rows_are_edited_once_and_on_demand() -> None:
    seen: list[int] = []

    def edit(index: int, row: torch.Tensor) -> torch.Tensor:
        seen.append(index)
        return -row

    rows = TargetRows(torch.arange(12.0).reshape(3, 4), Sampling(), edit)
    assert rows.argmax(1) == 0
    assert rows.argmax(1) == 0
    assert seen == [1]


@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.5, 0.77, 0.999])
def test_nucleus_with_many_ties_takes_the_lowest_ids(top_p: float) -> None:
    row = torch.randint(-4, 5, (700,), generator=torch.Generator().manual_seed(8)).float() / 8
    expected = np.array(reference.warp(row.double().tolist(), 1.0, 0, top_p, 0.0))
    got = native.probs_row(row, 1.0, 0, top_p, 0.0)
    assert abs(int((got > 0).sum()) - int((expected > 0).sum())) <= 1  # the last one may hang on rounding
    np.testing.assert_array_equal(np.flatnonzero(got)[:50], np.flatnonzero(expected)[:50])
    assert abs(got.sum() - 1) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n", [1, 63, 4095, 4096, 4097, 9001])
def test_the_law_of_one_token_is_that_of_the_whole_row(isa: str, dtype: torch.dtype, n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    row = (torch.randn(n, generator=generator) * 4).to(dtype)
    if n > 63:  # blocks with nothing in them, entries that never count
        row[:4096] = float("-inf")
        row[[5, n - 1]] = float("nan")
        row[7] = 3.0
    for temperature in (1.0, 0.3, 2.5):
        whole = native.probs_row(row, temperature, 0, 1.0, 0.0)
        for token in (0, n // 2, n - 1, int(np.argmax(whole))):
            one = native.prob_row(row, temperature, 0, 1.0, 0.0, token)
            assert one == whole[token]  # to the bit: acceptance and residual speak of one law
    row[n // 3] = float("inf")
    assert native.prob_row(row, 1.0, 0, 1.0, 0.0, n // 3) == 1.0
    with pytest.raises(ValueError, match="above -inf"):
        native.prob_row(torch.full((n,), float("-inf"), dtype=dtype), 1.0, 0, 1.0, 0.0, 0)
