"""Suffix sorting against brute force, on random and adversarial text, for every token width."""

from __future__ import annotations

from pathlib import Path

import gramcore
import numpy as np
import numpy.typing as npt
import pytest
from gramcore import _core
from gramcore.ngram import suffix_array
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import ngram as reference

DTYPES = (np.uint8, np.uint16, np.uint32)


@given(st.lists(st.integers(0, 2), max_size=80), st.sampled_from(DTYPES))
def test_small_alphabets(tokens: list[int], dtype: type) -> None:
    width = np.dtype(dtype).itemsize
    assert suffix_array(np.array(tokens, dtype)).tolist() == reference.suffix_array(tokens, width)


@given(st.lists(st.sampled_from([0, 1, 255, 256, 257, 65534, 65535, 2**24, 2**31, 2**32 - 2, 2**32 - 1]), max_size=60))
def test_bytes_order_wide_tokens(tokens: list[int]) -> None:
    assert suffix_array(np.array(tokens, np.uint32)).tolist() == reference.suffix_array(tokens, 4)
    narrow = [t & 0xFFFF for t in tokens]
    assert suffix_array(np.array(narrow, np.uint16)).tolist() == reference.suffix_array(narrow, 2)


def is_sorted(text: npt.NDArray[np.unsignedinteger], sa: npt.NDArray[np.int64]) -> bool:
    """A permutation whose neighbours ascend: by first token, then by the rank of the rest."""
    rank = np.full(len(text) + 1, -1)
    rank[sa] = np.arange(len(text))
    order = text.byteswap()
    a, b = sa[:-1], sa[1:]
    ascends = (order[a] < order[b]) | ((order[a] == order[b]) & (rank[a + 1] < rank[b + 1]))
    return bool((rank[:-1] >= 0).all() and ascends.all())


LARGE = {
    "all equal": np.zeros(100_000, np.uint16),
    "fibonacci": reference.fibonacci_word(100_000),
    "descending": np.arange(60_000, 0, -1).astype(np.uint16),
    "ascending": np.arange(60_000).astype(np.uint16),
    "random": np.random.default_rng(0).integers(0, 65536, 200_000).astype(np.uint16),
    "zipf": np.random.default_rng(1).zipf(1.2, 200_000).clip(max=60_000).astype(np.uint16),
    "period 3": np.resize(np.array([5, 1, 9], np.uint16), 100_001),
    "block twice": np.tile(np.random.default_rng(2).integers(0, 50_000, 50_000).astype(np.uint16), 2),
    "wide": np.random.default_rng(3).integers(0, 2**32, 200_000).astype(np.uint32),
    "100k symbols": np.random.default_rng(4).zipf(1.1, 300_000).clip(max=130_000).astype(np.uint32),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_texts(name: str) -> None:
    text = LARGE[name]
    assert is_sorted(text, suffix_array(text))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_tables_say_how_far_they_are_and_stop_when_told(tmp_path: Path, threads: int) -> None:
    text = np.random.default_rng(5).zipf(1.2, 400_000).clip(max=60_000).astype(np.uint16)
    text.tofile(tmp_path / "tokenized.0")
    parts: list[float] = []
    files = str(tmp_path / "tokenized.0"), str(tmp_path / "table.0")
    gramcore.set_num_threads(threads)
    try:
        _core.ngram.build_table(*files, 2, parts.append)

        def stop(part: float) -> None:
            raise KeyboardInterrupt(f"{part}")

        with pytest.raises(KeyboardInterrupt):
            _core.ngram.build_table(files[0], str(tmp_path / "stopped"), 2, stop)
    finally:
        gramcore.set_num_threads(0)
    assert parts == sorted(parts)
    assert 0 < parts[0] < 0.5 < parts[-2] < parts[-1] <= 1
    pointers = np.frombuffer((tmp_path / "table.0").read_bytes(), np.uint8).reshape(-1, 3).astype(np.int64)
    assert is_sorted(text, pointers @ [1, 256, 65536] // 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["table.0", "tokenized.0"]


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="tokens must be uint8, uint16 or uint32, got int64"):
        suffix_array(np.arange(3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="contiguous"):
        suffix_array(np.arange(6, dtype=np.uint16)[::2])
