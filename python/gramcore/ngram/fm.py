"""FM-index over tokens or bytes: count, locate, extract, and what may follow."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gramcore import _core
from gramcore._checks import check_int
from gramcore.ngram.index import Ids

__all__ = ["FMIndex", "Rows"]

#: An n-gram's place in the index: a half-open interval of rows. Its length is the number of occurrences.
Rows: TypeAlias = tuple[int, int]


class FMIndex:
    """Compressed full-text index of a token sequence that also replaces the text.

    Stored backwards, so that ``extend`` appends a token to an n-gram: a step of constrained decoding is one ``extend``
    and one ``successors``. The text takes less than its zero-order entropy H, the more repetitive the less; positions
    of every ``sample_every``-th token are kept beside it.

    Cost: ``extend`` and ``count`` O(H) per token; ``successors`` O(H) per successor; ``locate`` O(sample_every H) per
    occurrence; ``extract`` O((length + sample_every) H). Building needs about 20 bytes per token.

    Args:
        tokens: (T,) integer ids in [0, 2^32), T < 2^31; or bytes.
        sample_every: >= 1; positions cost about 4.5 / sample_every bytes per token.
    Raises: TypeError for tokens that are not integers; IndexError for ids or positions out of range.
    Differs from paper: stored backwards; a Huffman-shaped wavelet tree (Mäkinen & Navarro 2005, "Succinct suffix arrays
        based on run-length encoding") over hybrid bit blocks (Kärkkäinen et al. 2014, "Hybrid compression of bitvectors
        for the FM-index").
    Reference: Ferragina & Manzini 2000, "Opportunistic data structures with applications".

    >>> fm = FMIndex(b"abracadabra")
    >>> fm.count(b"abra"), fm.locate(b"abra").tolist(), bytes(fm.extract(3, 6).astype("u1"))
    (2, [0, 7], b'aca')
    >>> ids, counts = fm.successors(fm.find(b"a"))
    >>> dict(zip(map(chr, ids), counts.tolist()))
    {'b': 2, 'c': 1, 'd': 1}
    """

    def __init__(self, tokens: Ids | bytes, *, sample_every: int = 40) -> None:
        array = np.frombuffer(tokens, np.uint8) if isinstance(tokens, bytes) else np.asarray(tokens)
        if array.size == 0:
            array = array.astype(np.uint8)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise TypeError(f"tokens must be one-dimensional integers, got {array.dtype} of shape {array.shape}")
        if array.dtype not in (np.uint8, np.uint16, np.uint32):
            if array.min() < 0 or array.max() >= 2**32:
                raise IndexError(f"tokens must be in [0, {2**32 - 1}], got {array.min()} to {array.max()}")
            array = array.astype(np.uint32)
        every = check_int("sample_every", sample_every, low=1, high=2**20)
        self._native = _core.ngram.FmIndex.build(np.ascontiguousarray(array), every)

    @classmethod
    def from_documents(cls, documents: Iterable[Ids], separator: int, *, sample_every: int = 40) -> FMIndex:
        """Index documents with a separator before each."""
        parts: list[npt.NDArray[np.int64]] = []
        for document in documents:
            parts += [np.array([separator], np.int64), np.asarray(document, np.int64)]
        return cls(np.concatenate(parts) if parts else np.zeros(0, np.int64), sample_every=sample_every)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to a file, whole or not at all: as many bytes as ``num_bytes``, about."""
        self._native.save(os.fspath(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FMIndex:
        """Map a file of :meth:`save`.

        The file is read once and checked (about 0.3 GB/s), so that no query can leave it, and stays mapped: processes
        that load it share its memory.
        Raises: FormatError when it is truncated, damaged or something else; OSError when it cannot be read.
        """
        index = cls.__new__(cls)
        index._native = _core.ngram.FmIndex.load(os.fspath(path))
        return index

    @property
    def num_tokens(self) -> int:
        """Tokens of the text."""
        return self._native.size()

    @property
    def num_bytes(self) -> int:
        """Bytes of memory of the whole structure."""
        return self._native.bytes()

    def find(self, ids: Ids | bytes) -> Rows:
        """Rows of an n-gram; ``(0, T + 1)`` for the empty one."""
        return self._native.find(_ids(ids))

    def count(self, ids: Ids | bytes) -> int:
        """Occurrences of an n-gram; T + 1 for the empty one."""
        begin, end = self._native.find(_ids(ids))
        return end - begin

    def extend(self, rows: Rows, token: int) -> Rows:
        """Rows of the n-gram with ``token`` appended; empty when it does not follow."""
        return self._native.extend(rows, token)

    def successors(self, rows: Rows) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """Tokens that follow an n-gram, ascending, and how often each does."""
        return self._native.successors(rows)

    def locate(self, ids: Ids | bytes) -> npt.NDArray[np.int64]:
        """Ascending start positions of a non-empty n-gram."""
        return self._native.locate(_ids(ids))

    def extract(self, begin: int, end: int) -> npt.NDArray[np.uint32]:
        """The text of [begin, end)."""
        check_int("begin", begin, low=0)
        return self._native.extract(begin, check_int("end", end, low=begin))

    def __len__(self) -> int:
        return self._native.size()


def _ids(ids: Ids | bytes) -> Ids:
    return np.frombuffer(ids, np.uint8) if isinstance(ids, bytes) else ids
