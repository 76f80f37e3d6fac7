"""Bipolar weights with bipolar activations: every pair of widths, every level, by counting bits and by dot products."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gramcore.errors import FormatError
from gramcore.quant import BipolarInt, BipolarTensor, PackedTensor, linear
from gramcore.quant.base import restore
from gramcore.quant.schemes import resolve

from tests.quant.levels import assert_fused_levels_agree
from tests.reference.quant import bipolar_activations, bit_plane_product

COUNTED = [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1)]


def gaussian(n: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


def test_products_of_odd_numbers_are_those_of_their_planes() -> None:
    rng = np.random.default_rng(0)
    for w_bits in range(1, 9):
        for x_bits in range(1, 9):
            w = 2 * rng.integers(0, 1 << w_bits, 45) - (1 << w_bits) + 1
            x = 2 * rng.integers(0, 1 << x_bits, 45) - (1 << x_bits) + 1
            assert bit_plane_product(w, x, w_bits, x_bits) == int(w @ x)


@pytest.mark.parametrize("activation_bits", range(1, 8))
@pytest.mark.parametrize("bits", range(1, 9))
def test_products_are_exact_on_rounded_activations(bits: int, activation_bits: int, isa: str) -> None:
    x = gaussian(5, 165, seed=bits)
    codes, scales = bipolar_activations(x.numpy(), activation_bits)
    for group in (32, 128):
        q = BipolarInt(bits=bits, group_size=group, activation_bits=activation_bits).quantize(gaussian(35, 165))
        weight = q.dequantize().double().numpy()
        exact, bound = (codes * scales) @ weight.T, np.abs(codes * scales) @ np.abs(weight).T
        for rows in (1, 2, 5):
            y = linear(x[:rows], q).double().numpy()
            assert (np.abs(y - exact[:rows]) <= 3e-6 * bound[:rows]).all()
    plain = linear(x, q, activations="float32").double().numpy()
    np.testing.assert_allclose(plain, x.double().numpy() @ weight.T, rtol=1e-4, atol=1e-4)


def twins(bits: int, activation_bits: int, has_min: bool, exact: bool, k: int) -> tuple[BipolarTensor, BipolarTensor]:
    """One weight in codes whose bits are counted, and in four-bit codes, which are multiplied."""
    rng = np.random.default_rng(k)
    codes = torch.from_numpy(rng.integers(0, 1 << bits, (37, k), dtype=np.uint8))
    scales, mins = (torch.from_numpy(v) for v in rng.standard_normal((2, 37, -(-k // 32))).astype(np.float32))
    made = []
    for width, values in ((bits, codes), (4, 2 * codes if bits == 1 else codes)):
        inner = PackedTensor.pack(
            values,
            scales,
            mins if has_min else None,
            bits=width,
            group_size=32,
            zero=1 if bits == 1 else 1 << (bits - 1),
            exact_scales=exact,
        )
        made.append(BipolarTensor(inner, activation_bits))
    return made[0], made[1]


@pytest.mark.parametrize(("bits", "activation_bits"), COUNTED)
def test_counting_bits_gives_the_bits_of_dot_products(bits: int, activation_bits: int, isa: str) -> None:
    for k in (1, 31, 64, 97, 300):
        for has_min, exact in ((False, False), (True, False), (True, True)):
            counted, multiplied = twins(bits, activation_bits, has_min, exact, k)
            x = gaussian(35, k, seed=k)
            x[3, k // 2] = float("nan")
            x[4] = 0
            whole = linear(x, counted)
            assert torch.equal(whole.nan_to_num(9.0), linear(x, multiplied).nan_to_num(9.0))
            assert whole[3].isnan().all()
            for rows in (slice(0, 1), slice(5, 7), slice(16, 33)):
                assert torch.equal(linear(x[rows], counted), whole[rows])


@pytest.mark.parametrize(("bits", "activation_bits"), [*COUNTED, (4, 4), (8, 7)])
@pytest.mark.parametrize("rows", [1, 3, 20])
def test_levels_agree_bit_for_bit(bits: int, activation_bits: int, rows: int) -> None:
    q = BipolarInt(bits=bits, activation_bits=activation_bits).quantize(gaussian(40, 200))
    assert_fused_levels_agree(q, rows)


def test_padding_does_not_count_whatever_it_holds(isa: str) -> None:
    counted, _ = twins(1, 2, False, False, 97)
    x = gaussian(3, 97)
    before = linear(x, counted)
    packed = counted.inner.packed.view(3, -1)  # panels of four groups of 64 + 32 bytes; columns 97 .. 127 are padding
    packed[:, 288 + 1 : 288 + 64 : 4] = 0xFF  # column 97 and every fourth
    packed[:, 288 : 288 + 64 : 4] ^= 0xFE  # column 100 and every fourth; 96 stays
    assert torch.equal(linear(x, counted), before)


def test_scheme_names_mean_what_they_say() -> None:
    w, x = gaussian(20, 64), gaussian(3, 64, seed=1)
    for bits in range(1, 9):
        for activation_bits in range(1, 9):
            q = resolve(f"bipolar_w{bits}a{activation_bits}").quantize(w)
            assert (q.bits if isinstance(q, PackedTensor) else q.inner.bits) == bits
            assert isinstance(q, PackedTensor) == (activation_bits == 8)
            assert getattr(q, "activation_bits", 8) == activation_bits
            assert torch.equal(linear(x, restore(q.meta(), q.buffers())), linear(x, q))


def test_more_activation_bits_err_less() -> None:
    w, x = gaussian(64, 256), gaussian(8, 256, seed=1)
    errors = []
    for activation_bits in range(1, 9):
        q = BipolarInt(bits=8, activation_bits=activation_bits).quantize(w)
        errors.append(float((linear(x, q) - x @ w.T).norm() / (x @ w.T).norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.5
    assert errors[-1] < 0.01


def test_gradients_and_fake_kernels() -> None:
    q = BipolarInt(bits=2, activation_bits=2).quantize(gaussian(20, 64))
    x = gaussian(3, 64).requires_grad_()
    linear(x, q, torch.zeros(20)).sum().backward()
    torch.testing.assert_close(x.grad, q.dequantize().sum(0).expand(3, 64))
    op = torch.ops.gramcore.linear_bipolar.default
    torch.library.opcheck(op, (x.detach(), q.inner.packed, torch.zeros(20), *q.inner.numbers, 2))
    half = linear(x.detach().half(), q)
    assert half.dtype == torch.float16
    assert torch.equal(half, linear(x.detach().half().float(), q).half())


def test_wrong_bits_are_named() -> None:
    with pytest.raises(ValueError, match="activation_bits"):
        BipolarInt(activation_bits=9)
    q = BipolarInt(bits=1, activation_bits=1).quantize(gaussian(20, 64))
    with pytest.raises(ValueError, match="activation_bits"):
        BipolarTensor(q.inner, 8)
    with pytest.raises(FormatError, match="activation_bits"):
        restore({**q.meta(), "activation_bits": 0}, q.buffers())
    with pytest.raises(ValueError, match=r"bits of activations must be in \[1, 8\], got 9"):
        torch.ops.gramcore.linear_bipolar(gaussian(1, 64), q.inner.packed, None, *q.inner.numbers, 9)
