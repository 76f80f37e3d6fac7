"""Queries on suffix-array indexes in infini-gram's file layout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gramcore import _core
from gramcore._checks import check_int
from gramcore.errors import FormatError
from gramcore.ngram.encoders import load_codec
from gramcore.ngram.files import Description, shard_numbers, token_bytes
from gramcore.ngram.results import Distribution, DistributionBatch, Found, Probability, Score
from gramcore.ngram.search import (
    CnfFound,
    Document,
    Documents,
    Metadata,
    Span,
    attribute,
    find_cnf,
    spread_positions,
    spread_ranks,
    window,
)

__all__ = ["Cnf", "Ids", "Index", "Queries", "flatten"]

Ids: TypeAlias = Sequence[int] | npt.NDArray[np.integer]
Cnf: TypeAlias = Sequence[Sequence[Ids]]
Queries: TypeAlias = Sequence[Ids] | npt.NDArray[np.integer] | tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]


class Index:
    """A memory-mapped index over one or more directories of shards.

    Opens what :func:`build_index` or infini-gram wrote (layout versions 4 and 5; directories of its v6 indexer, one
    shard without number, ordered as 4, or as 5 when they were reversed). An n-gram of n tokens is found by
    binary search over the ranks: O(n log T), in less with acceleration files (:func:`accelerate`), and no memory beyond
    the mapped files. Counts of shards and directories add up; nothing is approximate. Methods release the GIL and may
    be called from any thread.

    Args:
        path: an index directory, or several whose counts are added.
        token_dtype: ``"u8"``, ``"u16"``, ``"u32"``, or None to take it from the files.
        version: layout version, 4 forward or 5 reversed; None takes it from the description, else 4.
        load_to_ram: read all files now into memory of this process, on huge pages where the system grants them: queries
            never wait for the disk, and miss less often in the page tables.
        use_accel: use acceleration files where they are.
    Raises: FileNotFoundError; FormatError for files that are truncated, foreign or of different shards; IndexError for
        ids outside [0, 2^32); ValueError for a query that needs a version-4 index.
    Reference: Liu et al. 2024, arXiv:2401.17377, sections 2 and 3.

    >>> import tempfile
    >>> from gramcore.ngram import build_index
    >>> with tempfile.TemporaryDirectory() as out:
    ...     index = Index(build_index([[1, 2, 3], [2, 3, 4]], out).path)
    >>> index.count([2, 3]), index.count([3, 2])
    (2, 0)
    >>> index.ntd([2, 3]).token_ids.tolist()
    [4, 65535]
    >>> index.infgram_prob([9, 2, 3], 4)
    Probability(prompt_cnt=2, cont_cnt=1, prob=0.5, suffix_len=2)
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        token_dtype: str | None = None,
        version: int | None = None,
        load_to_ram: bool = False,
        use_accel: bool = True,
    ) -> None:
        paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
        if not paths:
            raise ValueError("path must name at least one index directory, got an empty list")
        self.paths = tuple(map(Path, paths))
        self._described = [Description.read(p) for p in self.paths]
        versions = {d.version for d in self._described if d is not None} or {4}
        if version is not None:
            versions.add(check_int("version", version, low=4, high=5))
        if len(versions) > 1:
            raise FormatError(f"all indexes must be of one layout version, got {sorted(versions)} ({paths})")
        self.version = versions.pop()
        shards: list[tuple[str, int]] = []
        self._sources: list[tuple[Path, int]] = []
        for directory, description in zip(self.paths, self._described, strict=True):
            if token_dtype is None and description is not None:
                token_dtype = description.token_dtype
            self._sources += [(directory, number) for number in shard_numbers(directory, description)]
        shards = [(str(directory), number) for directory, number in self._sources]
        width = 0 if token_dtype is None else token_bytes(token_dtype)
        self._native = _core.ngram.Index(shards, width, use_accel, load_to_ram)
        self.token_dtype = {1: "u8", 2: "u16", 4: "u32"}[self._native.token_bytes()]
        self._metadata_files: dict[int, Metadata] = {}
        self._check_totals()

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Raise ValueError if texts were indexed with a tokenizer that cuts them otherwise.

        Indexes of token ids, and those that infini-gram built, do not say which tokenizer made them: any will do.

        Args: tokenizer: what :func:`gramcore.ngram.encoders.load_encoder` takes.
        """
        mark = load_codec(tokenizer).mark()
        for directory, described in zip(self.paths, self._described, strict=True):
            if described is not None:
                described.check_tokenizer(directory, mark)

    def _check_totals(self) -> None:
        end = 0
        for directory, description, shards in zip(self.paths, self._described, self.shards_by_path(), strict=True):
            begin, end = end, end + shards
            if description is None:
                continue
            facts = [self._native.shard_facts(s) for s in range(begin, end)]
            tokens, documents = sum(f[0] for f in facts), sum(f[1] for f in facts)
            if (documents, tokens) != (description.num_documents, description.num_tokens):
                raise FormatError(
                    f"{directory}: must hold {description.num_documents} documents and {description.num_tokens} "
                    f"tokens, got {documents} and {tokens}; a file is truncated or was replaced"
                )

    @property
    def num_shards(self) -> int:
        """Shards of all directories."""
        return self._native.num_shards()

    def shards_by_path(self) -> list[int]:
        """Shards of each directory."""
        both = zip(self.paths, self._described, strict=True)
        return [len(shard_numbers(directory, description)) for directory, description in both]

    @property
    def num_tokens(self) -> int:
        """Tokens of all shards, separators included."""
        return self._native.num_tokens()

    @property
    def num_documents(self) -> int:
        """Documents of all shards."""
        return sum(self._native.shard_facts(s)[1] for s in range(self.num_shards))

    @property
    def accelerated(self) -> bool:
        """Whether every shard has an acceleration file in use."""
        return all(self._native.shard_facts(s)[2] for s in range(self.num_shards))

    @property
    def separator(self) -> int:
        """The id that stands before each document."""
        return int(256 ** token_bytes(self.token_dtype) - 1)

    def _stored(self, ids: Ids) -> Ids:
        return ids if self.version == 4 else ids[::-1]

    def _forward(self, what: str) -> None:
        if self.version != 4:
            raise ValueError(f"{what} needs a forward index (version 4), got version {self.version}; build one")

    def find(self, ids: Ids) -> Found:
        """Ranks of the suffixes that begin with ``ids``, per shard; everything when ``ids`` is empty."""
        segments = self._native.find(self._stored(ids))
        return Found(sum(end - begin for begin, end in segments), segments)

    def count(self, ids: Ids) -> int:
        """Occurrences of an n-gram; the number of tokens when ``ids`` is empty."""
        return self._native.count(ids if self.version == 4 else self._stored(ids))

    def prob(self, prompt_ids: Ids, cont_id: int) -> Probability:
        """n-gram probability of ``cont_id`` after the whole prompt: count(prompt + cont) / count(prompt)."""
        if self.version == 4:
            try:
                before, after = self._native.continuation(prompt_ids, cont_id)
            except TypeError:
                _check_id("cont_id", cont_id)
                raise
        else:
            before, after = self.count(prompt_ids), self.count([*prompt_ids, cont_id])
        return Probability(before, after, after / before if before else -1.0, len(prompt_ids))

    def ntd(self, prompt_ids: Ids, *, top: int | None = None) -> Distribution:
        """Every token that follows the prompt, with exact counts.

        Args: top: keep the most frequent, >= 1, in descending order (smaller id on ties); None keeps all, by id.
        """
        self._forward("ntd")
        return Distribution(*self._native.next_tokens(prompt_ids, _top(top)), len(prompt_ids))

    def infgram_prob(self, prompt_ids: Ids, cont_id: int) -> Probability:
        """Infini-gram probability: like :meth:`prob` for the longest suffix of the prompt that occurs."""
        if self.version == 4:
            try:
                length, before, after = self._native.suffix_continuation(prompt_ids, cont_id)
            except TypeError:
                _check_id("cont_id", cont_id)
                raise
            return Probability(before, after, after / before, length)
        counts = self.suffix_counts(prompt_ids)
        length = int(np.flatnonzero(counts)[-1])
        return self.prob(prompt_ids[len(prompt_ids) - length :], cont_id)

    def infgram_ntd(self, prompt_ids: Ids, *, top: int | None = None) -> Distribution:
        """Infini-gram distribution: like :meth:`ntd` for the longest suffix of the prompt that occurs."""
        self._forward("infgram_ntd")
        length, distribution = self._native.suffix_next_tokens(prompt_ids, _top(top))
        return Distribution(*distribution, length)

    def suffix_counts(self, ids: Ids, *, max_len: int | None = None) -> npt.NDArray[np.int64]:
        """(k,) counts of the last 0, 1, 2, ... tokens of ``ids``, up to ``max_len`` or all.

        Counts of several machines add up, so one round trip gives the infini-gram suffix of all of them.
        """
        limit = len(ids) if max_len is None else check_int("max_len", max_len, low=0)
        if self.version == 4:
            return self._native.suffix_counts(ids, limit)
        return np.array([self.count(ids[len(ids) - k :]) for k in range(min(limit, len(ids)) + 1)], np.int64)

    def score(self, ids: Ids) -> Score:
        """Infini-gram probability of each token of a passage given all tokens before it."""
        self._forward("score")
        return Score(*self._native.score(ids))

    def creativity(self, ids: Ids) -> npt.NDArray[np.int64]:
        """(T,) end of the longest stretch of the corpus that begins at each token (the position itself if none)."""
        self._forward("creativity")
        return self._native.match_ends(ids, None)

    def count_batch(self, queries: Queries) -> npt.NDArray[np.int64]:
        """(Q,) counts of many n-grams; searches are interleaved, so each waits far less for memory.

        Args: queries: a list of id sequences, a (Q, n) array, or ``(ids, offsets)`` as :func:`flatten` makes.
        """
        return self._native.count_batch(*flatten(queries, reverse=self.version == 5))

    def prob_batch(self, prompts: Queries, cont_ids: Ids) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(prompt_cnt, cont_cnt), each (Q,), of many prompts and their continuations."""
        ids, offsets = flatten(prompts)
        conts = np.asarray(cont_ids, np.uint32)
        if conts.shape != (len(offsets) - 1,):
            raise ValueError(f"cont_ids must be one per prompt, got {conts.shape} for {len(offsets) - 1} prompts")
        longer = np.insert(ids, offsets[1:], conts), offsets + np.arange(len(offsets))
        return self.count_batch((ids, offsets)), self.count_batch(longer)

    def ntd_batch(self, prompts: Queries, *, top: int | None = None) -> DistributionBatch:
        """Distributions after many prompts; ``top`` as in :meth:`ntd`."""
        self._forward("ntd_batch")
        return DistributionBatch(*self._native.next_tokens_batch(*flatten(prompts), _top(top)))

    def find_cnf(self, cnf: Cnf, *, max_diff_tokens: int = 100, max_clause_freq: int | None = None) -> CnfFound:
        """Boolean search: n-grams in clauses joined by OR, clauses joined by AND.

        A match is an occurrence of the rarest clause with an occurrence of every other clause in the same document, at
        most ``max_diff_tokens`` from start to start. Exact unless a clause occurs more than ``max_clause_freq`` times
        in a shard and so is thinned evenly.
        """
        return find_cnf(self, cnf, max_diff_tokens=max_diff_tokens, max_clause_freq=max_clause_freq)

    def search_docs(self, ids: Ids, *, maxnum: int = 1, max_disp_len: int | None = 1000) -> Documents:
        """Up to ``maxnum`` documents around occurrences spread evenly over the ranks of an n-gram."""
        found = self.find(ids)
        picked = [self.doc_by_rank(s, r, max_disp_len=max_disp_len) for s, r in spread_ranks(found, maxnum)]
        return Documents(found.cnt, False, picked)

    def search_docs_cnf(
        self,
        cnf: Cnf,
        *,
        maxnum: int = 1,
        max_disp_len: int | None = 1000,
        max_diff_tokens: int = 100,
        max_clause_freq: int | None = None,
    ) -> Documents:
        """Up to ``maxnum`` documents that match a boolean search, spread evenly."""
        found = self.find_cnf(cnf, max_diff_tokens=max_diff_tokens, max_clause_freq=max_clause_freq)
        places = spread_positions(found, maxnum)
        documents = [self.doc_by_position(s, p, max_disp_len=max_disp_len) for s, p in places]
        return Documents(found.cnt, found.approx, documents)

    def doc_by_rank(self, shard: int, rank: int, *, max_disp_len: int | None = 1000) -> Document:
        """The document of the suffix of that rank, at most ``max_disp_len`` tokens around its start."""
        return self.doc_by_position(shard, self._native.position(shard, rank), max_disp_len=max_disp_len)

    def doc_by_position(self, shard: int, position: int, *, max_disp_len: int | None = 1000) -> Document:
        """The document at a position (in tokens) of a shard's text, at most ``max_disp_len`` tokens around it."""
        check_int("position", position, low=0, high=self._native.shard_facts(shard)[0] - 1)
        if max_disp_len is None:
            return window(self, shard, position, before=None, after=None)
        before = check_int("max_disp_len", max_disp_len, low=1) // 2
        return window(self, shard, position, before=before, after=max_disp_len - before)

    def doc_by_ix(self, doc_ix: int, *, max_disp_len: int | None = 1000) -> Document:
        """A document by its number over all shards, cut to its first ``max_disp_len`` tokens."""
        at = check_int("doc_ix", doc_ix, low=0, high=self.num_documents - 1)
        shard = 0
        while at >= self._native.shard_facts(shard)[1]:
            at -= self._native.shard_facts(shard)[1]
            shard += 1
        begin, _ = self._native.document(shard, at)
        return window(self, shard, begin, before=0, after=max_disp_len, document=at)

    def attribute(
        self,
        ids: Ids,
        *,
        delim_ids: Ids = (),
        min_len: int = 1,
        max_cnt: int = 1000,
        bow_ids: frozenset[int] | None = None,
    ) -> list[Span]:
        """The longest stretches of a passage that the corpus holds, with all their occurrences.

        Spans are maximal (none lies inside another), no shorter than ``min_len`` and occur at most ``max_cnt`` times.
        Args:
            delim_ids: tokens at which a span must end.
            bow_ids: tokens that begin a word; spans then begin and end at word borders.
        """
        return attribute(self, ids, delim_ids=delim_ids, min_len=min_len, max_cnt=max_cnt, bow_ids=bow_ids)

    def _metadata(self, shard: int) -> Metadata:
        if shard not in self._metadata_files:
            self._metadata_files[shard] = Metadata(*self._sources[shard])
        return self._metadata_files[shard]

    def verify(self) -> None:
        """Read everything and check it: FormatError names the file and the first entry that is wrong.

        Opening checks sizes and that acceleration files belong to these tables; here all of them is compared with what
        the tables say (an index opened with ``use_accel=False`` leaves them out), in as much memory as they take.
        """
        for shard in range(self.num_shards):
            self._native.verify(shard)

    def __repr__(self) -> str:
        return f"Index(shards={self.num_shards}, tokens={self.num_tokens}, token_dtype={self.token_dtype!r})"


