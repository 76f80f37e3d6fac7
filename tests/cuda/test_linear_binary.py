"""quant/cuda/linear_binary.cu, emulated: products of two-plane weights against fp64 twins."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch
from gramcore.quant import BiLLM, BinaryTensor
from gramcore.quant.packed import PackedTensor

from tests.cuda.test_apply_bitmask import DTYPES
from tests.cuda.test_linear_packed import Spec, aligned
from tests.reference.cuda import round_blocks


class BinaryArgs(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "planes", "order", "bias", "y")),
        *((name, ctypes.c_int64) for name in ("rows", "x_stride", "y_stride", "k")),
        ("workspace", ctypes.c_void_p),
        ("workspace_bytes", ctypes.c_int64),
        ("salient", Spec),
        ("plain", Spec),
        ("dtype", ctypes.c_int32),
        ("int8_activations", ctypes.c_int32),
    )


def weight(n: int, k: int, blocks: int, salient: int, plain: int, exact: bool = False) -> BinaryTensor:
    """Random planes over columns in a random order, padding anywhere."""
    g = torch.Generator().manual_seed(n + k)
    order = torch.full((blocks * (salient + plain),), -1, dtype=torch.int32)
    order[torch.randperm(order.numel(), generator=g)[:k]] = torch.randperm(k, generator=g).int()
    planes = []
    for group, minima in ((salient, True), (salient, False), (plain, False), (plain, False)):
        shape = (n, blocks)
        codes = torch.randint(0, 2, (n, blocks * group), dtype=torch.uint8, generator=g)
        scales = torch.rand(shape, generator=g) + 0.1
        mins = torch.randn(shape, generator=g) if minima else None
        part = PackedTensor.pack(codes, scales, mins, bits=1, group_size=group, zero=1, exact_scales=exact)
        planes.append(part.packed)
    return BinaryTensor(torch.cat(planes), order, (n, k, blocks, salient, plain, exact))


def linear(
    library: ctypes.CDLL,
    w: BinaryTensor,
    x: torch.Tensor,
    bias: torch.Tensor | None = None,
    int8: bool = True,
    changes: dict[str, int | None] | None = None,
) -> tuple[torch.Tensor, str]:
    """Output and message of the launcher, which may use exactly the workspace it asks for."""
    library.gc_cuda_linear_binary_workspace.restype = ctypes.c_int64
    n, k, blocks, salient, plain, exact = w.numbers
    planes, order = aligned(w.planes), w.order
    y = torch.full((x.shape[0], n), 7.0, dtype=x.dtype)
    args = BinaryArgs(x.data_ptr(), planes.data_ptr(), order.data_ptr())
    args.bias, args.y = None if bias is None else bias.data_ptr(), y.data_ptr()
    args.rows, args.x_stride, args.y_stride, args.k = x.shape[0], x.stride(0), y.stride(0), k
    args.salient = Spec(n, blocks * salient, 1, salient, 1, True, exact)
    args.plain = Spec(n, blocks * plain, 1, plain, 1, False, exact)
    args.dtype, args.int8_activations = DTYPES.get(x.dtype, 1), int8
    workspace = aligned(torch.full((library.gc_cuda_linear_binary_workspace(ctypes.byref(args)),), 255).byte())
    args.workspace, args.workspace_bytes = workspace.data_ptr(), workspace.numel()
    for name, value in (changes or {}).items():
        setattr(args.plain if name in ("bits", "has_min") else args, name, value)
    status = library.gc_cuda_linear_binary(ctypes.byref(args), None)
    message = library.gc_cuda_last_message().decode()
    assert (status == 0) == (message == "")
    return y, message


def check(
    library: ctypes.CDLL, w: BinaryTensor, x: torch.Tensor, bias: torch.Tensor | None = None, int8: bool = True
) -> torch.Tensor:
    y, message = linear(library, w, x, bias, int8)
    assert message == ""
    there = w.order >= 0
    columns = torch.zeros(x.shape[0], w.order.numel())
    columns[:, there] = x.float()[:, w.order[there].long()]
    rows = round_blocks(columns.numpy()) if int8 else columns.double().numpy()
    # The stored columns, as the planes hold them (whole numbers of magnitudes: exact in fp32 but for the sum of two).
    s1, s2, p1, p2 = (part.dequantize().double() for part in w._parts())
    matrix = torch.cat([s1 + s2, p1 + p2], 1).numpy()
    size = torch.cat([s1.abs() + s2.abs(), p1.abs() + p2.abs()], 1).numpy()
    want = rows @ matrix.T + (0.0 if bias is None else bias.double().numpy())
    unit = {torch.float32: 2**-23, torch.float16: 2**-11, torch.bfloat16: 2**-8}[x.dtype]
    bound = 200 * 2**-24 * (np.abs(rows) @ size.T * 3 + 1) + unit * np.abs(want)
    assert (np.abs(y.double().numpy() - want) <= bound).all()
    return y


SHAPES = [(1, 1, 1, 1, 32, 32), (1, 17, 90, 1, 32, 96), (3, 33, 500, 5, 32, 96), (9, 40, 250, 2, 64, 64)]


@pytest.mark.parametrize("int8", [True, False])
@pytest.mark.parametrize("exact", [True, False])
def test_matches_reference(emulated: ctypes.CDLL, exact: bool, int8: bool) -> None:
    for rows, n, k, *parts in [*SHAPES, (2, 20, 2000, 17, 32, 96)]:
        torch.manual_seed(n)
        check(emulated, weight(n, k, *parts, exact=exact), torch.randn(rows, k), torch.randn(n), int8)


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_dtypes_and_strides(emulated: ctypes.CDLL, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    for rows in (3, 12):
        check(emulated, weight(20, 120, 1, 32, 96), torch.randn(rows, 125).to(dtype)[:, 2:122])


@pytest.mark.parametrize("int8", [True, False])
def test_a_row_has_the_same_bits_beside_any_others(emulated: ctypes.CDLL, int8: bool) -> None:
    torch.manual_seed(2)
    w, x = weight(40, 1100, 9, 32, 96), torch.randn(19, 1100)
    whole = check(emulated, w, x, int8=int8)
    for first, count in [(0, 1), (18, 1), (3, 2), (5, 8), (2, 17)]:
        part = linear(emulated, w, x[first : first + count], int8=int8)[0]
        assert torch.equal(part, whole[first : first + count])


@pytest.mark.parametrize("activations", ["int8", "float32"])
def test_close_to_the_processor_operator(emulated: ctypes.CDLL, activations: str) -> None:
    """Activations are rounded alike, so only the summation order differs."""
    torch.manual_seed(3)
    x = torch.randn(4, 256)
    w = BiLLM().quantize(torch.randn(24, 256), torch.randn(300, 256))
    got = linear(emulated, w, x, int8=activations == "int8")[0]
    torch.testing.assert_close(got, w.matmul(x, None, activations), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("column", [120, -2])
def test_columns_out_of_range_trap(emulated: ctypes.CDLL, column: int) -> None:
    w = weight(5, 120, 1, 32, 96)
    w.order[3] = column
    assert "__trap()" in linear(emulated, w, torch.zeros(2, 120))[1]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"bits": 2}, "planes must be one-bit weights of one number of rows and whole groups, got 2 bits"),
        ({"has_min": 1}, "plain columns must have no minima"),
        ({"order": None}, "order must not be null"),
        ({"planes": 8}, "packed must not be null and must be aligned to 16 bytes"),
        ({"k": 0}, "x must have 1 to 2^31 - 256 columns, got 0"),
        ({"y_stride": 4}, "y_stride must be >= n, got 4 (n 5)"),
        ({"workspace_bytes": 319}, "workspace must have 320 bytes, aligned to 16, got 319"),
    ],
)
def test_bad_arguments_are_refused(emulated: ctypes.CDLL, changes: dict[str, int | None], rule: str) -> None:
    y, message = linear(emulated, weight(5, 120, 1, 32, 96), torch.zeros(2, 120), changes=changes)
    assert message.startswith(rule)
    assert (y == 7).all()


def test_no_rows(emulated: ctypes.CDLL) -> None:
    y, message = linear(emulated, weight(5, 120, 1, 32, 96), torch.zeros(0, 120))
    assert (y.shape, message) == ((0, 5), "")
