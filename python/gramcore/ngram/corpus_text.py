"""Writing the text of an index: documents to ``tokenized.N`` and ``offset.N``, with checkpoints."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gramcore import _core
from gramcore.ngram.files import Plan
from gramcore.ngram.sources import Record

__all__ = ["PIECE_TOKENS", "TextFormat", "write_text"]

#: Tokens between two checkpoints.
PIECE_TOKENS = 1 << 26

Document = tuple[Record, npt.NDArray[np.integer]]


@dataclass(frozen=True)
class TextFormat:
    """How documents are stored: bytes per token, backwards or not, dealt to how many shards, with metadata or not."""

    width: int
    reverse: bool
    shards: int
    metadata: bool


def write_text(documents: Iterator[Document], directory: Path, plan: Plan, form: TextFormat) -> None:
    """Write what follows the documents of ``plan``, a piece at a time, then join the pieces.

    A piece is committed, and the plan with it, after every ``PIECE_TOKENS`` tokens; an interrupted call goes on there.
    """
    count = _write_pieces(documents, directory, plan, form)
    if count == 0:
        raise ValueError("source must hold at least one document, got none")
    if count < form.shards:
        for k in range(len(plan.pieces)):  # nothing to go on from: the same call would fail again
            shutil.rmtree(_folder(directory, k))
        plan.remove(directory)
        raise ValueError(f"source must hold at least one document per shard ({form.shards}), got {count}")
    plan.write(directory)
    folders = [_folder(directory, k) for k in range(len(plan.pieces))]
    for number in range(form.shards):
        bases = [0, *np.cumsum([facts[number]["num_tokens"] * form.width for facts in plan.pieces[:-1]]).tolist()]
        _join([f / f"tokenized.{number}" for f in folders], directory / f"tokenized.{number}")
        _join_offsets([f / f"offset.{number}" for f in folders], directory / f"offset.{number}", bases)
        if form.metadata:
            lines = [f / f"metadata.{number}" for f in folders]
            starts = [0, *np.cumsum([p.stat().st_size for p in lines[:-1] if p.exists()]).tolist()]
            _join_offsets([f / f"metaoff.{number}" for f in folders], directory / f"metaoff.{number}", starts)
            _join(lines, directory / f"metadata.{number}")
    plan.tokenized = True
    plan.write(directory)
    for folder in folders:
        shutil.rmtree(folder)


def _write_pieces(documents: Iterator[Document], directory: Path, plan: Plan, form: TextFormat) -> int:
    """Write and commit pieces; how many documents there are with those of earlier calls."""
    count = plan.num_documents
    document = next(documents, None)
    while document is not None:
        with _Piece(_folder(directory, len(plan.pieces)), form) as piece:
            while document is not None and piece.num_tokens < PIECE_TOKENS:
                piece.add(count % form.shards, *document)
                count += 1
                document = next(documents, None)
            plan.pieces.append(piece.commit())
        plan.write(directory)
    return count


def _folder(directory: Path, number: int) -> Path:
    return directory / f"piece-{number}"


class _Piece:
    """Shard files of the documents between two checkpoints, in a folder of their own."""

    def __init__(self, folder: Path, form: TextFormat) -> None:
        if folder.exists():  # begun by a build that was killed
            shutil.rmtree(folder)
        folder.mkdir()
        self.num_tokens = 0
        self._folder: Path | None = folder  # to be removed unless committed
        self._writers = [_core.ngram.CorpusWriter(str(folder), n, form.width, form.reverse) for n in range(form.shards)]
        self._lines = [_Lines(folder, n) for n in range(form.shards)] if form.metadata else []

    def __enter__(self) -> _Piece:
        return self

    def __exit__(self, *_: object) -> None:
        for lines in self._lines:
            lines.close()
        if self._folder is not None:
            shutil.rmtree(self._folder)

    def add(self, shard: int, record: Record, ids: npt.NDArray[np.integer]) -> None:
        try:
            self._writers[shard].add(ids)
        except ValueError as error:
            raise ValueError(f"{record.path}:{record.line + 1}: {error}" if record.path else str(error)) from None
        self.num_tokens += len(ids) + 1
        if self._lines:
            self._lines[shard].add(record)

    def commit(self) -> list[dict[str, int]]:
        """Make the files whole; documents and tokens per shard."""
        for lines in self._lines:
            lines.write_offsets()
        for writer in self._writers:
            writer.commit()
        self._folder = None
        return [{"num_documents": w.num_documents(), "num_tokens": w.num_tokens()} for w in self._writers]


class _Lines:
    """``metadata.N`` and ``metaoff.N`` of one piece."""

    def __init__(self, folder: Path, number: int) -> None:
        self._file = (folder / f"metadata.{number}").open("wb")
        self._offsets_path = folder / f"metaoff.{number}"
        self._offsets: list[int] = []

    def add(self, record: Record) -> None:
        self._offsets.append(self._file.tell())
        fields = {"path": record.path, "linenum": record.line, "metadata": record.metadata}
        self._file.write(json.dumps(fields, default=str).encode() + b"\n")

    def close(self) -> None:
        self._file.close()

    def write_offsets(self) -> None:
        self._offsets_path.write_bytes(np.array(self._offsets, np.dtype("<u8")).tobytes())


def _join(parts: Sequence[Path], target: Path) -> None:
    if len(parts) == 1:
        if parts[0].exists():  # else an interrupted call has moved it
            parts[0].replace(target)
        return
    temporary = _temporary(target)
    with temporary.open("wb") as file:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 24)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)


def _join_offsets(parts: Sequence[Path], target: Path, bases: Sequence[int]) -> None:
    if len(parts) == 1:
        return _join(parts, target)
    temporary = _temporary(target)
    with temporary.open("wb") as file:
        for part, base in zip(parts, bases, strict=True):
            (np.fromfile(part, np.dtype("<u8")) + np.uint64(base)).tofile(file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)


def _temporary(target: Path) -> Path:
    return target.with_name(f"{target.name}.tmp-{os.getpid()}")
