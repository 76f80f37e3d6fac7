"""infini-gram's own Python interface over this index: existing scripts run by changing one import."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gramcore.ngram.difference import IndexDifference
from gramcore.ngram.index import Cnf, Ids, Index
from gramcore.ngram.results import Distribution, Probability
from gramcore.ngram.search import Document, Documents, window

__all__ = ["InfiniGramEngine", "InfiniGramEngineDiff"]

_STRETCH = 1 << 24  # tokens read at once


class InfiniGramEngine:
    """Drop-in for ``infini_gram.engine.InfiniGramEngine``: the same calls and fields, as dictionaries.

    Differs from infini-gram: bad arguments raise (ValueError, TypeError, IndexError) instead of returning
    ``{'error': ...}``; ``ntd`` is exact whatever ``max_support`` (``approx`` is always False); documents are picked
    evenly over the matches instead of at random; prefetch depths and block sizes are accepted and have no effect.

    Args: index_dir: a directory, or several.  eos_token_id: stands for separators in distributions.  vocab_size:
        ids that ``compute_unigram_counts`` lists.  version, token_dtype, load_to_ram: as of :class:`Index`.
        bow_ids_path: file of ids that begin a word, for ``attribute``.  max_clause_freq, max_diff_tokens, maxnum,
        max_disp_len: defaults of the calls that take them.  Others: without effect.
    Raises: as :class:`Index`.
    Reference: Liu et al. 2024, arXiv:2401.17377.

    >>> import tempfile
    >>> from gramcore.ngram import build_index
    >>> with tempfile.TemporaryDirectory() as out:
    ...     _ = build_index([[1, 2, 3], [2, 3, 4]], out)
    ...     InfiniGramEngine(out, eos_token_id=0).count([2, 3])
    {'count': 2, 'approx': False}
    """

    def __init__(
        self,
        index_dir: str | Sequence[str],
        eos_token_id: int,
        vocab_size: int = 65535,
        version: int = 4,
        token_dtype: str = "u16",
        load_to_ram: bool = False,
        ds_prefetch_depth: int = 1,
        sa_prefetch_depth: int = 3,
        od_prefetch_depth: int = 3,
        bow_ids_path: str | None = None,
        attribution_block_size: int = 512,
        precompute_unigram_logprobs: bool = False,
        prev_shards_by_index_dir: dict[str, Any] | None = None,
        max_support: int = 1000,
        max_clause_freq: int = 50000,
        max_diff_tokens: int = 100,
        maxnum: int = 1,
        max_disp_len: int = 1000,
    ) -> None:
        self.index = Index(index_dir, token_dtype=token_dtype, version=version, load_to_ram=load_to_ram)
        self._stretches: Index | IndexDifference = self.index  # what matches of a passage are looked up in
        self.eos_token_id, self.vocab_size = eos_token_id, vocab_size
        self.max_clause_freq, self.max_diff_tokens = max_clause_freq, max_diff_tokens
        self.maxnum, self.max_disp_len = maxnum, max_disp_len
        self._width = {"u8": 1, "u16": 2, "u32": 4}[self.index.token_dtype]
        self._bow_ids: frozenset[int] | None = None
        if bow_ids_path is not None:
            lines = Path(os.fspath(bow_ids_path)).read_text().split()
            self._bow_ids = frozenset(map(int, lines))

    def find(self, input_ids: Ids) -> dict[str, Any]:
        """cnt and the rank segment in each shard."""
        found = self.index.find(input_ids)
        return {"cnt": found.cnt, "segment_by_shard": found.segment_by_shard}

    def count(self, input_ids: Ids) -> dict[str, Any]:
        """Occurrences of an n-gram."""
        return {"count": self.index.count(input_ids), "approx": False}

    def compute_unigram_counts(self, s: int) -> dict[int, int]:
        """Occurrences in a shard of each id below ``vocab_size``, of the separator and of what else occurs."""
        counts: Counter[int] = Counter()
        size = self.index._native.shard_facts(s)[0]
        for begin in range(0, size, _STRETCH):
            tokens = self.index._native.tokens(s, begin, min(begin + _STRETCH, size))
            counts.update(dict(zip(*(a.tolist() for a in np.unique(tokens, return_counts=True)), strict=True)))
        return {t: counts[t] for t in sorted({*range(self.vocab_size), self.index.separator, *counts})}

    def prob(self, prompt_ids: Ids, cont_id: int) -> dict[str, Any]:
        """n-gram probability; -1 when the prompt does not occur."""
        fields = _probability(self.index.prob(prompt_ids, cont_id))
        del fields["suffix_len"]
        return fields

    def ntd(self, prompt_ids: Ids, max_support: int | None = None) -> dict[str, Any]:
        """Exact distribution of the next token; separators appear as ``eos_token_id``."""
        fields = self._distribution(self.index.ntd(prompt_ids))
        del fields["suffix_len"]
        return fields

    def infgram_prob(self, prompt_ids: Ids, cont_id: int) -> dict[str, Any]:
        """Probability after the longest suffix of the prompt that occurs."""
        return _probability(self.index.infgram_prob(prompt_ids, cont_id))

    def infgram_ntd(self, prompt_ids: Ids, max_support: int | None = None) -> dict[str, Any]:
        """Exact distribution after the longest suffix of the prompt that occurs."""
        return self._distribution(self.index.infgram_ntd(prompt_ids))

    def find_cnf(
        self, cnf: Cnf, max_clause_freq: int | None = None, max_diff_tokens: int | None = None
    ) -> dict[str, Any]:
        """Boolean search."""
        found = self.index.find_cnf(
            cnf,
            max_clause_freq=max_clause_freq or self.max_clause_freq,
            max_diff_tokens=max_diff_tokens or self.max_diff_tokens,
        )
        pointers = [(p * self._width).tolist() for p in found.positions_by_shard]
        return {"cnt": found.cnt, "approx": found.approx, "ptrs_by_shard": pointers}

    def count_cnf(
        self, cnf: Cnf, max_clause_freq: int | None = None, max_diff_tokens: int | None = None
    ) -> dict[str, Any]:
        """Matches of a boolean search."""
        found = self.find_cnf(cnf, max_clause_freq, max_diff_tokens)
        return {"count": found["cnt"], "approx": found["approx"]}

    def search_docs(self, input_ids: Ids, maxnum: int | None = None, max_disp_len: int | None = None) -> dict[str, Any]:
        """Documents that hold an n-gram."""
        return _documents(
            self.index.search_docs(
                input_ids, maxnum=maxnum or self.maxnum, max_disp_len=max_disp_len or self.max_disp_len
            )
        )

    def search_docs_cnf(
        self,
        cnf: Cnf,
        maxnum: int | None = None,
        max_disp_len: int | None = None,
        max_clause_freq: int | None = None,
        max_diff_tokens: int | None = None,
    ) -> dict[str, Any]:
        """Documents that match a boolean search."""
        return _documents(
            self.index.search_docs_cnf(
                cnf,
                maxnum=maxnum or self.maxnum,
                max_disp_len=max_disp_len or self.max_disp_len,
                max_clause_freq=max_clause_freq or self.max_clause_freq,
                max_diff_tokens=max_diff_tokens or self.max_diff_tokens,
            )
        )

    def get_doc_by_rank(self, s: int, rank: int, max_disp_len: int | None = None) -> dict[str, Any]:
        """The document of a rank."""
        return _document(self.index.doc_by_rank(s, rank, max_disp_len=max_disp_len or self.max_disp_len))

    def get_docs_by_ranks(
        self, list_of_s_and_rank: Sequence[tuple[int, int]], max_disp_len: int | None = None
    ) -> list[dict[str, Any]]:
        """The documents of several ranks."""
        return [self.get_doc_by_rank(s, rank, max_disp_len) for s, rank in list_of_s_and_rank]

    def get_doc_by_ptr(self, s: int, ptr: int, max_disp_len: int | None = None) -> dict[str, Any]:
        """The document at a byte offset."""
        return _document(
            self.index.doc_by_position(s, self._position(ptr), max_disp_len=max_disp_len or self.max_disp_len)
        )

    def get_docs_by_ptrs(
        self, list_of_s_and_ptr: Sequence[tuple[int, int]], max_disp_len: int | None = None
    ) -> list[dict[str, Any]]:
        """The documents at several byte offsets."""
        return [self.get_doc_by_ptr(s, ptr, max_disp_len) for s, ptr in list_of_s_and_ptr]

    def get_doc_by_ix(self, doc_ix: int, max_disp_len: int | None = None) -> dict[str, Any]:
        """A document by number."""
        return _document(self.index.doc_by_ix(doc_ix, max_disp_len=max_disp_len or self.max_disp_len))

    def get_docs_by_ixs(self, list_of_doc_ix: Sequence[int], max_disp_len: int | None = None) -> list[dict[str, Any]]:
        """Documents by number."""
        return [self.get_doc_by_ix(i, max_disp_len) for i in list_of_doc_ix]

    def get_doc_by_ptr_2(self, s: int, ptr: int, needle_len: int, max_ctx_len: int) -> dict[str, Any]:
        """The document at a byte offset, ``max_ctx_len`` tokens before and after a needle."""
        position = self._position(ptr)
        return _document(window(self.index, s, position, before=max_ctx_len, after=needle_len + max_ctx_len))

    def get_doc_by_rank_2(self, s: int, rank: int, needle_len: int, max_ctx_len: int) -> dict[str, Any]:
        """The document of a rank, ``max_ctx_len`` tokens before and after a needle."""
        position = self.index._native.position(s, rank)
        return _document(window(self.index, s, position, before=max_ctx_len, after=needle_len + max_ctx_len))

    def get_docs_by_ranks_2(self, requests: Sequence[tuple[int, int, int, int]]) -> list[dict[str, Any]]:
        """Several of :meth:`get_doc_by_rank_2`."""
        return [self.get_doc_by_rank_2(*request) for request in requests]

    def get_docs_by_ptrs_2(self, requests: Sequence[tuple[int, int, int, int]]) -> list[dict[str, Any]]:
        """Several of :meth:`get_doc_by_ptr_2`."""
        return [self.get_doc_by_ptr_2(*request) for request in requests]

    def get_doc_by_ix_2(self, doc_ix: int, max_ctx_len: int) -> dict[str, Any]:
        """The first ``max_ctx_len`` tokens of a document."""
        return self.get_doc_by_ix(doc_ix, max_ctx_len)

    def get_docs_by_ixs_2(self, requests: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        """Several of :meth:`get_doc_by_ix_2`."""
        return [self.get_doc_by_ix_2(*request) for request in requests]

    def get_total_doc_cnt(self) -> int:
        """Documents of all shards."""
        return self.index.num_documents

    def creativity(self, input_ids: Ids) -> dict[str, Any]:
        """End of the longest match that begins at each token."""
        return {"rs": self._stretches.creativity(input_ids).tolist()}

    def attribute(
        self, input_ids: Ids, delim_ids: Ids, min_len: int, max_cnt: int, enforce_bow: bool
    ) -> dict[str, Any]:
        """Maximal spans of a passage that the corpus holds."""
        if enforce_bow and self._bow_ids is None:
            raise ValueError("enforce_bow needs the ids that begin a word, got none; pass bow_ids_path")
        spans = self._stretches.attribute(
            input_ids,
            delim_ids=delim_ids,
            min_len=min_len,
            max_cnt=max_cnt,
            bow_ids=self._bow_ids if enforce_bow else None,
        )
        return {
            "spans": [
                {
                    "l": s.l,
                    "r": s.r,
                    "length": s.length,
                    "count": s.count,
                    "unigram_logprob_sum": s.unigram_logprob_sum,
                    "docs": [{"s": shard, "ptr": p * self._width} for shard, p in s.docs],
                }
                for s in spans
            ]
        }

    def _position(self, ptr: int) -> int:
        if ptr % self._width:
            raise ValueError(f"ptr must be a multiple of the token width {self._width}, got {ptr}")
        return ptr // self._width

    def _distribution(self, found: Distribution) -> dict[str, Any]:
        separator = self.index.separator
        result = {
            (self.eos_token_id if token == separator else token): {"cont_cnt": n, "prob": n / found.prompt_cnt}
            for token, n in zip(found.token_ids.tolist(), found.cont_cnts.tolist(), strict=True)
        }
        return {
            "prompt_cnt": found.prompt_cnt,
            "result_by_token_id": result,
            "approx": False,
            "suffix_len": found.suffix_len,
        }


class InfiniGramEngineDiff(InfiniGramEngine):
    """Drop-in for ``infini_gram.engine.InfiniGramEngineDiff``: an engine from which a second index is taken down.

    As there, ``creativity`` and ``attribute`` take no stretch whose every occurrence is taken down, and
    ``get_docs_by_ptrs_2_grouped`` blocks documents; every other call, and the counts of spans, speak of the whole
    index. :class:`IndexDifference` subtracts counts everywhere.

    Args: index_dir_diff: an index (or several) of the documents to take down; options: as for the engine.

    >>> import tempfile
    >>> from gramcore.ngram import build_index
    >>> with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as taken:
    ...     _ = build_index([[1, 2, 3], [1, 2]], whole), build_index([[1, 2, 3]], taken)
    ...     InfiniGramEngineDiff(whole, taken, eos_token_id=0).creativity([1, 2, 3])
    {'rs': [2, 2, 2]}
    """

    def __init__(
        self,
        index_dir: str | Sequence[str],
        index_dir_diff: str | Sequence[str],
        eos_token_id: int,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(index_dir, eos_token_id, *args, **kwargs)
        minus = Index(index_dir_diff, token_dtype=self.index.token_dtype, version=self.index.version)
        self._difference = self._stretches = IndexDifference(self.index, minus)

    def get_docs_by_ptrs_2_grouped(self, requests: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """Documents of spans; those that are taken down are ``blocked`` and have no ``token_ids``.

        Args: requests: dictionaries of ``docs`` (as in spans of :meth:`attribute`), ``span_ids``, ``needle_len``,
            ``max_ctx_len``.
        """
        return [
            [
                _document(document) | ({"token_ids": [], "blocked": True} if taken else {})
                for document, taken in self._difference._windows(
                    request["span_ids"],
                    [(doc["s"], self._position(doc["ptr"])) for doc in request["docs"]],
                    request["needle_len"],
                    request["max_ctx_len"],
                )
            ]
            for request in requests
        ]


def _probability(found: Probability) -> dict[str, Any]:
    return {
        "prompt_cnt": found.prompt_cnt,
        "cont_cnt": found.cont_cnt,
        "prob": found.prob,
        "suffix_len": found.suffix_len,
    }


def _document(found: Document) -> dict[str, Any]:
    return {
        "doc_ix": found.doc_ix,
        "doc_len": found.doc_len,
        "disp_len": len(found.token_ids),
        "needle_offset": found.needle_offset,
        "metadata": found.metadata and found.metadata + "\n",  # theirs keeps the line's end
        "token_ids": found.token_ids.tolist(),
        "blocked": False,
    }


def _documents(found: Documents) -> dict[str, Any]:
    documents = [_document(d) for d in found.documents]
    count = len(documents)
    return {
        "cnt": found.cnt,
        "approx": found.approx,
        "idxs": [i * found.cnt // count for i in range(count)],
        "documents": documents,
    }
