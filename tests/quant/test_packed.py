"""Packed weights and their products: every instruction set, odd sizes, all formats, against float64."""

from __future__ import annotations

from typing import Any

import gramcore
import numpy as np
import pytest
import torch
from gramcore import _core
from gramcore.errors import FormatError
from gramcore.quant import BiLLM, PackedTensor, QuantLinear, linear
from gramcore.quant.base import restore
from gramcore.quant.packed import native_ops
from hypothesis import given
from hypothesis import strategies as st

from tests.quant.levels import assert_fused_levels_agree
from tests.reference.quant import dequantize_groups, int8_activation_bound

FORMATS = [
    (bits, group, has_min, exact)
    for bits in range(1, 9)
    for group in ((32, 64, 128, None) if bits in (2, 3, 4, 8) else (96,))
    for has_min in (False, True)
    for exact in (False, True)
]


def make(
    n: int, k: int, bits: int, group: int | None, has_min: bool, exact: bool, seed: int = 0
) -> tuple[PackedTensor, np.ndarray]:
    """A random packed weight and its float64 values."""
    rng = np.random.default_rng(seed)
    group = group or -(-k // 32) * 32
    zero = 1 if bits == 1 else 128 if bits == 8 else (0 if has_min else 1 << (bits - 1))
    codes = rng.integers(0, 1 << bits, (n, k), dtype=np.uint8)
    scales, mins = rng.standard_normal((2, n, -(-k // group))).astype(np.float32)
    if not exact:
        scales, mins = (v.astype(np.float16).astype(np.float32) for v in (scales, mins))
    scales[0] = 0
    q = PackedTensor.pack(
        torch.from_numpy(codes),
        torch.from_numpy(scales),
        torch.from_numpy(mins) if has_min else None,
        bits=bits,
        group_size=group,
        zero=zero,
        exact_scales=exact,
    )
    return q, dequantize_groups(2 * codes if bits == 1 else codes, scales, mins if has_min else None, group, zero)


def check(q: PackedTensor, weight: np.ndarray, x: np.ndarray) -> None:
    exact = x.astype(np.float64) @ weight.T
    y = linear(torch.from_numpy(x), q).numpy()
    assert (np.abs(y - exact) <= int8_activation_bound(x.astype(np.float64), weight)).all()
    y = linear(torch.from_numpy(x), q, activations="float32").numpy()
    # Offsets (min - zero * scale) may cancel against codes, so the bound counts both.
    largest = np.abs(x).astype(np.float64) @ (np.abs(weight) + 2 * np.abs(weight).max()).T
    assert (np.abs(y - exact) <= 2e-6 * largest + 1e-30).all()


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_every_format_equals_float64_within_the_activation_step(fmt: tuple, isa: str) -> None:
    q, weight = make(35, 165, *fmt)
    for m in (1, 3, 17):
        check(q, weight, np.random.default_rng(m).standard_normal((m, 165)).astype(np.float32))


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_every_row_count(bits: int, isa: str) -> None:
    q, weight = make(19, 96, bits, 32, bits == 4, False)
    for m in (*range(1, 18), 64, 129):
        check(q, weight, np.random.default_rng(m).standard_normal((m, 96)).astype(np.float32))


@pytest.mark.parametrize(("n", "k"), [(1, 1), (1, 31), (15, 33), (16, 32), (17, 64), (2, 127), (33, 1), (5, 257)])
def test_odd_sizes(n: int, k: int, isa: str) -> None:
    for fmt in ((4, 32, True, False), (4, 128, False, True), (8, None, False, False)):
        q, weight = make(n, k, *fmt)
        check(q, weight, np.random.default_rng(k).standard_normal((3, k)).astype(np.float32))


@pytest.mark.parametrize(
    "fmt",
    [(4, 32, True, False), (4, 128, False, False), (8, 32, False, False), (3, 64, True, True), (1, 96, True, False)],
)
@pytest.mark.parametrize("activations", ["int8", "float32"])
def test_a_row_does_not_depend_on_its_neighbours(fmt: tuple, activations: str, isa: str, restore_threads: None) -> None:
    q, _ = make(70, 320, *fmt)
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((150, 320)).astype(np.float32))
    whole = linear(x, q, activations=activations)
    for rows in (slice(0, 1), slice(3, 5), slice(5, 13), slice(16, 33), slice(140, 150)):
        assert torch.equal(linear(x[rows], q, activations=activations), whole[rows])
    gramcore.set_num_threads(1)
    assert torch.equal(linear(x, q, activations=activations), whole)


@pytest.mark.parametrize(("bits", "rows"), [(4, 20), (4, 28), (1, 1), (1, 2), (1, 20), (1, 30), (7, 9), (7, 14)])
def test_levels_with_fused_multiply_add_agree_bit_for_bit(bits: int, rows: int) -> None:
    q, _ = make(40, 200, bits, 32, True, False)
    assert_fused_levels_agree(q, rows)


@pytest.mark.parametrize(
    "fmt", [(4, 32, True, False), (4, None, False, False), (3, 96, True, True), (8, 32, True, True)]
)
@pytest.mark.parametrize("rows", [5, 8, 14, 16, 17, 24, 31, 40, 50])
def test_levels_agree_where_kernels_take_several_panels_and_columns_in_turn(fmt: tuple, rows: int) -> None:
    q, _ = make(83, 1300, *fmt)
    assert_fused_levels_agree(q, rows)


def test_unpack_and_save_round_trip_exactly() -> None:
    for fmt in FORMATS:
        q, weight = make(18, 70, *fmt)
        codes, scales, mins = q.unpack()
        again = PackedTensor.pack(
            codes, scales, mins, bits=q.bits, group_size=q.group_size, zero=q.numbers[4], exact_scales=fmt[3]
        )
        assert torch.equal(again.packed, q.packed)
        np.testing.assert_allclose(q.dequantize().numpy(), weight, rtol=1e-6, atol=1e-6)
        assert torch.equal(restore(q.meta(), q.buffers()).dequantize(), q.dequantize())


def test_rows_are_rows_of_the_dequantised_table() -> None:
    q, _ = make(50, 70, 8, 32, False, False)
    ids = torch.tensor([[0, 49, 3], [3, 7, 16]])
    assert torch.equal(q.rows(ids), q.dequantize()[ids])
    assert q.rows(torch.empty(0, dtype=torch.int64)).shape == (0, 70)
    for bad in (-1, 50):
        with pytest.raises(IndexError, match=r"ids must be in \[0, 50\)"):
            q.rows(torch.tensor([bad]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_bias_and_leading_dimensions(dtype: torch.dtype) -> None:
    q, weight = make(20, 64, 4, 32, True, False)
    x = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    bias = torch.arange(20.0)
    y = linear(x, q, bias)
    assert y.dtype == dtype
    assert y.shape == (2, 3, 20)
    assert torch.equal(y, (linear(x.float(), q, bias)).to(dtype))
    exact = x.double().numpy() @ weight.T + bias.numpy()
    assert np.abs(linear(x.float(), q, bias).numpy() - exact).max() < 0.02 * np.abs(exact).max()


def test_strided_input_and_empty_input() -> None:
    q, _ = make(20, 64, 4, 32, True, False)
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0)).T
    assert torch.equal(linear(x, q), linear(x.contiguous(), q))
    assert linear(torch.empty(0, 64), q).shape == (0, 20)


def test_nan_and_infinity_stay_in_their_row(isa: str) -> None:
    q, _ = make(20, 96, 4, 32, True, False)
    x = torch.randn(4, 96, generator=torch.Generator().manual_seed(0))
    clean = linear(x, q)
    x[1, 40], x[2, 95] = float("nan"), float("-inf")
    y = linear(x, q)
    assert y[1:3, 1:].isnan().all()
    assert torch.equal(y[[0, 3]], clean[[0, 3]])


def test_tiny_huge_and_zero_activations(isa: str) -> None:
    q, weight = make(20, 96, 4, 32, False, True)
    for size in (0.0, 1e-38, 1e-25, 1e25):
        x = torch.randn(2, 96, generator=torch.Generator().manual_seed(0)) * size
        y = linear(x, q).double().numpy()
        exact = x.double().numpy() @ weight.T
        assert np.abs(y - exact).max() <= 0.02 * np.abs(exact).max() + 1e-28


def test_gradients_reach_the_input_and_the_bias() -> None:
    q, weight = make(20, 64, 4, 32, True, False)
    x = torch.randn(3, 64, requires_grad=True)
    bias = torch.zeros(20, requires_grad=True)
    coefficients = torch.randn(3, 20)
    (linear(x, q, bias) * coefficients).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), coefficients.numpy() @ weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(bias.grad, coefficients.sum(0))


def test_fake_kernels_describe_the_real_ones() -> None:
    q, _ = make(20, 64, 4, 32, True, False)
    ops = torch.ops.gramcore
    linear(torch.zeros(1, 64), q)
    x = torch.randn(2, 64)
    torch.library.opcheck(ops.linear_packed.default, (x, q.packed, torch.zeros(20), *q.numbers, True))
    torch.library.opcheck(ops.dequantize_packed.default, (q.packed, *q.numbers))
    torch.library.opcheck(ops.embedding_packed.default, (torch.tensor([1, 2]), q.packed, *q.numbers))


@given(st.integers(1, 40), st.integers(1, 200), st.sampled_from(FORMATS), st.integers(1, 20))
def test_any_size(n: int, k: int, fmt: tuple, m: int) -> None:
    q, weight = make(n, k, *fmt, seed=n)
    check(q, weight, np.random.default_rng(m).standard_normal((m, k)).astype(np.float32))


def test_wrong_arguments_are_named() -> None:
    q, _ = make(20, 64, 4, 32, True, False)
    with pytest.raises(ValueError, match="x must have 64 columns, got shape"):
        linear(torch.zeros(2, 63), q)
    with pytest.raises(TypeError, match="x must be float32, bfloat16 or float16, got"):
        linear(torch.zeros(2, 64, dtype=torch.float64), q)
    with pytest.raises(ValueError, match="activations must be one of int8, float32, got 'int4'"):
        linear(torch.zeros(2, 64), q, activations="int4")
    codes, scales = torch.zeros(2, 32, dtype=torch.uint8), torch.zeros(2, 1)
    with pytest.raises(ValueError, match="zero must be 128 for 8-bit codes, got 0"):
        PackedTensor.pack(codes, scales, bits=8, group_size=32, zero=0)
    with pytest.raises(ValueError, match="zero must be 1 for 1-bit codes"):
        PackedTensor.pack(codes, scales, bits=1, group_size=32, zero=0)
    with pytest.raises(ValueError, match=r"bits must be in \[1, 8\], got 9"):
        PackedTensor.pack(codes, scales, bits=9, group_size=32, zero=0)
    with pytest.raises(ValueError, match="group_size must be 32, 64, 96, 128"):
        PackedTensor.pack(codes, scales, bits=4, group_size=48, zero=0)
    with pytest.raises(ValueError, match="scales must have 2 elements, got 3"):
        PackedTensor.pack(codes, torch.zeros(3, 1), bits=4, group_size=32, zero=0)
    with pytest.raises(ValueError, match="codes must be below 16, got 200"):
        PackedTensor.pack(codes + 200, scales, bits=4, group_size=32, zero=0)
    meta = q.meta()
    for wrong in ({"kind": "other"}, {"version": 99}, {"n": 10**9}, {"n": -1}, {"bits": "four"}, {"group_size": None}):
        with pytest.raises(FormatError):
            restore({**meta, **wrong}, q.buffers())
    with pytest.raises(FormatError):
        restore(meta, {})


def test_calls_past_the_dispatcher_give_the_operators_bits() -> None:
    q, _ = make(37, 100, 4, 32, True, False)
    bias = torch.randn(37, generator=torch.Generator().manual_seed(1))
    for dtype in (torch.float32, torch.bfloat16):
        for shape in ((100,), (1, 100), (2, 3, 100), (0, 100)):
            x = torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(dtype)
            for int8 in (True, False):
                want = native_ops().linear_packed(x, q.packed, bias, *q.numbers, int8)
                got = linear(x, q, bias, activations="int8" if int8 else "float32")
                assert got.dtype == dtype
                assert torch.equal(got, want)
    parameter = torch.nn.Parameter(bias)
    with torch.no_grad():
        assert torch.equal(linear(x, q, parameter), linear(x, q, bias))
    assert linear(x, q, parameter).requires_grad


@pytest.mark.filterwarnings("ignore:.torch.jit.script", "ignore:There is a performance drop")
def test_whoever_watches_a_call_sees_the_operator() -> None:
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    q, _ = make(20, 64, 4, 32, False, False)
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(2))
    graph = make_fx(lambda v: linear(v, q))(x)
    assert "linear_packed" in str(graph.code)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert isinstance(linear(mode.from_tensor(x), q), FakeTensor)
    assert torch.equal(torch.func.vmap(lambda v: linear(v, q))(x.unsqueeze(1)).squeeze(1), linear(x, q))


def test_native_products_check_their_arguments() -> None:
    q, _ = make(20, 64, 4, 32, False, False)
    run, x, y = _core.quant.linear, torch.zeros(2, 64), torch.zeros(2, 20)
    for args, error, message in (
        ((q.spec, q.packed, torch.zeros(2, 63), None, y, True), ValueError, "x must have 64 columns, got 63"),
        ((q.spec, q.packed, x, None, torch.zeros(2, 19), True), ValueError, "y must have 40 elements, got 38"),
        ((q.spec, q.packed, x, torch.zeros(19), y, True), ValueError, "bias must have 20 elements, got 19"),
        ((q.spec, q.packed[1:], x, None, y, True), ValueError, "packed must have"),
        ((q.spec, q.packed, x.double(), None, y.double(), True), TypeError, "must be float32 or bfloat16"),
        ((q.spec, q.packed, x, None, y.bfloat16(), True), TypeError, "y must"),
    ):
        with pytest.raises(error, match=message):
            run(*args)


@pytest.mark.parametrize("kind", ["packed", "binary"])
def test_products_compile_as_one_graph(kind: str) -> None:
    w = torch.randn(20, 64, generator=torch.Generator().manual_seed(1))
    q = make(20, 64, 4, 32, False, False)[0] if kind == "packed" else BiLLM(block=64).quantize(w, w)
    layer = QuantLinear(q, torch.ones(20))
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    graphs = []

    def backend(module: torch.fx.GraphModule, _examples: list[torch.Tensor]) -> Any:
        graphs.append(module.code)
        return module.forward

    compiled = torch.compile(layer, backend=backend, fullgraph=True)(x)
    assert torch.equal(compiled, layer(x))
    assert len(graphs) == 1
    assert f"linear_{kind}" in graphs[0]
    compiled.sum().backward()
    torch.testing.assert_close(x.grad, q.dequantize().sum(0).expand(3, 64))
    torch.testing.assert_close(layer.bias.grad, torch.full((20,), 3.0))
