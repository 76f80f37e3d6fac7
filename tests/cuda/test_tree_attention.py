"""kvcache/cuda/tree_attention.cu, emulated, against the fp64 twin; which bits a row may depend on."""

from __future__ import annotations

import ctypes
import dataclasses

import numpy as np
import pytest
import torch
from gramcore.kvcache import quantize_slots

from tests.cuda.test_apply_bitmask import DTYPES
from tests.reference.kvcache import ancestors_of, attention, to_words

SPLIT_KEYS = 1024  # TreeAttentionPolicy::kSplitKeys


TYPES = "query, key and value must be float32, bfloat16 or float16 (caches also int8), got dtype codes"


class Problem(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "heads", "kv_heads", "nodes", "head_dim", "capacity")),
        ("query", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("query_batch", "query_head", "query_node")),
        ("key", ctypes.c_void_p),
        ("value", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("key_batch", "key_head", "key_slot")),
        *((name, ctypes.c_int64) for name in ("value_batch", "value_head", "value_slot")),
        ("key_scale", ctypes.c_void_p),
        ("value_scale", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("key_scale_batch", "key_scale_head")),
        *((name, ctypes.c_int64) for name in ("value_scale_batch", "value_scale_head")),
        ("key_tiles", ctypes.c_bool),
        ("out", ctypes.c_void_p),
        ("query_dtype", ctypes.c_uint8),
        ("kv_dtype", ctypes.c_uint8),
        ("lengths", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("ancestors", ctypes.c_void_p),
        ("words", ctypes.c_int64),
        ("ancestors_batch", ctypes.c_int64),
        ("scale", ctypes.c_float),
    )


class Args(ctypes.Structure):
    _fields_ = (("problem", Problem), ("workspace", ctypes.c_void_p), ("workspace_floats", ctypes.c_int64))


@dataclasses.dataclass
class Case:
    """Tensors of one call; ``ancestors`` are (n, W) or (B, n, W) words."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    lengths: list[int]
    ancestors: torch.Tensor | None = None
    starts: list[int] | None = None
    scale: float | None = None  # 1 / sqrt(D)

    @property
    def factor(self) -> float:
        """The scale in use."""
        return self.query.shape[-1] ** -0.5 if self.scale is None else self.scale


def random_case(
    seed: int, batch: int, heads: int, kv_heads: int, n: int, dim: int, context: int, extra: int = 3
) -> Case:
    g = torch.Generator().manual_seed(seed)
    shape = (batch, kv_heads, context + n + extra, dim)
    query = torch.randn(batch, heads, n, dim, generator=g) * 2
    return Case(query, torch.randn(shape, generator=g), torch.randn(shape, generator=g), [context] * batch)


def random_tree(seed: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ancestors_of([int(rng.integers(-1, i)) if i else -1 for i in range(n)])


def launch(library: ctypes.CDLL, c: Case, changes: dict[str, int | None] | None = None) -> tuple[torch.Tensor, str]:
    """Output and message of the launcher, which may use exactly the workspace it asks for."""
    library.gc_cuda_tree_attention_workspace.restype = ctypes.c_int64
    batch, heads, n, dim = c.query.shape
    out = torch.full((batch, n, heads, dim), 7.0, dtype=c.query.dtype)
    lengths = torch.tensor(c.lengths)
    starts = None if c.starts is None else torch.tensor(c.starts)
    p = Problem(batch, heads, c.key.shape[1], n, dim, c.key.shape[2])
    p.query, p.key, p.value, p.out = (t.data_ptr() for t in (c.query, c.key, c.value, out))
    p.query_batch, p.query_head, p.query_node = c.query.stride()[:3]
    p.key_batch, p.key_head, p.key_slot = c.key.stride()[:3]
    p.value_batch, p.value_head, p.value_slot = c.value.stride()[:3]
    p.query_dtype, p.kv_dtype = DTYPES[c.query.dtype], DTYPES.get(c.key.dtype, 0)
    p.lengths, p.starts = lengths.data_ptr(), None if starts is None else starts.data_ptr()
    p.scale = c.factor
    if c.ancestors is not None:
        p.ancestors, p.words = c.ancestors.data_ptr(), c.ancestors.shape[-1]
        p.ancestors_batch = n * p.words if c.ancestors.dim() == 3 else 0
    for name, value in (changes or {}).items():
        setattr(p, name, value)
    floats = library.gc_cuda_tree_attention_workspace(ctypes.byref(p))
    workspace = torch.full((max(floats, 1),), float("nan"))
    args = Args(p, workspace.data_ptr() if floats else None, floats)
    status = library.gc_cuda_tree_attention(ctypes.byref(args), None)
    message = library.gc_cuda_last_message().decode()
    assert (status == 0) == (message == "")
    return out, message


def run(library: ctypes.CDLL, c: Case) -> torch.Tensor:
    out, message = launch(library, c)
    assert message == ""
    return out


INT8 = 4  # gramcore::DType::i8


def quantized(library: ctypes.CDLL, c: Case) -> tuple[torch.Tensor, Case]:
    """Output over the int8 form of a case's cache, and the case with what that form stands for."""
    key, key_scale = quantize_slots(c.key)
    value, value_scale = quantize_slots(c.value)
    changes: dict[str, int | None] = {"kv_dtype": INT8}
    for name, scale in (("key_scale", key_scale), ("value_scale", value_scale)):
        changes |= {name: scale.data_ptr(), f"{name}_batch": scale.stride(0), f"{name}_head": scale.stride(1)}
    out, message = launch(library, dataclasses.replace(c, key=key, value=value), changes)
    assert message == ""
    return out, dataclasses.replace(c, key=key * key_scale[..., None], value=value * value_scale[..., None])


