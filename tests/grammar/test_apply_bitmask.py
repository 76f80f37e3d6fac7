"""apply_bitmask_ against its definition: every instruction set, dtype and tail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gramcore.grammar.bitmask import allocate_bitmask, apply_bitmask_

from tests.reference import cuda as reference

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def problem(rows: int, vocab: int, density: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    words = (vocab + 31) // 32
    bits = rng.random((rows, words * 32)) < density
    mask = np.packbits(bits, axis=1, bitorder="little").view(np.int32)
    return torch.from_numpy(rng.standard_normal((rows, vocab)).astype(np.float32)), torch.from_numpy(mask.copy())


def expected(logits: torch.Tensor, mask: torch.Tensor, rows: list[int]) -> torch.Tensor:
    return torch.from_numpy(reference.apply_bitmask(logits.float().numpy(), mask.numpy(), rows)).to(logits.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocab", [1, 31, 32, 33, 63, 64, 65, 1000, 1024])
@pytest.mark.parametrize("density", [0.0, 0.5, 1.0])
def test_equals_the_definition(isa: str, dtype: torch.dtype, vocab: int, density: float) -> None:
    logits, mask = problem(3, vocab, density)
    logits = logits.to(dtype)
    want = expected(logits, mask, [0, 1, 2])
    assert apply_bitmask_(logits, mask) is logits
    assert torch.equal(logits, want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strided_rows_unaligned_start_and_guard(isa: str, dtype: torch.dtype) -> None:
    logits, mask = problem(4, 77, 0.4, seed=1)
    arena = torch.full((4, 100), 7.0, dtype=dtype)
    view = arena[:, 3:80]
    view.copy_(logits)
    want = expected(view.contiguous(), mask, [0, 1, 2, 3])
    apply_bitmask_(view, mask)
    assert torch.equal(view, want)
    assert bool((arena[:, :3] == 7).all())
    assert bool((arena[:, 80:] == 7).all())


def test_chosen_rows_and_nothing_else(isa: str) -> None:
    logits, mask = problem(5, 200, 0.5, seed=2)
    want = expected(logits, mask, [3, 0])
    apply_bitmask_(logits, mask, rows=[3, 0])
    assert torch.equal(logits, want)


def test_large_rows_split_over_threads(isa: str) -> None:
    logits, mask = problem(2, 131_077, 0.5, seed=3)
    want = torch.where(
        torch.from_numpy(np.unpackbits(mask.numpy().view(np.uint8), axis=1, bitorder="little")[:, :131_077] != 0),
        logits,
        -torch.inf,
    )
    apply_bitmask_(logits, mask)
    assert torch.equal(logits, want)


def test_nan_and_inf_of_allowed_tokens_stay() -> None:
    logits = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0])
    apply_bitmask_(logits, torch.tensor([0b0111], dtype=torch.int32))
    assert logits[0].isnan()
    assert logits[1:].tolist() == [float("inf"), -float("inf"), -float("inf")]


def test_empty_batches_are_accepted() -> None:
    apply_bitmask_(torch.zeros(0, 50), allocate_bitmask(0, 50))
    logits = torch.zeros(2, 50)
    apply_bitmask_(logits, allocate_bitmask(2, 50), rows=[])
    assert torch.equal(logits, torch.zeros(2, 50))


def test_masks_of_impossible_sizes_are_refused() -> None:
    for rows, vocab_size in ((-1, 50), (1, 0), (1.0, 50)):
        with pytest.raises((ValueError, TypeError), match="must be"):
            allocate_bitmask(rows, vocab_size)  # type: ignore[arg-type]


def test_compiled_and_eager_agree() -> None:
    logits, mask = problem(2, 64, 0.5, seed=4)
    with torch._subclasses.FakeTensorMode() as mode:
        fake = mode.from_tensor(logits)
        torch.ops.gramcore.apply_bitmask_(fake, mode.from_tensor(mask))
        assert fake.shape == logits.shape


@pytest.mark.parametrize(
    ("logits", "mask", "rows", "error", "text"),
    [
        (torch.zeros(1, 64), torch.zeros(1, 1, dtype=torch.int32), None, ValueError, "at least 2 words"),
        (torch.zeros(1, 64), torch.zeros(1, 2, dtype=torch.int64), None, ValueError, "bitmask must be int32"),
        (torch.zeros(1, 64, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.int32), None, TypeError, "float64"),
        (torch.zeros(1, 64), torch.zeros(2, dtype=torch.int32), None, ValueError, "both"),
        (torch.zeros(64, 2).T, torch.zeros(2, 2, dtype=torch.int32), None, ValueError, "dense"),
        (torch.zeros(1, 64), torch.zeros(1, 2, dtype=torch.int32), [1], IndexError, r"rows must be in \[0, 1\)"),
        (torch.zeros(1, 64), torch.zeros(1, 2, dtype=torch.int32), [-1], IndexError, "rows must be"),
    ],
)
def test_bad_input_is_named(
    logits: torch.Tensor, mask: torch.Tensor, rows: list[int] | None, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        apply_bitmask_(logits, mask, rows)


def test_rows_disagree_without_row_list() -> None:
    with pytest.raises((ValueError, RuntimeError), match="one row per row of logits"):
        apply_bitmask_(torch.zeros(2, 32), torch.zeros(1, 1, dtype=torch.int32))
