"""GPTQ against its definition, and what it is for: smaller output errors than rounding to nearest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gramcore.quant import GPTQ, IntCodec, PackedTensor, linear

from tests.reference.quant import gptq_codes


def gaussian(n: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


def correlated(rows: int, k: int) -> torch.Tensor:
    """Inputs of uneven sizes with neighbours alike."""
    x = gaussian(rows, k, 1)
    return (x + 0.8 * x.roll(1, 1)) * torch.linspace(0.5, 3.0, k)


@pytest.mark.parametrize(
    ("bits", "group", "symmetric"), [(4, 32, False), (2, 32, True), (3, None, False), (8, 64, True)]
)
@pytest.mark.parametrize(("n", "k"), [(6, 70), (3, 31), (1, 1)])
def test_codes_are_those_of_the_definition(bits: int, group: int | None, symmetric: bool, n: int, k: int) -> None:
    w, x = gaussian(n, k), correlated(50, k)  # fewer rows than columns at 70: only damping makes H invertible
    q = GPTQ(bits=bits, group_size=group, symmetric=symmetric, damping=0.05).quantize(w, x)
    codes, scales, mins = q.unpack()
    of = torch.arange(k) // q.group_size
    zero = 1 << (bits - 1) if symmetric else 0
    low = torch.zeros(n, k) if mins is None else mins[:, of]
    args = [a.double().numpy() for a in (w, x, scales[:, of], low)]
    want = gptq_codes(*args, zero, (1 << bits) - 1, 0.05)  # type: ignore[arg-type]
    # fp32 against fp64: a code may flip where a value lies within rounding of the middle of two.
    assert (codes.numpy() != want).mean() <= (0 if n * k < 300 else 2 / (n * k))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_output_error_is_far_below_that_of_rounding(bits: int) -> None:
    # Inputs near a subspace, as those of language models are.
    w, x = gaussian(64, 256), gaussian(1000, 48, 1) @ gaussian(48, 256, 2) + gaussian(1000, 256, 3)
    exact = x @ w.T
    kinds = {"group_size": 64, "symmetric": False, "search": 20}
    plain = IntCodec(bits=bits, **kinds).quantize(w)  # type: ignore[arg-type]
    q = GPTQ(bits=bits).quantize(w, x)
    assert q.bits_per_weight() == plain.bits_per_weight()
    assert float((linear(x, q) - exact).norm()) < 0.6 * float((linear(x, plain) - exact).norm())


def test_the_search_weighs_columns_by_their_inputs() -> None:
    # One column with all the energy: its error must not exceed what the full range gives.
    w, x = gaussian(16, 32), 1e-3 * gaussian(64, 32, 1)
    x[:, 5] += 10
    q = GPTQ(bits=2, group_size=32, symmetric=True).quantize(w, x)
    full = GPTQ(bits=2, group_size=32, symmetric=True, search=0).quantize(w, x)
    error, most = ((p.dequantize() - w)[:, 5].abs() for p in (q, full))
    assert (error <= most + 1e-6).all()
    assert float(error.mean()) < 0.5 * float(most.mean())


def test_degenerate_weights_and_inputs() -> None:
    zeros = GPTQ().quantize(torch.zeros(3, 40), gaussian(8, 40))
    assert torch.equal(zeros.dequantize(), torch.zeros(3, 40))
    # No input at all: rounding to nearest.
    w = gaussian(5, 64)
    nearest = IntCodec(bits=4, group_size=64, symmetric=False).quantize(w)
    blind = GPTQ(search=0).quantize(w, torch.zeros(4, 64))
    assert torch.equal(blind.packed, nearest.packed)
    for scale in (1e-20, 1e20):
        q = GPTQ().quantize(scale * w, gaussian(70, 64, 1))
        assert float((q.dequantize() / scale - w).norm() / w.norm()) < 0.3
    assert isinstance(q, PackedTensor)
    assert np.isfinite(q.dequantize().numpy()).all()


def test_bad_arguments() -> None:
    for make, message in (
        (lambda: GPTQ(bits=9), "bits must be one of 2, 3, 4, 5, 6, 7, 8, got 9"),
        (lambda: GPTQ(group_size=16), "group_size must be 32, 64, 128 or None"),
        (lambda: GPTQ(bits=8), "symmetric must be True for 8 bits"),
        (lambda: GPTQ(search=-1), "search must be in"),
        (lambda: GPTQ(damping=0.0), "damping must be in"),
        (lambda: GPTQ().quantize(torch.zeros(2, 4), torch.full((1, 4), float("inf"))), "inputs must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
