"""Documents, boolean searches and attribution over an index."""

from __future__ import annotations

import mmap
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gramcore._checks import check_int
from gramcore.errors import FormatError
from gramcore.ngram.files import shard_file

if TYPE_CHECKING:
    from gramcore.ngram.index import Cnf, Ids, Index
    from gramcore.ngram.results import Found

__all__ = ["CnfFound", "Document", "Documents", "Span", "attribute", "find_cnf"]


@dataclass(slots=True)
class CnfFound:
    """Matches of a boolean search: of the rarest clause, those with every other clause near."""

    cnt: int
    approx: bool
    positions_by_shard: list[npt.NDArray[np.int64]]  # in tokens, ascending


@dataclass(slots=True)
class Document:
    """A document, or the part of it around a match."""

    doc_ix: int  # over all shards
    doc_len: int
    needle_offset: int  # of the match's first token in token_ids; in a reversed index (version 5) of its last
    token_ids: npt.NDArray[np.uint32]
    metadata: str  # a JSON line, empty when the index has none
    shard: int
    position: int  # of token_ids[0] in the shard's text


@dataclass(slots=True)
class Documents:
    """Some of the documents that hold an n-gram or match a boolean search."""

    cnt: int
    approx: bool
    documents: list[Document]


@dataclass(slots=True)
class Span:
    """A stretch [l, r) of a passage that the corpus holds, and where."""

    l: int  # noqa: E741  infini-gram's name
    r: int
    count: int
    unigram_logprob_sum: float  # natural log
    shards: npt.NDArray[np.int64] = field(repr=False, compare=False)  # (count,) of its occurrences
    positions: npt.NDArray[np.int64] = field(repr=False, compare=False)  # (count,) in tokens of the shard

    @property
    def length(self) -> int:
        """Tokens of the span."""
        return self.r - self.l

    @property
    def docs(self) -> list[tuple[int, int]]:
        """(shard, position) of each occurrence."""
        return list(zip(self.shards.tolist(), self.positions.tolist(), strict=True))


class Metadata:
    """metadata.N and metaoff.N of a shard: one JSON line per document."""

    def __init__(self, directory: Path, number: int) -> None:
        self._path = shard_file(directory, "metadata", number)
        offsets = shard_file(directory, "metaoff", number)
        self._lines: mmap.mmap | None = None
        if self._path.exists() and offsets.exists() and self._path.stat().st_size:
            with self._path.open("rb") as file:
                self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._offsets = np.memmap(offsets, np.dtype("<u8"), mode="r")

    def line(self, document: int) -> str:
        """The line of a document, without its newline."""
        if self._lines is None:
            return ""
        if document >= len(self._offsets) or int(self._offsets[document]) >= len(self._lines):
            raise FormatError(f"{self._path}: must have a line for document {document}; it is truncated")
        start = int(self._offsets[document])
        end = self._lines.find(b"\n", start)
        return self._lines[start : len(self._lines) if end < 0 else end].decode("utf-8", "replace")


def window(
    index: Index, shard: int, position: int, *, before: int | None, after: int | None, document: int | None = None
) -> Document:
    """The document at a position, cut to ``before`` tokens before and ``after`` from the position on (None: all)."""
    native = index._native
    if document is None:
        document = int(native.documents_of(shard, np.array([position]))[0])
    begin, end = native.document(shard, document)
    needle = min(max(position, begin), end)
    left = begin if before is None else max(begin, needle - before)
    right = end if after is None else min(end, max(needle, position + after))
    token_ids, offset, start = native.tokens(shard, left, right), needle - left, left
    if index.version == 5:  # stored backwards
        token_ids, offset = token_ids[::-1].copy(), len(token_ids) - 1 - offset
    first = sum(native.shard_facts(s)[1] for s in range(shard))
    line = index._metadata(shard).line(document)
    return Document(first + document, end - begin, offset, token_ids, line, shard, start)


