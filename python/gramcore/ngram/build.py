"""Building suffix-array indexes in infini-gram's file layout."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from gramcore import _core
from gramcore._checks import check_int
from gramcore.errors import FormatError
from gramcore.ngram.corpus_text import TextFormat, write_text
from gramcore.ngram.encoders import Codec, load_codec
from gramcore.ngram.files import DESCRIPTION, Description, Plan, shard_file, shard_numbers, token_bytes
from gramcore.ngram.sources import Reading, Record, read
from gramcore.ngram.tables import sort_shards

__all__ = ["BuildReport", "accelerate", "build_index", "suffix_array"]


_BATCH = 256  # documents encoded together


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
    shards: int = 1,
    memory_limit: int | None = None,
    threads: int | None = None,
    accel: bool = False,
    verify: bool = False,
    metadata: bool = False,
    text_key: str = "text",
    on_error: str = "raise",
    progress: bool = True,
    resume: bool = True,
) -> BuildReport:
    """Build an index of documents in directory ``out``.

    Writes infini-gram's ``tokenized.N``, ``table.N`` and ``offset.N`` per shard, each whole or not at all, and a
    description last, whose presence means the build is complete. A build that was killed goes on when called again
    with the same arguments: the text from its last checkpoint (every 2^26 tokens), sorting from its last block.

    Shards that fit are sorted in memory, others in blocks that are merged exactly; the files are the same.

    Args:
        source: files, a directory or a glob (text files, JSON lines plain or .gz or .zst, Parquet, .npy), a
            ``datasets.Dataset``, an iterable of strings, dictionaries or integer arrays, or one integer array. Text
            files may be compressed (.gz, .zst).
        out: directory, made when missing; it must not hold a complete index already.
        tokenizer: see :func:`gramcore.ngram.encoders.load_encoder`; None encodes text as UTF-8 bytes.
        token_dtype: ``"u8"``, ``"u16"`` or ``"u32"``; ids must be below the largest value, which separates documents.
        version: 4 stores documents as they are, 5 backwards.
        shards: deal documents to this many shards in turn, >= 1.
        memory_limit: bytes for sorting beside the mapped files, or None: three quarters of the free memory. In memory
            a token takes 4 bytes and one more than its width (7 bytes for u8), in blocks 9 bytes per token of a block
            and a quarter byte per token of the shard; either way 2 MiB and 2 MiB per thread are set aside. A limit that
            leaves nothing for blocks is refused. Not counted: the interpreter and what it holds, pages of mapped files
            (the system's to take back), and 4 bytes per id up to the largest below 2^24.
        threads: shards sorted at once, where memory allows; >= 1; None: all threads in use. A shard sorted alone uses
            all threads (``gramcore.set_num_threads``).
        accel: also write acceleration files, see :func:`accelerate`.
        verify: read the finished index back and check every rank, see :meth:`Index.verify`.
        metadata: also write ``metadata.N`` and ``metaoff.N``: path, line and other fields of each record.
        text_key: field or column that holds the text, or its token ids.
        on_error: ``"raise"``, or ``"skip"`` to count records that cannot be read.
        progress: show progress bars when standard error is a terminal.
        resume: continue an interrupted build; False refuses a directory that holds one.
    Raises: ValueError for ids that do not fit, an empty source or a wrong option; FormatError naming path and line;
        FileExistsError; LimitError when memory_limit is too small; OSError, also when the disk is too full.
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
    if memory_limit is not None:
        check_int("memory_limit", memory_limit, low=1)
    form = TextFormat(width, version == 5, check_int("shards", shards, low=1), metadata)
    workers = _core.num_threads() if threads is None else check_int("threads", threads, low=1)
    codec = load_codec(tokenizer)
    directory = Path(out)
    options = [token_dtype, version, shards, memory_limit, metadata, text_key, _tokenizer_name(tokenizer)]
    reading = Reading()
    with _directory(directory):
        plan = Plan.start(directory, options, resume=resume)
        if not plan.tokenized:
            records = read(source, text_key=text_key, on_error=on_error, reading=reading, metadata=metadata)
            write_text(_tokenize(records, codec, plan, reading, progress), directory, plan, form)
    sort_shards(directory, plan, width, memory_limit, workers, progress)
    if accel:
        for number in range(len(plan.shards)):
            _core.ngram.build_accel(str(directory), number, width, str(directory / f"accel.{number}"))
    num_tokens = sum(s["num_tokens"] for s in plan.shards)
    made_with = (_tokenizer_name(tokenizer), codec.mark()) if plan.texts else ("", "")
    Description(token_dtype, version, len(plan.shards), plan.num_documents, num_tokens, *made_with).write(directory)
    if verify:
        _verify(directory)
    plan.remove(directory)
    size = sum(p.stat().st_size for p in directory.iterdir())
    return BuildReport(
        directory,
        plan.num_documents,
        num_tokens,
        len(plan.shards),
        size,
        reading.num_skipped,
        reading.first_skipped,
        perf_counter() - start,
    )


@contextmanager
def _directory(path: Path) -> Iterator[None]:
    """The directory to write to; if it was made here it goes when the block raises before a checkpoint."""
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path}: out must be a directory, got a file; choose another name")
    made = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if made:
            with suppress(OSError):  # it holds a checkpoint
                path.rmdir()
        raise