def flatten(queries: Queries, *, reverse: bool = False) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Lay queries end to end: ids (sum of lengths,) uint32 and offsets (Q + 1,) int64.

    Raises: IndexError for ids outside [0, 2^32); TypeError when they are not integers.

    >>> flatten([[1, 2], [3]])[1].tolist()
    [0, 2, 3]
    """
    ids: npt.NDArray[np.integer]
    if isinstance(queries, tuple) and len(queries) == 2 and all(isinstance(q, np.ndarray) for q in queries):
        ids, offsets = np.asarray(queries[0]), np.ascontiguousarray(queries[1], np.int64)
    elif isinstance(queries, np.ndarray):
        if queries.ndim != 2:
            raise ValueError(f"queries must be a (Q, n) array or a list of sequences, got shape {queries.shape}")
        ids, offsets = queries.reshape(-1), np.arange(len(queries) + 1, dtype=np.int64) * queries.shape[1]
    else:
        arrays = [np.asarray(q) for q in queries]
        offsets = np.zeros(len(arrays) + 1, np.int64)
        np.cumsum([len(a) for a in arrays], out=offsets[1:])
        filled = [a for a in arrays if len(a)]
        ids = np.concatenate(filled) if filled else np.zeros(0, np.uint32)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"ids must be integers, got {ids.dtype}")
    if ids.dtype != np.uint32 and len(ids) and not (ids.min() >= 0 and ids.max() < 2**32):
        raise IndexError(f"ids must be in [0, {2**32 - 1}], got {int(ids.min())} to {int(ids.max())}")
    flat = np.ascontiguousarray(ids, np.uint32)
    if reverse:
        ends = np.repeat(offsets[1:] + offsets[:-1] - 1, np.diff(offsets))
        flat = flat[ends - np.arange(len(flat))]
    return flat, offsets


def _check_id(name: str, value: int) -> None:
    """Say what is wrong with an id that the native side refused; nothing when it is not that one."""
    if not 0 <= check_int(name, value) < 2**32:
        raise IndexError(f"{name} must be in [0, {2**32 - 1}], got {value}") from None


def _top(top: int | None) -> int:
    return 0 if top is None else check_int("top", top, low=1)
