"""Building suffix-array indexes in infini-gram's file layout."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from gramcore import _core
from gramcore._checks import check_int
from gramcore.errors import LimitError
from gramcore.ngram.encoders import Encoder, load_encoder
from gramcore.ngram.files import Description, Plan, shard_numbers, token_bytes
from gramcore.ngram.sources import Record, Skipped, read

__all__ = ["BuildReport", "accelerate", "build_index", "suffix_array"]


@dataclass(frozen=True)
class BuildReport:
    """What a build made."""

    path: Path
    num_documents: int
    num_tokens: int  # separators included
    num_shards: int
    num_bytes: int  # of all files
    num_skipped: int
    first_skipped: str  # why the first skipped record was
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
    source: Any,
    out: str | os.PathLike[str],
    *,
    tokenizer: Any = None,
    token_dtype: str = "u16",
    version: int = 4,
    shards: int | None = None,
    memory_limit: int | None = None,
    accel: bool = False,
    metadata: bool = False,
    text_key: str = "text",
    on_error: str = "raise",
    progress: bool = True,
    resume: bool = True,
) -> BuildReport:
    """Build an index of documents in directory ``out``.

    Writes infini-gram's ``tokenized.N``, ``table.N`` and ``offset.N`` per shard, each whole or not at all, and a
    description last, whose presence means the build is complete. A build that was killed goes on where its last
    finished shard was when called again with the same arguments.

    Args:
        source: files, a directory or a glob (text files, JSON lines plain or .gz or .zst, Parquet, .npy), a
            ``datasets.Dataset``, an iterable of strings, dictionaries or integer arrays, or one integer array.
        out: directory, made when missing; it must not hold a complete index already.
        tokenizer: see :func:`gramcore.ngram.encoders.load_encoder`; None encodes text as UTF-8 bytes.
        token_dtype: ``"u8"``, ``"u16"`` or ``"u32"``; ids must be below the largest value, which separates documents.
        version: 4 stores documents as they are, 5 backwards.
        shards: deal documents to this many shards in turn, >= 1; None fills one shard after the other.
        memory_limit: bytes for sorting one shard, beside the mapped files; with ``shards`` None a new shard is begun
            before it would be exceeded, otherwise LimitError.
        accel: also write acceleration files, see :func:`accelerate`.
        metadata: also write ``metadata.N`` and ``metaoff.N``: path, line and other fields of each record.
        text_key: field or column that holds the text.
        on_error: ``"raise"``, or ``"skip"`` to count records that cannot be read.
        progress: show a progress bar when standard error is a terminal.
        resume: continue an interrupted build; False refuses a directory that holds one.
    Raises: ValueError for ids that do not fit, an empty source or a wrong option; FormatError naming path and line;
        FileExistsError; LimitError; OSError, also when the disk is too full for the tables.
    Reference: Liu et al. 2024, arXiv:2401.17377, section 3.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as out:
    ...     build_index(["to be or", "not to be"], out, tokenizer="bytes", token_dtype="u8").num_tokens
    19
    """
    start = perf_counter()
    width = token_bytes(token_dtype)
    if version not in (4, 5):
        raise ValueError(f"version must be 4 or 5, got {version!r}")
    limit = None
    if memory_limit is not None:
        limit = check_int("memory_limit", memory_limit, low=1) // sort_bytes_per_token(width)
        check_int(f"tokens that fit memory_limit at {sort_bytes_per_token(width)} bytes each", limit, low=1)
    if shards is not None:
        check_int("shards", shards, low=1)
    directory = Path(out)
    directory.mkdir(parents=True, exist_ok=True)
    plan = Plan.start(directory, [token_dtype, version, shards, limit, metadata, text_key], resume=resume)
    skipped = Skipped()
    if not plan.tokenized:
        records = read(source, text_key=text_key, on_error=on_error, skipped=skipped)
        tokens = _tokenize(records, load_encoder(tokenizer), plan.num_documents, progress)
        _write_shards(tokens, directory, plan, width, version == 5, shards, limit, metadata)
    _sort_shards(directory, plan, width, limit)
    if accel:
        for number in range(len(plan.shards)):
            _core.ngram.build_accel(str(directory), number, width, str(directory / f"accel.{number}"))
    num_tokens = sum(s["num_tokens"] for s in plan.shards)
    Description(token_dtype, version, len(plan.shards), plan.num_documents, num_tokens).write(directory)
    plan.remove(directory)
    size = sum(p.stat().st_size for p in directory.iterdir())
    return BuildReport(
        directory,
        plan.num_documents,
        num_tokens,
        len(plan.shards),
        size,
        skipped.count,
        skipped.first,
        perf_counter() - start,
    )


def sort_bytes_per_token(width: int) -> int:
    """Memory for sorting, per token: 4-byte positions, the text in dense symbols, and a share for bucket counts."""
    return 4 + max(width, 1) + 1


def _tokenize(
    records: Iterator[Record], encode: Encoder, skip: int, progress: bool
) -> Iterator[tuple[Record, npt.NDArray[np.integer]]]:
    """Documents as ids, encoded in batches, without the first ``skip``."""
    batch: list[Record] = []
    bar = tqdm(unit=" documents", disable=None if progress else True)

    def encoded() -> Iterator[tuple[Record, npt.NDArray[np.integer]]]:
        texts = iter(encode([r.content for r in batch if isinstance(r.content, str)]))
        for record in batch:
            bar.update()
            yield record, next(texts) if isinstance(record.content, str) else record.content
        batch.clear()

    for number, record in enumerate(records):
        if number < skip:
            continue
        batch.append(record)
        if len(batch) >= 256:
            yield from encoded()
    yield from encoded()
    bar.close()


class _Shard:
    """The files of one shard while documents are added."""

    def __init__(self, directory: Path, number: int, width: int, reverse: bool, metadata: bool) -> None:
        self.writer = _core.ngram.CorpusWriter(str(directory), number, width, reverse)
        self._paths = directory / f"metadata.{number}", directory / f"metaoff.{number}"
        self._lines: list[bytes] | None = [] if metadata else None

    def add(self, record: Record, ids: npt.NDArray[np.integer]) -> None:
        self.writer.add(ids)
        if self._lines is not None:
            fields = {"path": record.path, "linenum": record.line, "metadata": record.metadata}
            self._lines.append(json.dumps(fields).encode() + b"\n")

    def commit(self) -> dict[str, int]:
        if self._lines is not None:
            offsets = np.zeros(len(self._lines), np.dtype("<u8"))
            np.cumsum([len(line) for line in self._lines[:-1]], out=offsets[1:])
            for path, data in zip(self._paths, (b"".join(self._lines), offsets.tobytes()), strict=True):
                temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
                temporary.write_bytes(data)
                temporary.replace(path)
        facts = {"num_documents": self.writer.num_documents(), "num_tokens": self.writer.num_tokens()}
        self.writer.commit()
        return facts


def _write_shards(
    tokens: Iterator[tuple[Record, npt.NDArray[np.integer]]],
    directory: Path,
    plan: Plan,
    width: int,
    reverse: bool,
    shards: int | None,
    limit: int | None,
    metadata: bool,
) -> None:
    if shards is not None:
        dealt = [_Shard(directory, n, width, reverse, metadata) for n in range(shards)]
        count = 0
        for count, (record, ids) in enumerate(tokens, 1):
            dealt[(count - 1) % shards].add(record, ids)
        if count < shards:
            raise ValueError(f"source must hold at least one document per shard ({shards}), got {count}")
        plan.shards = [s.commit() for s in dealt]
    else:
        current: _Shard | None = None
        for record, ids in tokens:
            if limit is not None and len(ids) + 1 > limit:
                raise LimitError(f"memory_limit must let a document of {len(ids)} tokens be sorted, got {limit} tokens")
            full = current is not None and limit is not None and current.writer.num_tokens() + len(ids) + 1 > limit
            if current is not None and full:
                plan.shards.append(current.commit())
                plan.write(directory)
                current = None
            if current is None:
                current = _Shard(directory, len(plan.shards), width, reverse, metadata)
            current.add(record, ids)
        if current is not None:
            plan.shards.append(current.commit())
        if not plan.shards:
            raise ValueError("source must hold at least one document, got none")
    plan.tokenized = True
    plan.write(directory)


def _sort_shards(directory: Path, plan: Plan, width: int, limit: int | None) -> None:
    todo = [n for n in range(len(plan.shards)) if not (directory / f"table.{n}").exists()]
    needed = sum(plan.shards[n]["num_tokens"] * 8 for n in todo)
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise OSError(f"{directory}: tables need up to {needed} bytes of free disk space, got {free}; make room")
    for number in todo:
        tokens = plan.shards[number]["num_tokens"]
        if limit is not None and tokens > limit:
            raise LimitError(f"{directory}: shard {number} must have <= {limit} tokens (memory_limit), got {tokens}")
        tokenized, table = directory / f"tokenized.{number}", directory / f"table.{number}"
        _core.ngram.build_table(str(tokenized), str(table), width)


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
