"""Weights of table codes: every width and instruction set against float64, and what files and tracers need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gguf
import gramcore
import numpy as np
import pytest
import torch
from gramcore.errors import FormatError
from gramcore.quant import Fp8, GgufTensor, PowerCodec, QuantEmbedding, QuantLinear, linear, packed_from_gguf
from gramcore.quant.base import restore
from gramcore.quant.blocks import BLOCK_TYPES
from gramcore.quant.table import SixBitTensor, TableTensor, bfloat, pack_codes

from tests.quant.levels import assert_fused_levels_agree
from tests.reference.quant import look_up


class AnyTable(TableTensor):
    """A table of the test's own."""

    def meta(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_buffers(cls, meta: Mapping[str, Any], buffers: Mapping[str, torch.Tensor]) -> AnyTable:
        raise TypeError("a table of the tests is not read from files")


def values_of(bits: int) -> torch.Tensor:
    values = bfloat(torch.randn(1 << bits, generator=torch.Generator().manual_seed(bits)))
    if bits == 8:
        values[128:] = -values[:128]
    return values


def make(n: int, k: int, bits: int, group: int, exact: bool = True) -> tuple[AnyTable, np.ndarray]:
    """A random weight and its float64 values; group 0: one scale per row."""
    rng = np.random.default_rng(n + bits)
    size = group or -(-k // 32) * 32
    codes = rng.integers(0, 1 << bits, (n, k), dtype=np.uint8)
    scales = rng.standard_normal((n, -(-k // size))).astype(np.float32)
    if not exact:
        scales = scales.astype(np.float16).astype(np.float32)
    scales[0] = 0
    values = values_of(bits)
    packed = pack_codes(torch.from_numpy(codes), torch.from_numpy(scales), bits, size, exact_scales=exact)
    return AnyTable(*packed, values), look_up(codes, scales, values.numpy(), size)


def check(q: TableTensor, weight: np.ndarray, x: np.ndarray) -> None:
    y = linear(torch.from_numpy(x), q).numpy()
    # At most k / 4 + 3 roundings per group and one per group after that.
    bound = (x.shape[1] + 8) * 2.0**-24 * (np.abs(x).astype(np.float64) @ np.abs(weight).T)
    assert (np.abs(y - x.astype(np.float64) @ weight.T) <= bound + 1e-30).all()


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("group", [16, 32, 96, 0])
def test_every_width_and_group_equals_float64(bits: int, group: int, isa: str) -> None:
    q, weight = make(35, 325, bits, group, exact=bits % 2 == 0)
    np.testing.assert_array_equal(q.dequantize().numpy(), weight.astype(np.float32))
    for m in (1, 2, 3, 17):
        check(q, weight, np.random.default_rng(m).standard_normal((m, 325)).astype(np.float32))


@pytest.mark.parametrize(("n", "k"), [(1, 1), (1, 31), (15, 33), (16, 32), (17, 64), (2, 127), (33, 1), (5, 257)])
def test_odd_sizes(n: int, k: int, isa: str) -> None:
    for bits, group in ((4, 32), (8, 0), (6, 16)):
        q, weight = make(n, k, bits, group)
        codes, scales = q.unpack()
        assert codes.shape == (n, k)
        assert scales.shape == (n, -(-k // (group or 1 << 20)))
        check(q, weight, np.random.default_rng(k).standard_normal((3, k)).astype(np.float32))


def test_every_row_count_gives_rows_the_same_bits(isa: str, restore_threads: None) -> None:
    for bits, group in ((4, 32), (8, 0), (6, 16)):
        q, weight = make(40, 600, bits, group)
        x = np.random.default_rng(1).standard_normal((150, 600)).astype(np.float32)
        whole = linear(torch.from_numpy(x), q)
        check(q, weight, x)
        for rows in (*(slice(0, m) for m in (*range(1, 18), 64, 129)), slice(3, 5), slice(140, 150)):
            assert torch.equal(linear(torch.from_numpy(x[rows]), q), whole[rows])
        gramcore.set_num_threads(1)
        assert torch.equal(linear(torch.from_numpy(x), q), whole)
        gramcore.set_num_threads(0)


def test_levels_with_fused_multiply_add_agree_bit_for_bit() -> None:
    q, _ = make(40, 200, 8, 32)
    assert_fused_levels_agree(q, 9)


def test_unaligned_bytes_and_other_dtypes() -> None:
    q, weight = make(20, 70, 8, 0)
    room = torch.empty(q.packed.numel() + 1, dtype=torch.uint8)
    room[1:] = q.packed
    x = torch.randn(3, 70, generator=torch.Generator().manual_seed(0))
    assert torch.equal(linear(x, AnyTable(room[1:], q.numbers, q.values)), linear(x, q))
    for dtype, unit in ((torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)):
        low = x.to(dtype)
        exact = low.double().numpy() @ weight.T
        bound = unit * np.abs(exact) + 1e-5 * (np.abs(low.double().numpy()) @ np.abs(weight).T)
        assert (np.abs(linear(low, q).double().numpy() - exact) <= bound).all()


@pytest.mark.parametrize("codec", [Fp8(), Fp8(fmt="e5m2"), PowerCodec(bits=4, steps=1)], ids=["e4m3", "e5m2", "power"])
def test_operators_trace_and_carry_gradients(codec: Any) -> None:
    torch.manual_seed(0)
    q = codec.quantize(torch.randn(24, 70))
    x, bias = torch.randn(4, 70, requires_grad=True), torch.randn(24, requires_grad=True)
    args = (x, q.packed, q.values, bias, *q.numbers)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(torch.ops.gramcore.linear_table.default, args, test_utils=checks)
    layer = QuantLinear(q, bias)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    compiled(x).square().sum().backward()
    got, x.grad = x.grad, None
    layer(x).square().sum().backward()
    assert torch.equal(got, x.grad)
    w = q.dequantize()
    torch.testing.assert_close(x.grad, 2 * (x.detach() @ w.T + bias.detach()) @ w, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("codec", [Fp8(), PowerCodec(bits=4, steps=1)], ids=["e4m3", "power"])
def test_embeddings_are_looked_up_in_their_codes(codec: Any) -> None:
    torch.manual_seed(0)
    q = codec.quantize(torch.randn(37, 70))
    ids = torch.tensor([[0, 36, 17], [16, 15, 17]])
    want = q.dequantize()[ids]
    assert torch.equal(q.rows(ids), want)
    assert torch.equal(q.rows(ids.T), want.transpose(0, 1))
    assert q.rows(ids[:0]).shape == (0, 3, 70)
    layer = QuantEmbedding(q)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(ids), want)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    args = (ids, q.packed, q.values, *q.numbers)
    torch.library.opcheck(torch.ops.gramcore.embedding_table.default, args, test_utils=checks)
    for bad in (-1, 37):
        with pytest.raises(IndexError, match=r"ids must be in \[0, 37\), got " + str(bad)):
            q.rows(torch.tensor([bad]))


def test_gguf_six_bit_tensors_keep_their_codes() -> None:
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (20, 2, 210), dtype=np.uint8)
    raw[..., 208:] = np.float16(0.01).reshape(1).view(np.uint8)
    kind = next(t for t in BLOCK_TYPES.values() if t.name == "Q6_K")
    tensor = GgufTensor("t", (20, 512), kind, raw.reshape(-1))
    q = packed_from_gguf(tensor)
    assert isinstance(q, SixBitTensor)
    theirs = gguf.quants.dequantize(raw.reshape(20, -1), gguf.GGMLQuantizationType.Q6_K)
    np.testing.assert_array_equal(q.dequantize().numpy(), theirs)
    np.testing.assert_array_equal(packed_from_gguf(tensor, np.arange(19, -1, -1)).dequantize().numpy(), theirs[::-1])
    check(q, theirs.astype(np.float64), rng.standard_normal((3, 512)).astype(np.float32))
    assert torch.equal(restore(q.meta(), q.buffers()).dequantize(), q.dequantize())
    assert q.stored_bytes() == 32 * 512  # rows padded to 32, 8 bits per weight
    table = QuantEmbedding(q)
    ids = torch.tensor([[19, 0], [7, 19]])
    np.testing.assert_array_equal(table(ids).numpy(), theirs[ids.numpy()])
    assert table(torch.empty(0, dtype=torch.int64)).shape == (0, 512)
    for bad in (20, 31, -1):
        with pytest.raises(IndexError, match="ids must be in"):
            table(torch.tensor([bad]))
    raw[3, 1, 208:] = 255  # a NaN scale
    with pytest.raises(ValueError, match="scales of tensor 't' must be finite"):
        packed_from_gguf(tensor)


def test_state_is_checked() -> None:
    fp8, power = Fp8().quantize(torch.randn(20, 100)), PowerCodec().quantize(torch.randn(20, 100))
    for q, field, value, message in (
        (fp8, "format", "e3m4", "fmt must be one of"),
        (fp8, "n", 400, "packed must be"),
        (fp8, "k", -1, "weight must have at least one row"),
        (power, "exponent", 7.0, "exponent must be in"),
        (power, "exponent", float("nan"), "exponent must be in"),
        (power, "bits", 1, "zero must be|bits must be"),
        (power, "has_min", True, "must have no minima"),
        (power, "group_size", 48, "group_size must be"),
        (power, "version", 1, "version of power tensors must be 2"),
    ):
        with pytest.raises(FormatError, match=message):
            restore({**q.meta(), field: value}, q.buffers())
    with pytest.raises(FormatError, match="packed must be"):
        restore(fp8.meta(), {"packed": fp8.packed[1:]})


def _packed(bits: int) -> tuple[Any, ...]:
    q, _ = make(5, 40, bits, 32)
    return q.packed, q.numbers


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(15), "table must have 16 values, got 15"),
        (torch.full((16,), 1.001), "values of the table must be bfloat16 numbers, got 1.001 at 0"),
    ],
)
def test_bad_tables_are_refused(values: torch.Tensor, message: str) -> None:
    q = AnyTable(*_packed(4), values)
    with pytest.raises(ValueError, match=message):
        q.dequantize()


def test_a_table_of_256_values_must_be_odd() -> None:
    values = values_of(8)
    values[200] = 3.0
    with pytest.raises(ValueError, match="values 128 to 255 of the table must be the first 128 negated, got 3"):
        AnyTable(*_packed(8), values).dequantize()
