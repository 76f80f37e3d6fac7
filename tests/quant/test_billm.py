"""BiLLM: blocks against their twin, packed products, checked states, errors in order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gramcore.errors import FormatError
from gramcore.quant import BiLLM, linear
from gramcore.quant.base import restore

from tests.reference.quant import billm_block


def gaussian(n: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


def test_billm_block_equals_its_twin() -> None:
    # Uncorrelated inputs of equal size: nothing is carried over, and the salient columns are the large ones.
    w = 0.1 * gaussian(5, 64)
    large = sorted(torch.randperm(64, generator=torch.Generator().manual_seed(3))[:32].tolist())
    w[:, large] += torch.where(w[:, large] >= 0, 2.0, -2.0)
    dense = BiLLM(block=64).quantize(w, torch.eye(64).repeat(4, 1)).dequantize()
    np.testing.assert_allclose(dense.numpy(), billm_block(w.numpy().astype(np.float64), large), rtol=4e-3, atol=4e-4)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (17, 31), (33, 130), (5, 200), (16, 257)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_billm_products_of_any_size(n: int, k: int, dtype: torch.dtype, isa: str) -> None:
    q = BiLLM(block=96).quantize(gaussian(n, k), gaussian(64, k, 1))
    w = q.dequantize()
    assert len(q.order) == q.numbers[2] * 96
    for m in (1, 2, 3, 20):
        x = gaussian(m, k, m).to(dtype)
        exact = x.double() @ w.double().T
        # int8 blocks gather columns from all over the row: the row's largest magnitude bounds every step.
        steps = {"int8": 0.5001 * x.abs().amax(1, keepdim=True).double() / 127, "float32": 0.0}
        for activations, step in steps.items():
            bound = step * w.abs().sum(1).double() + 1e-5 * (x.abs().double() @ w.abs().double().T)
            if dtype == torch.bfloat16:
                bound = bound + exact.abs() / 128
            assert ((linear(x, q, activations=activations).double() - exact).abs() <= bound + 1e-6).all()


def test_billm_rows_are_independent_and_gradients_flow() -> None:
    q = BiLLM().quantize(gaussian(70, 300), gaussian(64, 300, 1))
    x = gaussian(40, 300, 2)
    for activations in ("int8", "float32"):
        whole = linear(x, q, activations=activations)
        for rows in (slice(0, 1), slice(1, 3), slice(3, 8), slice(8, 24)):
            assert torch.equal(linear(x[rows], q, activations=activations), whole[rows])
    x.requires_grad_()
    bias = torch.zeros(70, requires_grad=True)
    linear(x, q, bias).sum().backward()
    torch.testing.assert_close(x.grad, q.dequantize().sum(0).expand(40, 300), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(bias.grad, torch.full((70,), 40.0))


def test_billm_state_is_checked() -> None:
    q = BiLLM(block=64).quantize(gaussian(20, 100), gaussian(64, 100, 1))
    # Whole blocks: two planes, ten bytes per row and block of 128, four bytes of order per column.
    whole = BiLLM().quantize(gaussian(32, 256), gaussian(64, 256, 1))
    assert whole.bits_per_weight() == 2 + 80 / 128 + 32 / 32
    twice = q.order.clone()
    twice[0] = twice[1]
    outside = q.order.clone()
    outside[0] = 100
    for order in (twice, outside, q.order[1:], q.order.long()):
        with pytest.raises(FormatError, match="order must"):
            restore(q.meta(), {**q.buffers(), "order": order})
    with pytest.raises(FormatError, match="packed must be"):
        restore(q.meta(), {**q.buffers(), "planes": q.planes[1:]})
    with pytest.raises(FormatError, match="planes must be"):
        restore(q.meta(), {**q.buffers(), "planes": torch.cat([q.planes, q.planes])})
    ops = torch.ops.gramcore
    args = (torch.zeros(2, 100), q.planes, q.order, torch.zeros(20), *q.numbers, True)
    torch.library.opcheck(ops.linear_binary.default, args, test_utils=("test_schema", "test_faketensor"))


def test_billm_beats_one_bit_and_compensation_helps_the_output() -> None:
    w, x = gaussian(48, 256), gaussian(600, 256, 1) @ (torch.eye(256) + 0.3 * gaussian(256, 256, 2) / 16)
    exact = x @ w.T
    one_bit = w.sign() * w.abs().mean(1, keepdim=True)
    q = BiLLM(block=64).quantize(w, x)
    assert (x @ q.dequantize().T - exact).norm() < 0.8 * (x @ one_bit.T - exact).norm()
    assert 2 < q.bits_per_weight() < 5.5
