"""Where documents come from: files, globs, datasets, iterables of text or of token arrays."""

from __future__ import annotations

import glob
import gzip
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gramcore._checks import check_choice, require
from gramcore.errors import FormatError

__all__ = ["Reading", "Record", "expand", "read"]

_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst", ".json")


@dataclass(slots=True)
class Record:
    """One document before tokenization: text, or ids already; and where it came from."""

    content: str | npt.NDArray[np.integer]
    path: str = ""
    line: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class Reading:
    """How far reading has come, and what ``on_error="skip"`` left out."""

    total: int | None = None  # bytes of all files, or documents; None: not known before the end
    unit: str = " documents"  # or B: bytes of files as they lie on the disk
    done: int = 0
    num_skipped: int = 0
    first_skipped: str = ""

    def skip(self, error: Exception) -> None:
        """Count a record and remember the first reason."""
        self.num_skipped += 1
        self.first_skipped = self.first_skipped or str(error)


def expand(source: Any) -> list[Path] | None:
    """The files a source names (paths, globs, directories, lists of them), or None when it is no file source."""
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        path = Path(text)
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.is_file())
            if not found:
                raise FileNotFoundError(f"{text}: source must name files, got an empty directory")
        elif path.exists():
            found = [path]
        else:
            found = sorted(Path(p) for p in glob.glob(text, recursive=True) if os.path.isfile(p))
        if not found:
            raise FileNotFoundError(f"{text}: source must name files that exist, got none")
        return found
    if isinstance(source, (list, tuple)) and source:
        if all(isinstance(s, os.PathLike) for s in source):
            return [p for s in source for p in expand(s) or []]
        if all(isinstance(s, str) and len(s) < 1024 and os.path.isfile(s) for s in source[:4]):
            raise ValueError(
                f"source must hold texts, or files as pathlib.Path, got strings that name files ({source[0]!r}, ...); "
                "wrap them in Path"
            )
    return None


def read(source: Any, *, text_key: str, on_error: str, reading: Reading, metadata: bool = False) -> Iterator[Record]:
    """Records of a source, in order; ``metadata`` if their other fields are wanted too.

    Raises: FormatError naming path and line for one that cannot be read, unless ``on_error`` is ``"skip"``; TypeError
        for a document that is neither text nor an integer array.
    """
    check_choice("on_error", on_error, ("raise", "skip"))
    files = expand(source)
    if files is None:
        reading.total = len(source) if hasattr(source, "__len__") and not _is_ids(source) else None
        records = _from_iterable(source, text_key, reading)
    else:
        reading.total, reading.unit = sum(p.stat().st_size for p in files), "B"
        records = _from_files(files, text_key, reading, metadata)
    for record in records:
        if isinstance(record, Record):
            yield record
        elif on_error == "skip":
            reading.skip(record)
        else:
            raise record


def _is_ids(source: Any) -> bool:
    """Whether a source is one document of token ids."""
    if isinstance(source, np.ndarray):
        return source.ndim == 1
    return isinstance(source, (list, tuple)) and bool(source) and isinstance(source[0], (int, np.integer))


def _from_iterable(source: Any, text_key: str, reading: Reading) -> Iterator[Record | Exception]:
    if _is_ids(source):
        yield _ids_record(source)
        return
    if isinstance(source, bytes):
        raise TypeError("source must be documents or paths, got bytes")
    if isinstance(source, Mapping):
        raise TypeError(f"source must be documents, got a mapping with keys {list(source)}; give one of its values")
    if not isinstance(source, Iterable):
        raise TypeError(f"source must be paths or an iterable of documents, got {type(source).__name__}")
    for number, item in enumerate(source):
        if isinstance(item, str):
            yield _text_record(item, "", number, {})
        elif isinstance(item, Mapping):
            yield _from_fields(item, text_key, "", number)
        else:
            yield _ids_record(item, number)
        reading.done = number + 1


def _ids_record(ids: Any, number: int = 0) -> Record:
    array = np.asarray(ids)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(
            f"each document must be text or a one-dimensional integer array, got {array.dtype} of shape {array.shape} "
            f"(document {number})"
        )
    if array.dtype in (np.int8, np.int16):
        array = array.astype(np.int32)
    return Record(np.ascontiguousarray(array))


def _text_record(text: str, path: str, number: int, others: dict[str, Any]) -> Record | Exception:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return FormatError(f"{_place(path, number)}: must be valid Unicode, got {error}")
    return Record(text, path, number, others)


def _place(path: str, number: int) -> str:
    return f"{path or 'source'}:{number + 1}"


def _from_fields(item: Mapping[str, Any], text_key: str, path: str, number: int) -> Record | Exception:
    """A record whose field ``text_key`` holds text, or token ids already."""
    others = {k: v for k, v in item.items() if k != text_key}
    if text_key not in item:
        return FormatError(f"{_place(path, number)}: must hold text under {text_key!r}, got fields {sorted(item)}")
    content = item[text_key]
    if isinstance(content, str):
        return _text_record(content, path, number, others)
    ids = np.asarray(content) if isinstance(content, (list, np.ndarray)) else np.zeros((), object)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        kind = type(content).__name__
        return FormatError(f"{_place(path, number)}: must hold text or token ids under {text_key!r}, got {kind}")
    record = _ids_record(ids)
    record.path, record.line, record.metadata = path, number, others
    return record


