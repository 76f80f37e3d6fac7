"""Queries on suffix-array indexes in infini-gram's file layout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gramcore import _core
from gramcore.errors import FormatError
from gramcore.ngram.files import Description, shard_numbers, token_bytes

__all__ = ["Found", "Index"]

Ids: TypeAlias = Sequence[int] | npt.NDArray[np.integer]


@dataclass(frozen=True)
class Found:
    """Where an n-gram lies in the rank order of each shard."""

    cnt: int
    segment_by_shard: list[tuple[int, int]]


class Index:
    """A memory-mapped index over one or more directories of shards.

    Opens what :func:`build_index` or infini-gram (layout versions 4 and 5) wrote. An n-gram of n tokens is found by
    binary search over the ranks: O(n log T) and no memory beyond the mapped files.

    Args:
        path: an index directory, or several whose counts are added.
        token_dtype: ``"u8"``, ``"u16"``, ``"u32"``, or None to take it from the files.
        load_to_ram: read all files once now, so that first queries do not wait for the disk.
    Raises: FileNotFoundError; FormatError for files that are truncated, foreign or of different shards; IndexError for
        ids outside [0, 2^32).
    Reference: Liu et al. 2024, arXiv:2401.17377, section 3.

    >>> import tempfile
    >>> from gramcore.ngram import build_index
    >>> out = tempfile.TemporaryDirectory()
    >>> index = Index(build_index([[1, 2, 3], [2, 3]], out.name).path)
    >>> index.count([2, 3]), index.count([3, 2])
    (2, 0)
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        token_dtype: str | None = None,
        load_to_ram: bool = False,
    ) -> None:
        paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
        if not paths:
            raise ValueError("path must name at least one index directory, got an empty list")
        self._shards: list[_core.ngram.Shard] = []
        for directory in map(Path, paths):
            self._shards += _open(directory, token_dtype)
        widths = sorted({s.token_bytes for s in self._shards})
        if len(widths) > 1:
            raise FormatError(f"all shards must have tokens of one width, got {widths} bytes ({paths})")
        self.token_dtype = {1: "u8", 2: "u16", 4: "u32"}[widths[0]]
        if load_to_ram:
            for shard in self._shards:
                shard.load()

    @property
    def num_shards(self) -> int:
        """Shards of all directories."""
        return len(self._shards)

    @property
    def num_tokens(self) -> int:
        """Tokens of all shards, separators included."""
        return sum(s.num_tokens for s in self._shards)

    @property
    def num_documents(self) -> int:
        """Documents of all shards."""
        return sum(s.num_documents for s in self._shards)

    def find(self, ids: Ids) -> Found:
        """Ranks of the suffixes that begin with ``ids``, per shard; everything when ``ids`` is empty."""
        segments = [s.find(ids) for s in self._shards]
        return Found(sum(end - begin for begin, end in segments), segments)

    def count(self, ids: Ids) -> int:
        """Occurrences of an n-gram; the number of tokens when ``ids`` is empty."""
        return self.find(ids).cnt

    def verify(self) -> None:
        """Read everything and check it: FormatError names the first entry that is wrong. 8 bytes per token."""
        for shard in self._shards:
            shard.verify()

    def __repr__(self) -> str:
        return f"Index(shards={self.num_shards}, tokens={self.num_tokens}, token_dtype={self.token_dtype!r})"


def _open(directory: Path, token_dtype: str | None) -> list[_core.ngram.Shard]:
    described = Description.read(directory)
    if token_dtype is None and described is not None:
        token_dtype = described.token_dtype
    width = 0 if token_dtype is None else token_bytes(token_dtype)
    numbers = shard_numbers(directory)
    if described is not None and described.shards != len(numbers):
        raise FormatError(f"{directory}: must hold {described.shards} shards, got {len(numbers)}; build it again")
    shards = [_core.ngram.Shard(str(directory), number, width) for number in numbers]
    totals = sum(s.num_documents for s in shards), sum(s.num_tokens for s in shards)
    if described is not None and totals != (described.num_documents, described.num_tokens):
        raise FormatError(
            f"{directory}: must hold {described.num_documents} documents and {described.num_tokens} tokens, "
            f"got {totals[0]} and {totals[1]}; a file is truncated or was replaced"
        )
    return shards