def _tokenizer_name(tokenizer: Any) -> str:
    """What a resumed build must have in common with the first, and errors about another tokenizer say."""
    if tokenizer is None or tokenizer == "bytes":
        return "bytes"
    if isinstance(tokenizer, (str, os.PathLike)):
        return str(Path(tokenizer).resolve())
    return str(getattr(tokenizer, "name_or_path", "")) or type(tokenizer).__name__


def _verify(directory: Path) -> None:
    from gramcore.ngram.index import Index

    try:
        Index(directory).verify()
    except FormatError:
        (directory / DESCRIPTION).unlink()  # not to be taken for a complete index
        raise


def _tokenize(
    records: Iterator[Record], codec: Codec, plan: Plan, reading: Reading, progress: bool
) -> Iterator[tuple[Record, npt.NDArray[np.integer]]]:
    """Documents as ids, encoded in batches, without those that the plan has already."""
    skip = plan.num_documents
    batch: list[Record] = []

    def encoded() -> Iterator[tuple[Record, npt.NDArray[np.integer]]]:
        contents = [r.content for r in batch if isinstance(r.content, str)]
        plan.texts |= bool(contents)
        texts = iter(codec.encode(contents))
        for record in batch:
            yield record, next(texts) if isinstance(record.content, str) else record.content
        batch.clear()

    number = -1
    with tqdm(desc="reading", unit_scale=True, disable=None if progress else True) as bar:
        for number, record in enumerate(records):
            bar.total, bar.unit = reading.total, reading.unit
            if number >= skip:
                batch.append(record)
            if len(batch) >= _BATCH:
                yield from encoded()
                bar.update(reading.done - bar.n)
        yield from encoded()
        bar.update(reading.done - bar.n)
    if number < 0 and reading.num_skipped:
        raise ValueError(
            f"source must hold at least one document, got {reading.num_skipped} that cannot be read, the first "
            f"because: {reading.first_skipped}"
        )


def accelerate(path: str | os.PathLike[str], *, token_dtype: str | None = None) -> int:
    """Write acceleration files (``accel.N``) beside the shards of an index; returns their bytes.

    They hold the rank range of every token and every pair of adjacent tokens, eight bytes of tokens of every sixteenth
    suffix, and how many tokens, up to 15, each suffix shares with the one before: a search starts where its first two
    tokens lie and compares a suffix only where the text goes on differently between two samples.
    One to two bytes per corpus token. An index works without them; they may be deleted or made again.

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
        file = shard_file(directory, "accel", number)
        width = 0 if token_dtype is None else token_bytes(token_dtype)
        _core.ngram.build_accel(str(directory), number, width, str(file))
        size += file.stat().st_size
    return size
