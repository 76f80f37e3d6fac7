"""Every codec of the registry: the promises of the protocol, on the rows' own small instances."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from gramcore._registry import Row, rows
from gramcore.quant import Codec, QTensor, QuantLinear, linear
from gramcore.quant.base import restore

ROWS = rows(protocol="codec")


@pytest.fixture(params=ROWS, ids=lambda r: r.name)
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


def weight(n: int = 40, k: int = 160) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(5))


def inputs(k: int = 160) -> torch.Tensor:
    return torch.randn(96, k, generator=torch.Generator().manual_seed(6))


def build(row: Row) -> Codec:
    return row.load()(**row.test_kwargs)


def quantize(row: Row, w: torch.Tensor) -> QTensor:
    codec = build(row)
    return codec.quantize(w, inputs(w.shape[1]) if codec.needs_inputs else None)


def test_error_is_within_what_the_row_declares(row: Row) -> None:
    w = weight()
    q = quantize(row, w)
    assert q.shape == (40, 160)
    assert float((q.dequantize() - w).norm() / w.norm()) <= row.facts["max_error"]
    assert 0.9 < q.bits_per_weight() < 20


def test_default_arguments(row: Row) -> None:
    codec = row.load()()
    q = codec.quantize(weight(), inputs() if codec.needs_inputs else None)
    assert q.dequantize().shape == (40, 160)


def test_quantising_is_deterministic_and_leaves_the_weight_alone(row: Row) -> None:
    w = weight()
    first, second = quantize(row, w), quantize(row, w)
    assert torch.equal(w, weight())
    for name, value in first.buffers().items():
        assert torch.equal(value, second.buffers()[name]), name


def test_product_equals_that_of_the_dequantised_weight(row: Row, isa: str) -> None:
    q = quantize(row, weight())
    x = inputs()[:5]
    exact = x.double() @ q.dequantize().double().T
    bias = torch.arange(40.0)
    for activations in ("int8", "float32"):
        got = linear(x, q, bias, activations=activations)
        bound = product_bound(row, x, q.dequantize(), activations)
        assert ((got.double() - bias.double() - exact).abs() <= bound + 1e-5).all()


def product_bound(row: Row, x: torch.Tensor, w: torch.Tensor, activations: str) -> torch.Tensor:
    """Half a step of every activation, as the row declares it, plus fp32 rounding."""
    rounding = 4e-6 * x.abs().double().sum(1, keepdim=True) * w.abs().max()
    if activations == "float32":
        return rounding
    step = 0.5001 * row.facts.get("activation_step", 1 / 127) * x.abs().amax(1, keepdim=True).double()
    return step * w.abs().sum(1).double() + rounding


@pytest.mark.parametrize(("n", "k"), [(1, 32), (17, 33), (3, 1), (16, 200)])
def test_odd_shapes(row: Row, n: int, k: int) -> None:
    w = weight(n, k)
    q = quantize(row, w)
    assert q.dequantize().shape == (n, k)
    assert linear(torch.ones(2, k), q).shape == (2, n)


def test_state_round_trip(row: Row) -> None:
    q = quantize(row, weight())
    again = restore(q.meta(), {name: b.clone() for name, b in q.buffers().items()})
    assert torch.equal(again.dequantize(), q.dequantize())
    assert q.stored_bytes() == sum(b.numel() * b.element_size() for b in q.buffers().values())


def test_zero_weight_stays_zero(row: Row) -> None:
    q = quantize(row, torch.zeros(8, 64))
    assert torch.equal(q.dequantize(), torch.zeros(8, 64))


def test_module_and_gradient(row: Row) -> None:
    layer = QuantLinear(quantize(row, weight()))
    x = inputs()[:3].requires_grad_()
    layer(x).sum().backward()
    expected = layer.qweight.dequantize().sum(0).expand(3, -1)
    torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_weight_dtypes(row: Row, dtype: torch.dtype) -> None:
    w = weight().to(dtype)
    for name, value in quantize(row, w).buffers().items():
        assert torch.equal(value, quantize(row, w.float()).buffers()[name]), name


def test_strided_weight(row: Row) -> None:
    w = weight(80, 160)[::2]
    assert torch.equal(quantize(row, w).dequantize(), quantize(row, w.contiguous()).dequantize())


BAD: list[tuple[Any, type[Exception], str]] = [
    (torch.full((4, 32), float("nan")), ValueError, "weight must be finite, got nan at row 0, column 0"),
    (torch.full((4, 32), float("inf")), ValueError, "weight must be finite"),
    (torch.zeros(4, 32, dtype=torch.int32), TypeError, "weight must be a floating-point tensor"),
    (torch.zeros(32), ValueError, "weight must be a non-empty matrix"),
    (torch.zeros(0, 32), ValueError, "weight must be a non-empty matrix"),
    ([[1.0]], TypeError, "weight must be a floating-point tensor"),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_weights(row: Row, case: int) -> None:
    w, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        build(row).quantize(w, inputs(32))


def test_calibrated_codecs_ask_for_inputs(row: Row) -> None:
    codec = build(row)
    if not codec.needs_inputs:
        return
    with pytest.raises(ValueError, match="inputs must be given"):
        codec.quantize(weight())
    with pytest.raises(ValueError, match="inputs must have 160 columns"):
        codec.quantize(weight(), inputs(100))


def test_unknown_keywords_are_refused(row: Row) -> None:
    with pytest.raises(TypeError):
        row.load()(**row.test_kwargs, no_such_argument=1)


def test_docstring_has_its_sections(row: Row) -> None:
    text = row.load().__doc__ or ""
    for section in ("Args:", "Raises:", "Differs from paper:", "Example:", "Cost:"):
        assert section in text, section
    assert re.search(r"arXiv:\d{4}\.\d{5}", text)