def _from_files(files: list[Path], text_key: str, reading: Reading, metadata: bool) -> Iterator[Record | Exception]:
    before = 0
    for path in files:
        try:
            yield from _from_file(path, text_key, reading, metadata)
        except OSError as error:
            yield FormatError(f"{path}: must be readable to its end, got {error}")
        before += path.stat().st_size if path.exists() else 0
        reading.done = before


def _from_file(path: Path, text_key: str, reading: Reading, metadata: bool) -> Iterator[Record | Exception]:
    name = path.name.lower()
    if name.endswith(".npy"):
        yield from _from_npy(path)
    elif name.endswith(".parquet"):
        yield from _from_parquet(path, text_key, reading, metadata)
    elif name.endswith(_LINES):
        yield from _from_lines(path, text_key, reading)
    else:
        try:
            with path.open("rb") as raw, _decompressed(raw, path.suffix) as file:
                text = file.read().decode()
        except UnicodeDecodeError as error:
            bad = error.object[error.start]
            yield FormatError(f"{path}: must be UTF-8 text, got byte 0x{bad:02x} at {error.start}; convert the file")
        except Exception as error:  # a truncated or foreign compressed file: each codec has its own exception
            yield FormatError(f"{path}: must be readable to its end, got {error}")
        else:
            yield Record(text, str(path), 0)


def _from_npy(path: Path) -> Iterator[Record | Exception]:
    try:
        rows = np.atleast_2d(np.load(path, mmap_mode="r"))
    except (ValueError, EOFError) as error:
        yield FormatError(f"{path}: must be a .npy file of integers, got {error}")
        return
    if rows.ndim != 2 or rows.dtype.kind not in "iu":
        yield FormatError(f"{path}: must hold one or two dimensions of integers, got {rows.dtype} of {rows.shape}")
        return
    for number, row in enumerate(rows):
        record = _ids_record(row)
        record.path, record.line = str(path), number
        yield record


class _ZstdFile(io.RawIOBase):
    """Decompressed frames of a file, one behind the other; unlike zstandard's own reader it misses a truncated end."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._codec = require("zstandard", "index").ZstdDecompressor()
        self._frame = self._codec.decompressobj()
        self._begun = False  # the frame
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, to: Any) -> int:
        while not self._ready:
            more = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._begun = self._codec.decompressobj(), False
            more = more or self._file.read(1 << 17)
            if not more:
                if self._begun:
                    raise EOFError("compressed file ended inside a frame")
                return 0
            self._begun = True
            self._ready = memoryview(self._frame.decompress(more))
        size = min(len(to), len(self._ready))
        to[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


def _decompressed(raw: io.BufferedReader, suffix: str) -> Any:
    """The bytes of a file; closing it leaves ``raw`` open."""
    if suffix.lower() == ".gz":
        return gzip.GzipFile(fileobj=raw)
    return io.BufferedReader(_ZstdFile(raw), 1 << 17) if suffix.lower() == ".zst" else raw


def _from_lines(path: Path, text_key: str, reading: Reading) -> Iterator[Record | Exception]:
    before, size = reading.done, path.stat().st_size
    with path.open("rb") as raw, _decompressed(raw, path.suffix) as file:
        lines = enumerate(file)
        while True:
            try:
                number, line = next(lines)
            except StopIteration:
                return
            except Exception as error:  # a truncated or foreign compressed file: each codec has its own exception
                yield FormatError(f"{path}: must be readable to its end, got {error}")
                return
            if not line.strip():
                continue
            try:
                item = json.loads(line)
            except ValueError:
                start = line.strip()[:40].decode(errors="replace")
                yield FormatError(f"{path}:{number + 1}: must be a JSON object, got a line that starts {start!r}")
                continue
            if not isinstance(item, dict):
                yield FormatError(f"{path}:{number + 1}: must be a JSON object, got {type(item).__name__}")
                continue
            yield _from_fields(item, text_key, str(path), number)
            if number % 64 == 0:
                reading.done = before + min(raw.tell(), size)


def _from_parquet(path: Path, text_key: str, reading: Reading, metadata: bool) -> Iterator[Record | Exception]:
    parquet = require("pyarrow.parquet", "index")
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        yield FormatError(f"{path}: must be a Parquet file, got {error}")
        return
    if text_key not in file.schema_arrow.names:
        yield FormatError(f"{path}: must have a column {text_key!r}, got {', '.join(file.schema_arrow.names)}")
        return
    before, number = reading.done, 0
    try:
        for batch in file.iter_batches(columns=None if metadata else [text_key]):
            for item in batch.to_pylist():
                yield _from_fields(item, text_key, str(path), number)
                number += 1
            reading.done = before + path.stat().st_size * number // max(file.metadata.num_rows, 1)
    except (OSError, ValueError) as error:
        yield FormatError(f"{path}: must be readable to its end, got {error}")
