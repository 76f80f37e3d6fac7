"""quant/cuda/linear_table.cu, emulated: products and values of table codes against fp64 twins."""

from __future__ import annotations

import ctypes
import dataclasses

import numpy as np
import pytest
import torch
from gramcore.quant import Fp8, PowerCodec, TableTensor
from gramcore.quant.table import SixBitTensor, bfloat, pack_codes

from tests.cuda.test_apply_bitmask import DTYPES
from tests.cuda.test_linear_packed import Spec, aligned
from tests.reference.quant import look_up


class TableArgs(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "packed", "values", "bias", "y")),
        *((name, ctypes.c_int64) for name in ("rows", "x_stride", "y_stride")),
        ("workspace", ctypes.c_void_p),
        ("workspace_bytes", ctypes.c_int64),
        ("spec", Spec),
        ("dtype", ctypes.c_int32),
    )


class DequantizeArgs(ctypes.Structure):
    _fields_ = (*((name, ctypes.c_void_p) for name in ("packed", "values", "out")), ("spec", Spec))


@dataclasses.dataclass(frozen=True)
class Format:
    """Table codes; ``group`` 0 is one group per row, 16 two scales per block."""

    bits: int
    group: int = 32
    exact: bool = True


FORMATS = [Format(b, g) for b, g in ((2, 32), (3, 96), (4, 32), (5, 128), (6, 16), (7, 64), (8, 0), (8, 16))]
FORMATS += [Format(4, 0, exact=False), Format(6, 16, exact=False)]