def check(library: ctypes.CDLL, c: Case, seen: np.ndarray) -> None:
    out = run(library, c)
    q, k, v = (t.float().numpy() for t in (c.query, c.key, c.value))
    seen = np.broadcast_to(seen, (len(c.lengths), *seen.shape[-2:]))
    want = attention(q, k, v, c.lengths, seen, c.starts or [0] * len(c.lengths), c.factor)
    unit = {torch.float32: 2**-23, torch.float16: 2**-11, torch.bfloat16: 2**-8}[c.query.dtype]
    np.testing.assert_allclose(out.float().numpy(), want, rtol=0, atol=16 * unit * max(1.0, float(np.abs(want).max())))


@pytest.mark.parametrize("dim", [1, 33, 64, 65, 128, 130, 256])
def test_trees_match_reference(emulated: ctypes.CDLL, dim: int) -> None:
    for n, context, heads, kv_heads in [(1, 0, 1, 1), (1, 65, 6, 2), (5, 31, 5, 1), (9, 64, 4, 2), (67, 3, 2, 1)]:
        c = random_case(n, 1, heads, kv_heads, n, dim, context)
        seen = random_tree(n, n)
        c.ancestors = torch.from_numpy(to_words(seen))
        check(emulated, c, seen)


@pytest.mark.parametrize("kv", list(DTYPES))
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_dtypes_batches_and_padding(emulated: ctypes.CDLL, dtype: torch.dtype, kv: torch.dtype) -> None:
    c = random_case(4, 2, 4, 2, 7, 40, 70)
    c = Case(c.query.to(dtype), c.key.to(kv), c.value.to(kv), [70, 58], starts=[3, 58], scale=0.2)
    seen = np.stack([random_tree(0, 7), random_tree(1, 7)])
    c.ancestors = torch.from_numpy(to_words(seen))
    check(emulated, c, seen)
    check(emulated, dataclasses.replace(c, ancestors=None), np.tril(np.ones((7, 7), dtype=bool)))


def test_int8_caches_have_the_bits_of_what_they_stand_for(emulated: ctypes.CDLL) -> None:
    c = random_case(14, 2, 4, 2, 7, 40, SPLIT_KEYS + 30)
    c = dataclasses.replace(c, lengths=[SPLIT_KEYS + 30, 58], starts=[3, 58])
    c.ancestors = torch.from_numpy(to_words(np.stack([random_tree(0, 7), random_tree(1, 7)])))
    out, plain = quantized(emulated, c)
    assert torch.equal(out, run(emulated, plain))


def test_int8_caches_need_their_factors(emulated: ctypes.CDLL) -> None:
    c = random_case(15, 1, 2, 1, 2, 8, 4)
    for changes in ({"kv_dtype": INT8}, {"key_scale": c.key.data_ptr(), "value_scale": c.key.data_ptr()}):
        assert "must be given with an int8 cache" in launch(emulated, c, changes)[1]


