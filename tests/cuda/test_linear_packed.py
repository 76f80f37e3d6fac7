"""quant/cuda/linear_packed.cu, emulated: products and rows of packed weights against fp64 twins."""

from __future__ import annotations

import ctypes
import dataclasses

import numpy as np
import pytest
import torch
from gramcore.quant.bipolar import BipolarTensor
from gramcore.quant.packed import PackedTensor

from tests.cuda.test_apply_bitmask import DTYPES
from tests.reference.cuda import round_blocks
from tests.reference.quant import bipolar_activations


class Spec(ctypes.Structure):
    _fields_ = (
        ("n", ctypes.c_int64),
        ("k", ctypes.c_int64),
        ("bits", ctypes.c_int32),
        ("group", ctypes.c_int64),
        ("zero", ctypes.c_int32),
        ("has_min", ctypes.c_bool),
        ("scale", ctypes.c_int32),
    )


class LinearArgs(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "packed", "bias", "y")),
        *((name, ctypes.c_int64) for name in ("rows", "x_stride", "y_stride")),
        ("workspace", ctypes.c_void_p),
        ("workspace_bytes", ctypes.c_int64),
        ("spec", Spec),
        ("dtype", ctypes.c_int32),
        ("activation_bits", ctypes.c_int32),
    )


class GatherArgs(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("packed", "ids", "out")),
        ("rows", ctypes.c_int64),
        ("spec", Spec),
    )


@dataclasses.dataclass(frozen=True)
class Format:
    """A packed format; ``group`` 0 is one group per row."""

    bits: int
    group: int = 32
    minima: bool = False
    exact: bool = False


FORMATS = [
    Format(4),
    Format(8),
    Format(8, 0, exact=True),
    Format(4, 64, minima=True),
    Format(4, 128, minima=True, exact=True),
    Format(3, 32),
    Format(2, 64, minima=True),
    Format(1, 96),
    Format(5, 32, minima=True),
    Format(6, 32),
    Format(7, 128, exact=True),
    Format(8, 32, minima=True),
]


def aligned(t: torch.Tensor) -> torch.Tensor:
    """A copy that starts on a 16-byte boundary, as every allocation on a device does."""
    room = torch.empty(t.numel() + 16, dtype=t.dtype)
    skip = (-room.data_ptr() % 16) // t.element_size()
    return room[skip : skip + t.numel()].view(t.shape).copy_(t)


