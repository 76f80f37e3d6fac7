"""Where documents come from: files, globs, datasets, iterables of text or of token arrays."""

from __future__ import annotations

import glob
import gzip
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gramcore._checks import check_choice, require
from gramcore.errors import FormatError

__all__ = ["Record", "Skipped", "expand", "read"]

_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst", ".json")


@dataclass(slots=True)
class Record:
    """One document before tokenization: text, or ids already; and where it came from."""

    content: str | npt.NDArray[np.integer]
    path: str = ""
    line: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class Skipped:
    """What ``on_error="skip"`` left out."""

    count: int = 0
    first: str = ""

    def add(self, error: Exception) -> None:
        """Count a record and remember the first reason."""
        self.count += 1
        self.first = self.first or str(error)


def expand(source: Any) -> list[Path] | None:
    """The files a source names (paths, globs, directories, lists of them), or None when it is no file source."""
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        path = Path(text)
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.is_file())
        elif path.exists():
            found = [path]
        else:
            found = sorted(Path(p) for p in glob.glob(text, recursive=True) if os.path.isfile(p))
        if not found:
            raise FileNotFoundError(f"{text}: source must name files that exist, got none")
        return found
    if isinstance(source, (list, tuple)) and source and all(isinstance(s, os.PathLike) for s in source):
        return [p for s in source for p in expand(s) or []]
    return None


def read(source: Any, *, text_key: str, on_error: str, skipped: Skipped) -> Iterator[Record]:
    """Records of a source, in order.

    Raises: FormatError naming path and line for one that cannot be read, unless ``on_error`` is ``"skip"``; TypeError
        for a document that is neither text nor an integer array.
    """
    check_choice("on_error", on_error, ("raise", "skip"))
    files = expand(source)
    if files is None:
        records = _from_iterable(source, text_key)
    else:
        records = (r for path in files for r in _from_file(path, text_key))
    for record in records:
        if isinstance(record, Record):
            yield record
        elif on_error == "skip":
            skipped.add(record)
        else:
            raise record


def _from_iterable(source: Any, text_key: str) -> Iterator[Record | Exception]:
    if isinstance(source, np.ndarray) and source.ndim == 1:
        yield _ids_record(source)
        return
    if isinstance(source, bytes):
        raise TypeError("source must be documents or paths, got bytes")
    if isinstance(source, (list, tuple)) and source and isinstance(source[0], (int, np.integer)):
        yield _ids_record(source)
        return
    if not isinstance(source, Iterable):
        raise TypeError(f"source must be paths or an iterable of documents, got {type(source).__name__}")
    for number, item in enumerate(source):
        if isinstance(item, str):
            yield Record(item, "", number)
        elif isinstance(item, dict):
            yield _from_dict(item, text_key, "", number)
        else:
            yield _ids_record(item)


def _ids_record(ids: Any) -> Record:
    array = np.asarray(ids)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(
            f"each document must be text or a one-dimensional integer array, got {array.dtype} of shape {array.shape}"
        )
    if array.dtype in (np.int8, np.int16):
        array = array.astype(np.int32)
    return Record(np.ascontiguousarray(array))


def _from_dict(item: dict[str, Any], text_key: str, path: str, number: int) -> Record | Exception:
    text = item.get(text_key)
    if not isinstance(text, str):
        return FormatError(f"{path or 'source'}:{number + 1}: must hold text under {text_key!r}, got {sorted(item)}")
    return Record(text, path, number, {k: v for k, v in item.items() if k != text_key})


def _from_file(path: Path, text_key: str) -> Iterator[Record | Exception]:
    name = path.name.lower()
    if name.endswith(".npy"):
        try:
            rows = np.atleast_2d(np.load(path, mmap_mode="r"))
        except (ValueError, EOFError) as error:
            yield FormatError(f"{path}: must be a .npy file of integers, got {error}")
            return
        for row in rows:
            yield _ids_record(row)
    elif name.endswith(".parquet"):
        yield from _from_parquet(path, text_key)
    elif name.endswith(_LINES):
        yield from _from_lines(path, text_key)
    else:
        try:
            yield Record(path.read_bytes().decode(), str(path), 0)
        except UnicodeDecodeError as error:
            yield FormatError(f"{path}: must be UTF-8 text, got {error}")


def _open(path: Path) -> io.BufferedIOBase:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.suffix == ".zst":
        stream = require("zstandard", "index").ZstdDecompressor().stream_reader(path.open("rb"))
        return io.BufferedReader(stream)
    return path.open("rb")


def _from_lines(path: Path, text_key: str) -> Iterator[Record | Exception]:
    with _open(path) as file:
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
            except ValueError as error:
                yield FormatError(f"{path}:{number + 1}: must be a JSON object, got {error}")
                continue
            if not isinstance(item, dict):
                yield FormatError(f"{path}:{number + 1}: must be a JSON object, got {type(item).__name__}")
                continue
            yield _from_dict(item, text_key, str(path), number)


def _from_parquet(path: Path, text_key: str) -> Iterator[Record | Exception]:
    parquet = require("pyarrow.parquet", "index")
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        yield FormatError(f"{path}: must be a Parquet file, got {error}")
        return
    if text_key not in file.schema_arrow.names:
        yield FormatError(f"{path}: must have a column {text_key!r}, got {', '.join(file.schema_arrow.names)}")
        return
    number = 0
    try:
        for batch in file.iter_batches(columns=[text_key]):
            for text in batch.column(0).to_pylist():
                yield _from_dict({text_key: text}, text_key, str(path), number)
                number += 1
    except (OSError, ValueError) as error:
        yield FormatError(f"{path}: must be readable to its end, got {error}")