def test_strides_and_long_contexts(emulated: ctypes.CDLL) -> None:
    c = random_case(5, 1, 4, 2, 3, 16, 2 * SPLIT_KEYS + 40)
    # (B, n, H, D) queries and (B, T, H, D) caches seen through transposed views.
    c.query, c.key, c.value = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (c.query, c.key, c.value))
    check(emulated, c, np.tril(np.ones((3, 3), dtype=bool)))
    c.lengths = [SPLIT_KEYS - 1]  # a row that ends with its split, and one that starts the next
    check(emulated, c, np.tril(np.ones((3, 3), dtype=bool)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_do_not_depend_on_their_number(emulated: ctypes.CDLL, dtype: torch.dtype) -> None:
    n, context = 21, SPLIT_KEYS - 10
    c = random_case(6, 1, 6, 2, n, 33, context)
    c = Case(c.query.to(dtype), c.key.to(dtype), c.value.to(dtype), c.lengths)
    whole = run(emulated, c)
    for i in [0, 1, 9, 10, 11, 20]:
        row = run(emulated, dataclasses.replace(c, query=c.query[:, :, i : i + 1], lengths=[context + i]))
        assert torch.equal(row[:, 0], whole[:, i])


def test_blocks_that_walk_all_splits_give_the_bits_of_blocks_of_their_own(emulated: ctypes.CDLL) -> None:
    c = random_case(7, 1, 1, 1, 2, 8, SPLIT_KEYS + 50)
    c.ancestors = torch.from_numpy(to_words(ancestors_of([-1, -1])))
    many = 140  # sequences, all but the first empty: enough blocks to keep a device busy without splitting
    query, key, value = (x.expand(many, -1, -1, -1) for x in (c.query, c.key, c.value))
    wide = Case(query, key, value, c.lengths + [0] * (many - 1), c.ancestors)
    alone, together = run(emulated, c), run(emulated, wide)
    assert torch.equal(together[:1], alone)


def test_tree_node_equals_plain_decoding_of_its_path(emulated: ctypes.CDLL) -> None:
    n, context = 70, 77
    c = random_case(8, 1, 4, 2, n, 24, context)
    seen = random_tree(8, n)
    c.ancestors = torch.from_numpy(to_words(seen))
    tree = run(emulated, c)
    for i in [*range(0, n, 9), n - 1]:
        path = context + np.flatnonzero(seen[i])
        key, value = c.key.clone(), c.value.clone()
        key[:, :, context : context + len(path)] = c.key[:, :, path]
        value[:, :, context : context + len(path)] = c.value[:, :, path]
        plain = run(emulated, Case(c.query[:, :, i : i + 1], key, value, [context + len(path) - 1]))
        assert torch.equal(plain[:, 0], tree[:, i])


def test_rows_that_see_nothing_are_zero_and_nan_stays(emulated: ctypes.CDLL) -> None:
    c = random_case(9, 1, 1, 1, 2, 5, 0)
    c.ancestors = torch.tensor([[0], [0b10]])
    c.value[0, 0, 1, 2] = float("nan")
    out = run(emulated, c)
    assert torch.equal(out[0, 0], torch.zeros(1, 5))
    assert out[0, 1].isnan().tolist() == [[False, False, True, False, False]]


def test_bits_past_a_node_are_not_read_as_ancestors(emulated: ctypes.CDLL) -> None:
    c = random_case(10, 1, 2, 1, 3, 8, 40)
    c.ancestors = torch.tensor([[-1], [-1], [-1]])
    assert torch.equal(run(emulated, c), run(emulated, dataclasses.replace(c, ancestors=None)))


def test_values_that_only_the_device_sees_end_the_launch(emulated: ctypes.CDLL) -> None:
    c = random_case(11, 1, 1, 1, 2, 8, 10)
    for lengths, starts in [([-1], None), ([14], None), ([5], [6]), ([5], [-1])]:
        message = launch(emulated, dataclasses.replace(c, lengths=lengths, starts=starts))[1]
        assert "__trap()" in message


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"head_dim": 257}, "head_dim must be in [1, 256] on a CUDA device, got 257"),
        ({"head_dim": 0}, "head_dim must be in [1, 256] on a CUDA device, got 0"),
        ({"heads": 5}, "query heads must be a multiple of key-value heads, got 5 and 2"),
        ({"capacity": 2}, "batch and nodes must be >= 0 and nodes <= capacity, got 1, 3 (capacity 2)"),
        ({"words": 0}, "ancestors must have 1 words per node, got 0 (3 nodes)"),
        ({"query_dtype": 1}, TYPES + " 1 and 0"),
        ({"key_tiles": 1}, "key_tiles must be false on a CUDA device"),
        ({"key": None}, "query, key, value, out and lengths must not be null"),
    ],
)
def test_bad_arguments_are_refused(emulated: ctypes.CDLL, changes: dict[str, int | None], rule: str) -> None:
    c = random_case(12, 1, 4, 2, 3, 8, 10)
    c.ancestors = torch.tensor([[1], [3], [7]])
    out, message = launch(emulated, c, changes)
    assert message == rule
    assert (out == 7).all()


