"""kvcache/cuda/kv_compact.cu, emulated, against moves written out one by one."""

from __future__ import annotations

import ctypes

import pytest
import torch


class Cache(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        *((n, ctypes.c_int64) for n in ("batch_bytes", "head_bytes", "slot_bytes", "row_bytes", "heads", "capacity")),
    )


class Args(ctypes.Structure):
    _fields_ = (
        ("caches", ctypes.POINTER(Cache)),
        ("num_caches", ctypes.c_int64),
        ("lengths", ctypes.c_void_p),
        ("path", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("steps", ctypes.c_int64),
    )


def launch(
    library: ctypes.CDLL, tensors: list[torch.Tensor], lengths: list[int], path: list[list[int]], **changes: int | None
) -> str:
    rows, starts = torch.tensor(path, dtype=torch.int64), torch.tensor(lengths)
    table = (Cache * max(len(tensors), 1))()
    for entry, cache in zip(table, tensors, strict=False):
        steps = [s * cache.element_size() for s in cache.stride()[:3]]
        row = cache.shape[3] * cache.element_size()
        entry.data, entry.row_bytes, entry.heads, entry.capacity = cache.data_ptr(), row, *cache.shape[1:3]
        entry.batch_bytes, entry.head_bytes, entry.slot_bytes = steps
    args = Args(table, len(tensors), starts.data_ptr(), rows.data_ptr(), *rows.shape)
    for name, value in changes.items():
        setattr(args, name, value)
    status = library.gc_cuda_kv_compact(ctypes.byref(args), None)
    message = library.gc_cuda_last_message().decode()
    assert (status == 0) == (message == "")
    return message


def moved(cache: torch.Tensor, lengths: list[int], path: list[list[int]]) -> torch.Tensor:
    out = cache.clone()
    for b, row in enumerate(path):
        for i, node in enumerate(row):
            if node < 0:
                break
            out[b, :, lengths[b] + i] = cache[b, :, lengths[b] + node]
    return out


@pytest.mark.parametrize("dim", [1, 3, 8, 64, 130])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_moves_the_path_and_nothing_else(emulated: ctypes.CDLL, dtype: torch.dtype, dim: int) -> None:
    torch.manual_seed(dim)
    base = torch.randn(2, 3, 20, dim).to(dtype)
    odd = torch.zeros(2 * 3 * 20 * dim + 1, dtype=dtype)[1:].view(2, 3, 20, dim).copy_(base)  # not 16-byte aligned
    by_slot = base.transpose(1, 2).contiguous().transpose(1, 2)
    caches = [base.clone(), odd, by_slot]
    lengths, path = [4, 9], [[0, 2, 3, 4, 15], [3, 4, -1, 7, 8]]
    want = moved(base, lengths, path)
    assert launch(emulated, caches, lengths, path) == ""
    for cache in caches:
        assert torch.equal(cache, want)


def test_more_caches_than_one_launch_takes(emulated: ctypes.CDLL) -> None:
    caches = [torch.arange(6.0).view(1, 1, 6, 1) + i for i in range(300)]
    assert launch(emulated, caches, [2], [[1, 3]]) == ""
    for i, cache in enumerate(caches):
        assert cache.flatten().tolist() == [0.0 + i, 1.0 + i, 3.0 + i, 5.0 + i, 4.0 + i, 5.0 + i]


@pytest.mark.parametrize(("lengths", "path"), [([0], [[2, 1]]), ([0], [[1, 1]]), ([3], [[0, 3]]), ([-1], [[0, 1]])])
def test_bad_paths_end_the_launch(emulated: ctypes.CDLL, lengths: list[int], path: list[list[int]]) -> None:
    assert "__trap()" in launch(emulated, [torch.zeros(1, 2, 6, 4)], lengths, path)


def test_bad_arguments_and_empty(emulated: ctypes.CDLL) -> None:
    cache = torch.zeros(1, 2, 6, 4)
    assert launch(emulated, [cache], [0], [[0]], steps=-1) == "steps must be >= 0, got -1"
    assert launch(emulated, [cache], [0], [[0]], batch=-1).startswith("batch must be in [0, 65535]")
    assert launch(emulated, [cache], [0], [[0]], caches=None) == "caches, lengths and path must not be null"
    odd = launch(emulated, [torch.zeros(1, 2, 6, 1, dtype=torch.int8)], [0], [[0]])
    assert odd == "caches must be aligned to their element size of 2 or 4 bytes (cache 0)"
    assert launch(emulated, [], [0], [[0]]) == ""
    assert launch(emulated, [cache], [0], [[]]) == ""
