"""Building suffix-array indexes in infini-gram's file layout."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gramcore import _core
from gramcore.ngram.files import DESCRIPTION, Description, shard_numbers, token_bytes

__all__ = ["BuildReport", "accelerate", "build_index", "suffix_array"]

Document: TypeAlias = Sequence[int] | npt.NDArray[np.integer]


@dataclass(frozen=True)
class BuildReport:
    """What a build made."""

    path: Path
    num_documents: int
    num_tokens: int  # separators included
    num_bytes: int  # of all files
    seconds: float


def suffix_array(tokens: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.int64]:
    """Start positions of all suffixes of ``tokens``, in infini-gram's order.

    Tokens compare by their little-endian bytes; a suffix that is a prefix of another comes first. Linear time for any
    input (induced sorting, Nong, Zhang & Chan 2009).

    Args: tokens: (T,) uint8, uint16 or uint32, contiguous.
    Raises: TypeError for another dtype; ValueError when not contiguous.

    >>> import numpy as np
    >>> suffix_array(np.array([2, 1, 2, 1], np.uint16)).tolist()
    [3, 1, 2, 0]
    """
    return _core.ngram.suffix_array(tokens)


def build_index(
    source: Document | Iterable[Document],
    out: str | os.PathLike[str],
    *,
    token_dtype: str = "u16",
    version: int = 4,
) -> BuildReport:
    """Build an index of token documents in directory ``out``.

    Writes infini-gram's ``tokenized.0``, ``table.0`` and ``offset.0``, whole or not at all, and a description last.

    Args:
        source: one document (an integer array, or a list of ints) or an iterable of documents.
        out: directory, made when missing; it must not hold an index already.
        token_dtype: ``"u8"``, ``"u16"`` or ``"u32"``; ids must be below the largest value, which separates documents.
        version: 4 stores documents as they are, 5 backwards.
    Raises: ValueError for ids that do not fit, an empty source or an unknown version; FileExistsError; OSError.
    Reference: Liu et al. 2024, arXiv:2401.17377, section 3.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as out:
    ...     build_index([[1, 2, 3], [2, 3]], out).num_tokens
    7
    """
    width = token_bytes(token_dtype)
    if version not in (4, 5):
        raise ValueError(f"version must be 4 or 5, got {version!r}")
    directory = Path(out)
    directory.mkdir(parents=True, exist_ok=True)
    if any((directory / name).exists() for name in ("table.0", DESCRIPTION)):
        raise FileExistsError(f"{directory}: must not hold an index already; remove it or choose another directory")
    start = perf_counter()
    writer = _core.ngram.CorpusWriter(str(directory), 0, width, version == 5)
    for document in _documents(source):
        writer.add(document)
    if writer.num_documents() == 0:
        raise ValueError("source must hold at least one document, got none")
    writer.commit()
    tokenized, table = directory / "tokenized.0", directory / "table.0"
    _core.ngram.build_table(str(tokenized), str(table), width)
    Description(token_dtype, version, 1, writer.num_documents(), writer.num_tokens()).write(directory)
    size = sum(p.stat().st_size for p in (tokenized, table, directory / "offset.0"))
    return BuildReport(directory, writer.num_documents(), writer.num_tokens(), size, perf_counter() - start)


def accelerate(path: str | os.PathLike[str], *, token_dtype: str | None = None) -> int:
    """Write acceleration files (``accel.N``) beside the shards of an index; returns their bytes.

    They hold the rank range of every token and every pair of adjacent tokens, about one byte per corpus token: a count
    then starts where its first two tokens lie. An index works without them; they may be deleted or made again.

    Raises: LimitError for a shard of 2^32 tokens or more; errors of :class:`Index`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as out:
    ...     _ = build_index([[1, 2, 3], [2, 3]], out)
    ...     accelerate(out) > 0
    True
    """
    directory = Path(path)
    described = Description.read(directory)
    if token_dtype is None and described is not None:
        token_dtype = described.token_dtype
    size = 0
    for number in shard_numbers(directory, described):
        file = directory / f"accel.{number}"
        width = 0 if token_dtype is None else token_bytes(token_dtype)
        _core.ngram.build_accel(str(directory), number, width, str(file))
        size += file.stat().st_size
    return size


def _documents(source: Document | Iterable[Document]) -> Iterable[npt.NDArray[np.integer]]:
    if isinstance(source, np.ndarray) and source.ndim == 1:
        yield _document(source)
        return
    if isinstance(source, (str, bytes)):
        raise TypeError(f"source must be token documents, got {type(source).__name__}; tokenize the text first")
    if isinstance(source, Sequence) and source and isinstance(source[0], (int, np.integer)):
        yield _document(source)
        return
    for document in source:
        yield _document(document)


def _document(ids: object) -> npt.NDArray[np.integer]:
    array = np.asarray(ids)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(
            f"each document must be a one-dimensional integer array, got {array.dtype} of shape {array.shape}"
        )
    if array.dtype in (np.int8, np.int16):
        array = array.astype(np.int32)
    return np.ascontiguousarray(array)