def test_empty(emulated: ctypes.CDLL) -> None:
    assert run(emulated, random_case(13, 1, 2, 1, 0, 8, 4)).shape == (1, 0, 2, 8)
    assert run(emulated, random_case(13, 0, 2, 1, 3, 8, 4)).shape == (0, 3, 2, 8)


def run_ragged(library: ctypes.CDLL, parts: list[Case], counts: list[int], capacity: int) -> tuple[torch.Tensor, str]:
    """One ragged call over the sequences of ``parts`` (batch 1 each, with ancestors)."""
    library.gc_cuda_tree_attention_ragged_workspace.restype = ctypes.c_int64
    key, value = (torch.zeros(len(parts), *parts[0].key.shape[1:2], capacity, parts[0].key.shape[3]) for _ in range(2))
    for b, c in enumerate(parts):
        key[b, :, : c.key.shape[2]], value[b, :, : c.key.shape[2]] = c.key[0], c.value[0]
    query = torch.cat([c.query[0].transpose(0, 1) for c in parts]).contiguous()
    ancestors = torch.cat([c.ancestors for c in parts if c.ancestors is not None])
    lengths, rows = torch.tensor([c.lengths[0] for c in parts]), len(query)
    out = torch.full_like(query, 7.0)
    p = Problem(len(parts), query.shape[1], key.shape[1], rows, query.shape[2], capacity)
    p.query, p.key, p.value, p.out = (t.data_ptr() for t in (query, key, value, out))
    p.query_node, p.query_head = query.stride()[:2]
    p.key_batch, p.key_head, p.key_slot = key.stride()[:3]
    p.value_batch, p.value_head, p.value_slot = value.stride()[:3]
    p.query_dtype = p.kv_dtype = DTYPES[torch.float32]
    p.lengths, p.ancestors, p.words = lengths.data_ptr(), ancestors.data_ptr(), ancestors.shape[-1]
    p.scale = parts[0].factor
    given = (ctypes.c_int64 * len(counts))(*counts)
    floats = library.gc_cuda_tree_attention_ragged_workspace(ctypes.byref(p), given)
    workspace = torch.full((max(floats, 1),), float("nan"))
    args = Args(p, workspace.data_ptr() if floats else None, floats)
    library.gc_cuda_tree_attention_ragged(ctypes.byref(args), given, None)
    return out, library.gc_cuda_last_message().decode()


def test_ragged_rows_have_the_bits_of_their_sequence_alone(emulated: ctypes.CDLL) -> None:
    counts, contexts, capacity = [3, 0, 70, 1], [0, 5, SPLIT_KEYS - 20, SPLIT_KEYS + 9], SPLIT_KEYS + 60
    parts = [random_case(20 + n, 1, 4, 2, n, 24, context, 0) for n, context in zip(counts, contexts, strict=True)]
    for c, n in zip(parts, counts, strict=True):
        words = to_words(random_tree(n, n))
        c.ancestors = torch.from_numpy(np.pad(words, ((0, 0), (0, 2 - words.shape[1]))))
    out, message = run_ragged(emulated, parts, counts, capacity)
    assert message == ""
    alone = [run(emulated, c)[0] for c in parts if c.query.shape[2]]
    assert torch.equal(out, torch.cat(alone))


@pytest.mark.parametrize("counts", [[2, 2], [-1, 4], [2, 0]])
def test_ragged_counts_must_add_up(emulated: ctypes.CDLL, counts: list[int]) -> None:
    parts = [random_case(30, 1, 2, 1, n, 8, 4, 0) for n in (2, 1)]
    for c in parts:
        c.ancestors = torch.ones(c.query.shape[2], 1, dtype=torch.int64)
    assert "add up to 3 rows" in run_ragged(emulated, parts, counts, 8)[1]