def weight(n: int, k: int, f: Format, seed: int = 0) -> PackedTensor:
    g = torch.Generator().manual_seed(seed)
    group = f.group or -(-k // 32) * 32
    codes = torch.randint(0, 1 << f.bits, (n, k), dtype=torch.uint8, generator=g)
    shape = (n, -(-k // group))
    scales = (torch.rand(shape, generator=g) + 0.1) / (1 << f.bits)
    mins = torch.randn(shape, generator=g) if f.minima else None
    zero = 1 if f.bits == 1 else 0 if f.minima and f.bits < 8 else 1 << (f.bits - 1)
    return PackedTensor.pack(codes, scales, mins, bits=f.bits, group_size=group, zero=zero, exact_scales=f.exact)


def linear(
    library: ctypes.CDLL,
    w: PackedTensor,
    x: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation_bits: int = 8,
    changes: dict[str, int | None] | None = None,
) -> tuple[torch.Tensor, str]:
    """Output and message of the launcher, which may use exactly the workspace it asks for."""
    library.gc_cuda_linear_packed_workspace.restype = ctypes.c_int64
    packed = aligned(w.packed)
    y = torch.full((x.shape[0], w.shape[0]), 7.0, dtype=x.dtype)
    args = LinearArgs(x.data_ptr(), packed.data_ptr(), None if bias is None else bias.data_ptr(), y.data_ptr())
    args.rows, args.x_stride, args.y_stride = x.shape[0], x.stride(0), y.stride(0)
    args.spec, args.dtype, args.activation_bits = Spec(*w.numbers), DTYPES.get(x.dtype, 1), activation_bits
    workspace = aligned(torch.full((library.gc_cuda_linear_packed_workspace(ctypes.byref(args)),), 255).byte())
    args.workspace, args.workspace_bytes = workspace.data_ptr(), workspace.numel()
    for name, value in (changes or {}).items():
        setattr(args.spec if hasattr(args.spec, name) else args, name, value)
    status = library.gc_cuda_linear_packed(ctypes.byref(args), None)
    message = library.gc_cuda_last_message().decode()
    assert (status == 0) == (message == "")
    return y, message


def check(
    library: ctypes.CDLL, w: PackedTensor, x: torch.Tensor, bias: torch.Tensor | None = None, activation_bits: int = 8
) -> torch.Tensor:
    y, message = linear(library, w, x, bias, activation_bits)
    assert message == ""
    rows = x.float().numpy()
    if activation_bits == 8:
        rows = round_blocks(rows)
    elif activation_bits:
        rows = np.multiply(*bipolar_activations(rows, activation_bits))
    rows, matrix = rows.astype(np.float64), w.dequantize().double().numpy()
    want = rows @ matrix.T + (0.0 if bias is None else bias.double().numpy())
    # Fewer than 64 roundings of partial sums of size at most sum |x| |w|, then one of the result.
    unit = {torch.float32: 2**-23, torch.float16: 2**-11, torch.bfloat16: 2**-8}[x.dtype]
    bound = 32 * 2**-23 * (np.abs(rows) @ np.abs(matrix).T + 1) + unit * np.abs(want)
    assert (np.abs(y.double().numpy() - want) <= bound).all()
    return y


@pytest.mark.parametrize("activation_bits", [8, 0])
@pytest.mark.parametrize("f", FORMATS, ids=str)
def test_matches_reference(emulated: ctypes.CDLL, f: Format, activation_bits: int) -> None:
    for rows, n, k in [(1, 1, 1), (1, 17, 33), (2, 33, 1050), (8, 16, 96), (9, 65, 128), (33, 70, 161)]:
        torch.manual_seed(n)
        check(emulated, weight(n, k, f), torch.randn(rows, k), torch.randn(n), activation_bits)


@pytest.mark.parametrize("activation_bits", range(1, 8))
def test_bipolar_activations(emulated: ctypes.CDLL, activation_bits: int) -> None:
    for f in (Format(1, 96), Format(2, 64, minima=True), Format(4), Format(8, 32, minima=True)):
        for rows, n, k in [(1, 17, 33), (3, 5, 1), (9, 40, 161)]:
            torch.manual_seed(n)
            check(emulated, weight(n, k, f), torch.randn(rows, k), torch.randn(n), activation_bits)


@pytest.mark.parametrize("activation_bits", [1, 3])
def test_bipolar_activations_equal_the_processor_operator(emulated: ctypes.CDLL, activation_bits: int) -> None:
    """Zeros, tiny numbers and NaN included: products are alike but for the order of sums."""
    torch.manual_seed(5)
    w, x = weight(20, 100, Format(2, 32, minima=True)), torch.randn(5, 100)
    x[1], x[2, :32], x[3, 70], x[4, ::2] = 0, 1e-33, float("nan"), 0
    cpu = BipolarTensor(w, activation_bits).matmul(x, None, "int8")
    gpu, message = linear(emulated, w, x, activation_bits=activation_bits)
    assert message == ""
    torch.testing.assert_close(gpu, cpu, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_dtypes_and_strides(emulated: ctypes.CDLL, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    for rows in (3, 12):
        check(emulated, weight(20, 70, Format(4)), torch.randn(rows, 75).to(dtype)[:, 2:72])


@pytest.mark.parametrize("activation_bits", [8, 0])
@pytest.mark.parametrize("f", [Format(4), Format(8, 0), Format(3, 128, minima=True)], ids=str)
def test_a_row_has_the_same_bits_in_every_kernel(emulated: ctypes.CDLL, f: Format, activation_bits: int) -> None:
    torch.manual_seed(2)
    w, x = weight(40, 1100, f), torch.randn(35, 1100)
    tiles = check(emulated, w, x, activation_bits=activation_bits)
    for first, count in [(0, 1), (34, 1), (3, 2), (20, 8), (5, 30)]:
        assert torch.equal(
            linear(emulated, w, x[first : first + count], activation_bits=activation_bits)[0],
            tiles[first : first + count],
        )


def test_close_to_the_processor_operator(emulated: ctypes.CDLL) -> None:
    """Activations are rounded alike, so only the summation order differs."""
    torch.manual_seed(3)
    w, x = weight(48, 512, Format(4)), torch.randn(4, 512)
    cpu = w.matmul(x, None, "int8")
    torch.testing.assert_close(linear(emulated, w, x)[0], cpu, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation_bits", [8, 0])
def test_nan_and_zero_rows(emulated: ctypes.CDLL, activation_bits: int) -> None:
    x = torch.zeros(3, 64)
    x[1, 40] = float("nan")
    x[2, 3] = float("inf")
    y = linear(emulated, weight(5, 64, Format(4)), x, activation_bits=activation_bits)[0]
    assert (y[0] == 0).all()
    assert y[1].isnan().all()
    assert not y[2].isfinite().any()


@pytest.mark.parametrize("f", FORMATS, ids=str)
def test_gathered_rows_are_dequantized_rows(emulated: ctypes.CDLL, f: Format) -> None:
    w = weight(37, 77, f)
    packed, want = aligned(w.packed), w.dequantize()
    ids = torch.tensor([36, 0, 15, 16, 36])
    for chosen, rows in [(None, 37), (ids, 5)]:
        out = torch.empty(rows, 77)
        pointer = None if chosen is None else chosen.data_ptr()
        args = GatherArgs(packed.data_ptr(), pointer, out.data_ptr(), rows, Spec(*w.numbers))
        assert emulated.gc_cuda_gather_packed(ctypes.byref(args), None) == 0
        assert torch.equal(out, want if chosen is None else want[chosen])
    ids[2] = 37
    args.ids = ids.data_ptr()
    assert emulated.gc_cuda_gather_packed(ctypes.byref(args), None) != 0
    assert b"__trap()" in emulated.gc_cuda_last_message()


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"bits": 9}, "bits must be in [1, 8], got 9"),
        ({"activation_bits": 9}, "activation_bits must be in [0, 8], got 9"),
        ({"group": 48}, "group_size must be 32, 64, 96, 128 or 64 (one group per row), got 48"),
        ({"zero": 16}, "zero must be a code, 128 for 8 bits and 1 for one bit, got 16 (4 bits)"),
        ({"n": 0}, "weight must have 1 to 2^31 - 256 rows and columns on a CUDA device, got (0, 40)"),
        ({"packed": 8}, "packed must not be null and must be aligned to 16 bytes"),
        ({"x": None}, "x and y must not be null"),
        ({"x_stride": 39}, "x_stride must be >= k, got 39 (k 40)"),
        ({"y_stride": 4}, "y_stride must be >= n, got 4 (n 5)"),
        ({"dtype": 1}, "x must be float32, bfloat16 or float16, got dtype code 1"),
        ({"workspace_bytes": 159}, "workspace must have 160 bytes, aligned to 16, got 159"),
    ],
)
def test_bad_arguments_are_refused(emulated: ctypes.CDLL, changes: dict[str, int | None], rule: str) -> None:
    y, message = linear(emulated, weight(5, 40, Format(4)), torch.zeros(2, 40), changes=changes)
    assert message == rule
    assert (y == 7).all()


def test_no_rows(emulated: ctypes.CDLL) -> None:
    y, message = linear(emulated, weight(5, 40, Format(4)), torch.zeros(0, 40))
    assert (y.shape, message) == ((0, 5), "")