class Weight:
    """A random weight of table codes and its float64 values."""

    def __init__(self, n: int, k: int, f: Format) -> None:
        rng = np.random.default_rng(n + k + f.bits)
        self.size = f.group or -(-k // 32) * 32
        codes = rng.integers(0, 1 << f.bits, (n, k), dtype=np.uint8)
        scales = rng.standard_normal((n, -(-k // self.size))).astype(np.float32)
        if not f.exact:
            scales = scales.astype(np.float16).astype(np.float32)
        self.values = bfloat(torch.from_numpy(rng.standard_normal(1 << f.bits).astype(np.float32)))
        packed, self.numbers = pack_codes(
            torch.from_numpy(codes), torch.from_numpy(scales), f.bits, self.size, exact_scales=f.exact
        )
        self.packed, self.shape = aligned(packed), (n, k)
        self.exact = look_up(codes, scales, self.values.numpy(), self.size)


def linear(
    library: ctypes.CDLL,
    w: Weight | TableTensor,
    x: torch.Tensor,
    bias: torch.Tensor | None = None,
    changes: dict[str, int | None] | None = None,
) -> tuple[torch.Tensor, str]:
    """Output and message of the launcher, which may use exactly the workspace it asks for."""
    library.gc_cuda_linear_table_workspace.restype = ctypes.c_int64
    packed = aligned(w.packed)
    y = torch.full((x.shape[0], w.shape[0]), 7.0, dtype=x.dtype)
    args = TableArgs(x.data_ptr(), packed.data_ptr(), w.values.data_ptr())
    args.bias, args.y = None if bias is None else bias.data_ptr(), y.data_ptr()
    args.rows, args.x_stride, args.y_stride = x.shape[0], x.stride(0), y.stride(0)
    args.spec, args.dtype = Spec(*w.numbers), DTYPES.get(x.dtype, 1)
    workspace = aligned(torch.full((library.gc_cuda_linear_table_workspace(ctypes.byref(args)),), 255).byte())
    args.workspace, args.workspace_bytes = workspace.data_ptr(), workspace.numel()
    for name, value in (changes or {}).items():
        setattr(args.spec if hasattr(args.spec, name) else args, name, value)
    status = library.gc_cuda_linear_table(ctypes.byref(args), None)
    message = library.gc_cuda_last_message().decode()
    assert (status == 0) == (message == "")
    return y, message


def check(library: ctypes.CDLL, w: Weight, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    y, message = linear(library, w, x, bias)
    assert message == ""
    rows = x.double().numpy()
    want = rows @ w.exact.T + (0.0 if bias is None else bias.double().numpy())
    # At most one rounding per column of a segment and group and 16 of segments, then one of the result.
    unit = {torch.float32: 2**-23, torch.float16: 2**-11, torch.bfloat16: 2**-8}[x.dtype]
    roundings = min(w.size, w.shape[1]) + w.shape[1] / 16 + 20
    bound = roundings * 2**-24 * (np.abs(rows) @ np.abs(w.exact).T + 1) + unit * np.abs(want)
    assert (np.abs(y.double().numpy() - want) <= bound).all()
    return y


@pytest.mark.parametrize("f", FORMATS, ids=str)
def test_matches_reference(emulated: ctypes.CDLL, f: Format) -> None:
    for rows, n, k in [(1, 1, 1), (1, 17, 33), (2, 33, 1050), (8, 16, 96), (9, 65, 128), (17, 20, 161)]:
        torch.manual_seed(n)
        check(emulated, Weight(n, k, f), torch.randn(rows, k), torch.randn(n))


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_dtypes_and_strides(emulated: ctypes.CDLL, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    for rows in (3, 12):
        check(emulated, Weight(20, 70, Format(6, 16)), torch.randn(rows, 75).to(dtype)[:, 2:72])


@pytest.mark.parametrize("f", [Format(4), Format(6, 16), Format(8, 0)], ids=str)
def test_a_row_has_the_same_bits_beside_any_others(emulated: ctypes.CDLL, f: Format) -> None:
    torch.manual_seed(2)
    w, x = Weight(40, 1100, f), torch.randn(19, 1100)
    whole = check(emulated, w, x)
    for first, count in [(0, 1), (18, 1), (3, 2), (5, 8), (2, 17)]:
        assert torch.equal(linear(emulated, w, x[first : first + count])[0], whole[first : first + count])


def test_close_to_the_processor_operator(emulated: ctypes.CDLL) -> None:
    torch.manual_seed(3)
    weight, x = torch.randn(48, 512), torch.randn(4, 512)
    codes, scales = torch.randint(0, 64, (48, 512), dtype=torch.uint8), torch.rand(48, 32)
    for q in (Fp8().quantize(weight), PowerCodec(bits=4).quantize(weight), SixBitTensor.pack(codes, scales)):
        torch.testing.assert_close(linear(emulated, q, x)[0], q.matmul(x, None, "float32"), rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("f", FORMATS, ids=str)
def test_dequantized_values_are_exact(emulated: ctypes.CDLL, f: Format) -> None:
    w = Weight(37, 77, f)
    out = torch.empty(37, 77)
    args = DequantizeArgs(w.packed.data_ptr(), w.values.data_ptr(), out.data_ptr(), Spec(*w.numbers))
    assert emulated.gc_cuda_dequantize_table(ctypes.byref(args), None) == 0
    np.testing.assert_array_equal(out.numpy(), w.exact.astype(np.float32))


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"bits": 1, "zero": 1}, "bits of table codes must be in [2, 8], got 1"),
        ({"group": 64}, "groups with two scales must have 32 columns, got 64"),
        ({"values": None}, "values must not be null"),
        ({"packed": 8}, "packed must not be null and must be aligned to 16 bytes"),
        ({"x_stride": 39}, "x_stride must be >= k, got 39 (k 40)"),
        ({"rows": 1 << 20}, "x must have 0 to 524280 rows and fewer than 2^36 elements on a CUDA device"),
        ({"workspace_bytes": 527}, "workspace must have 528 bytes, aligned to 16, got 527"),
    ],
)
def test_bad_arguments_are_refused(emulated: ctypes.CDLL, changes: dict[str, int | None], rule: str) -> None:
    y, message = linear(emulated, Weight(5, 40, Format(6, 16)), torch.zeros(2, 40), changes=changes)
    assert message.startswith(rule)
    assert (y == 7).all()


def test_no_rows(emulated: ctypes.CDLL) -> None:
    y, message = linear(emulated, Weight(5, 40, Format(4)), torch.zeros(0, 40))
    assert (y.shape, message) == ((0, 5), "")
