"""grammar/cuda/apply_bitmask.cu, emulated, against its twin."""

from __future__ import annotations

import ctypes
import random

import numpy as np
import pytest
import torch

from tests.reference import cuda as reference

DTYPES = {torch.float32: 0, torch.bfloat16: 2, torch.float16: 3}  # torch dtype -> gramcore::DType


class Args(ctypes.Structure):
    _fields_ = (
        ("logits", ctypes.c_void_p),
        ("bitmask", ctypes.c_void_p),
        ("row_index", ctypes.c_void_p),
        ("num_rows", ctypes.c_int64),
        ("vocab_size", ctypes.c_int64),
        ("logits_stride", ctypes.c_int64),
        ("bitmask_stride", ctypes.c_int64),
        ("dtype", ctypes.c_int32),
    )


def launch(
    library: ctypes.CDLL,
    logits: torch.Tensor,
    bitmask: torch.Tensor,
    row_index: torch.Tensor | None = None,
    changes: dict[str, int | None] | None = None,
) -> str:
    """Runs the kernel in place, with some fields of the arguments changed; returns the launcher's message."""
    args = Args(
        logits.data_ptr(),
        bitmask.data_ptr(),
        None if row_index is None else row_index.data_ptr(),
        logits.shape[0] if row_index is None else len(row_index),
        logits.shape[1],
        logits.stride(0),
        bitmask.stride(0),
        DTYPES.get(logits.dtype, 1),
    )
    for name, value in (changes or {}).items():
        setattr(args, name, value)
    status = library.gc_cuda_apply_bitmask(ctypes.byref(args), None)
    message = library.gc_cuda_last_message().decode()
    assert (status == 0) == (message == "")
    return message


def random_bitmask(rows: int, vocab: int, density: float, seed: int) -> torch.Tensor:
    """int32 words; the bits past the vocabulary are random too."""
    generator = np.random.default_rng(seed)
    words = (vocab + 31) // 32
    bits = generator.random((rows, words, 32)) < density
    packed = (bits * (np.uint64(1) << np.arange(32, dtype=np.uint64))).sum(-1).astype(np.uint32)
    return torch.from_numpy(packed.view(np.int32))


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("vocab", [1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 257, 4096, 8191, 8200, 16390])
def test_matches_reference(emulated: ctypes.CDLL, dtype: torch.dtype, vocab: int) -> None:
    for seed, density in enumerate([0.0, 0.05, 0.5, 0.95, 1.0]):
        torch.manual_seed(seed)
        logits = torch.randn(3, vocab).to(dtype)
        bitmask = random_bitmask(3, vocab, density, seed)
        expected = reference.apply_bitmask(logits.float().numpy(), bitmask.numpy().view(np.uint32), [0, 1, 2])
        assert launch(emulated, logits, bitmask) == ""
        np.testing.assert_array_equal(logits.float().numpy(), expected)


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("offset", range(9))
def test_rows_may_start_anywhere_and_nothing_else_is_written(
    emulated: ctypes.CDLL, dtype: torch.dtype, offset: int
) -> None:
    rows, vocab, stride = 4, 77, 83
    storage = torch.full((offset + rows * stride + 9,), 5.0, dtype=dtype)
    logits = storage[offset : offset + rows * stride].view(rows, stride)[:, :vocab]
    bitmask = random_bitmask(rows, vocab, 0.3, offset)
    wide = torch.full((rows, bitmask.shape[1] + 2), -1, dtype=torch.int32)  # bitmask stride > words needed
    wide[:, : bitmask.shape[1]] = bitmask
    expected = storage.float().numpy().copy()
    view = expected[offset : offset + rows * stride].reshape(rows, stride)
    view[:, :vocab] = reference.apply_bitmask(view[:, :vocab], bitmask.numpy().view(np.uint32), list(range(rows)))
    assert launch(emulated, logits, wide) == ""
    np.testing.assert_array_equal(storage.float().numpy(), expected)


def test_row_index_selects_rows_in_any_order(emulated: ctypes.CDLL) -> None:
    chosen = [5, 0, 3, 5]  # a repeated row is harmless
    logits = torch.arange(6 * 50, dtype=torch.float32).view(6, 50)
    bitmask = random_bitmask(6, 50, 0.4, 1)
    expected = reference.apply_bitmask(logits.numpy(), bitmask.numpy().view(np.uint32), chosen)
    assert launch(emulated, logits, bitmask, torch.tensor(chosen, dtype=torch.int32)) == ""
    np.testing.assert_array_equal(logits.numpy(), expected)


def test_nan_and_inf_logits(emulated: ctypes.CDLL) -> None:
    logits = torch.tensor([[float("nan"), float("inf"), float("-inf"), float("nan")]])
    assert launch(emulated, logits, torch.tensor([[0b0111]], dtype=torch.int32)) == ""
    np.testing.assert_array_equal(logits.numpy(), np.float32([[np.nan, np.inf, -np.inf, -np.inf]]))


def test_empty_inputs_do_nothing(emulated: ctypes.CDLL) -> None:
    logits, bitmask = torch.zeros(2, 40), torch.zeros(2, 2, dtype=torch.int32)
    assert launch(emulated, logits, bitmask, torch.zeros(0, dtype=torch.int32)) == ""
    assert launch(emulated, logits, bitmask, changes={"vocab_size": 0}) == ""
    assert launch(emulated, logits, bitmask, changes={"num_rows": 0, "logits": None}) == ""
    assert not logits.isinf().any()


def test_random_shapes(emulated: ctypes.CDLL) -> None:
    choose = random.Random(7)
    for case in range(40):
        rows, vocab = choose.randint(1, 5), choose.randint(1, 600)
        dtype = choose.choice(list(DTYPES))
        logits = torch.randn(rows, vocab + choose.randint(0, 9)).to(dtype)[:, :vocab]
        bitmask = random_bitmask(rows, vocab, choose.random(), case)
        every_row = list(range(rows))
        expected = reference.apply_bitmask(logits.float().numpy(), bitmask.numpy().view(np.uint32), every_row)
        assert launch(emulated, logits, bitmask) == ""
        np.testing.assert_array_equal(logits.float().numpy(), expected)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"num_rows": -1}, "num_rows must be in [0, 2^31), got -1"),
        ({"vocab_size": -1}, "vocab_size must be in [0, 2^31), got -1"),
        ({"logits_stride": 39}, "logits_stride must be >= vocab_size, got 39 (vocab_size 40)"),
        ({"bitmask_stride": 1}, "bitmask_stride must be >= ceil(vocab_size / 32), got 1 (vocab_size 40)"),
        ({"logits": None}, "logits and bitmask must not be null"),
        ({"dtype": 1}, "logits dtype must be float32, float16 or bfloat16, got dtype code 1"),
    ],
)
def test_bad_arguments_are_refused(emulated: ctypes.CDLL, changes: dict[str, int | None], rule: str) -> None:
    logits, bitmask = torch.zeros(2, 40), torch.zeros(2, 2, dtype=torch.int32)
    assert launch(emulated, logits, bitmask, changes=changes) == rule
    assert not logits.isinf().any()