def _clause_positions(
    index: Index, shard: int, clause: Sequence[Ids], limit: int | None
) -> tuple[npt.NDArray[np.int64], bool]:
    segments = [index._native.find(index._stored(ids))[shard] for ids in clause]
    total = sum(end - begin for begin, end in segments)
    sampled = limit is not None and total > limit
    parts = []
    for begin, end in segments:
        part = index._native.positions(shard, begin, end)
        parts.append(part[:: -(-total // limit)] if sampled and limit is not None else part)
    return np.unique(np.concatenate(parts)), sampled


def _near(
    index: Index, shard: int, pivots: npt.NDArray[np.int64], others: npt.NDArray[np.int64], reach: int
) -> npt.NDArray[np.bool_]:
    """Which pivots have one of ``others`` within ``reach`` tokens in the same document."""
    if not len(others):
        return np.zeros(len(pivots), bool)
    native = index._native
    pivot_docs = native.documents_of(shard, pivots)
    found = np.zeros(len(pivots), bool)
    at = np.searchsorted(others, pivots)
    for side in (at - 1, at):  # the nearest on either side: farther ones can only be farther or in another document
        inside = (side >= 0) & (side < len(others))
        nearest = others[np.clip(side, 0, len(others) - 1)]
        same = native.documents_of(shard, nearest) == pivot_docs
        found |= inside & same & (np.abs(nearest - pivots) <= reach)
    return found


def find_cnf(index: Index, cnf: Cnf, *, max_diff_tokens: int, max_clause_freq: int | None) -> CnfFound:
    """See :meth:`gramcore.ngram.Index.find_cnf`."""
    check_int("max_diff_tokens", max_diff_tokens, low=1)
    if max_clause_freq is not None:
        check_int("max_clause_freq", max_clause_freq, low=1)
    if not len(cnf) or any(not len(clause) or any(not len(ids) for ids in clause) for clause in cnf):
        raise ValueError("cnf must be a non-empty list of non-empty clauses of non-empty n-grams, got an empty one")
    matches, approx = [], False
    for shard in range(index.num_shards):
        clauses = []
        for clause in cnf:
            positions, sampled = _clause_positions(index, shard, clause, max_clause_freq)
            clauses.append(positions)
            approx |= sampled
        clauses.sort(key=len)
        kept = clauses[0]
        for others in clauses[1:]:
            kept = kept[_near(index, shard, kept, others, max_diff_tokens)]
        matches.append(kept)
    return CnfFound(sum(map(len, matches)), approx, matches)


def spread_ranks(found: Found, number: int) -> list[tuple[int, int]]:
    """(shard, rank) of up to ``number`` occurrences of an n-gram, spread evenly over its ranks."""
    picked = []
    most = min(check_int("maxnum", number, low=1), found.cnt)
    for i in range(most):
        at = i * found.cnt // most
        for shard, (begin, end) in enumerate(found.segment_by_shard):
            if at < end - begin:
                picked.append((shard, begin + at))
                break
            at -= end - begin
    return picked


def spread_positions(found: CnfFound, number: int) -> list[tuple[int, int]]:
    """(shard, position) of up to ``number`` matches of a boolean search, spread evenly."""
    places = [(s, int(p)) for s, positions in enumerate(found.positions_by_shard) for p in positions]
    most = min(check_int("maxnum", number, low=1), found.cnt)
    return [places[i * found.cnt // most] for i in range(most)]


def maximal_spans(
    ids: Ids, ends: npt.NDArray[np.int64], *, delim_ids: Ids, min_len: int, bow_ids: frozenset[int] | None
) -> list[tuple[int, int]]:
    """Spans [l, r) of a passage whose longest matches end at ``ends``: none inside another, by the rules of attribute.

    Args:
        ids: the passage.
        ends: (T,) end of the longest match that begins at each token.
        delim_ids, min_len, bow_ids: as for :meth:`gramcore.ngram.Index.attribute`.
    """
    tokens = [int(i) for i in ids]
    stops, limit = frozenset(map(int, delim_ids)), len(tokens)
    allowed = [0] * len(tokens)
    for i in reversed(range(len(tokens))):
        if tokens[i] in stops:
            limit = i + 1
        end = min(int(ends[i]), limit)
        if bow_ids is not None:
            if tokens[i] not in bow_ids:
                end = i
            while i < end < len(tokens) and tokens[end] not in bow_ids:
                end -= 1
        allowed[i] = end
    spans, covered = [], 0
    for i, end in enumerate(allowed):
        if end > max(covered, i):
            covered = end
            if end - i >= min_len:
                spans.append((i, end))
    return spans


def attribute(
    index: Index,
    ids: Ids,
    *,
    delim_ids: Ids,
    min_len: int,
    max_cnt: int,
    bow_ids: frozenset[int] | None,
    minus: Index | None = None,
) -> list[Span]:
    """See :meth:`gramcore.ngram.Index.attribute` and :meth:`gramcore.ngram.IndexDifference.attribute`."""
    check_int("min_len", min_len, low=0)
    check_int("max_cnt", max_cnt, low=1)
    index._forward("attribute")
    tokens: list[int] = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    stops = _marks(tokens, delim_ids) if len(delim_ids) else _NO_MARKS
    begins = _NO_MARKS if bow_ids is None else _marks(tokens, bow_ids)
    *spans, shards, positions = index._native.attribute(
        ids, stops, begins, min_len, max_cnt, None if minus is None else minus._native
    )
    found, begin = [], 0
    for left, right, count, logprob, end in zip(*spans, strict=True):
        found.append(Span(left, right, count, logprob, shards[begin:end], positions[begin:end]))
        begin = end
    return found


_NO_MARKS = np.zeros(0, np.uint8)


def _marks(tokens: Sequence[int], ids: Collection[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """Which tokens are among some ids."""
    chosen = ids if isinstance(ids, frozenset) else frozenset(map(int, ids))
    return np.fromiter((t in chosen for t in tokens), np.uint8, len(tokens))
