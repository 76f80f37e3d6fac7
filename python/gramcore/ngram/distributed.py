"""An index over many machines: shards built as Ray tasks, queries scattered to actors that hold shards."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gramcore._checks import check_int, require
from gramcore.errors import LimitError
from gramcore.ngram.index import Cnf, Ids, Index, Queries, flatten
from gramcore.ngram.results import Distribution, Found, Probability, Score
from gramcore.ngram.search import (
    CnfFound,
    Document,
    Documents,
    Span,
    maximal_spans,
    spread_positions,
    spread_ranks,
)

__all__ = ["DistributedIndex", "build_shards"]


def _ray() -> Any:
    return require("ray", "ray")


def build_shards(sources: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], **options: Any) -> list[Path]:
    """Build one index directory per source, each as a Ray task; returns their paths in order.

    Args:
        sources: files, directories or globs that every worker can read.
        out: directory on a file system that all nodes share; part i goes to ``out/part-i``. Parts that are complete are
            kept, interrupted ones go on, so a second call after a failure does the rest.
        options: of :func:`gramcore.ngram.build_index`.
    Raises: MissingExtraError without Ray; what the build of a part raises.
    """
    ray = _ray()
    parts = [Path(out) / f"part-{i}" for i in range(len(sources))]

    def build(source: str, part: str) -> None:
        from gramcore.ngram.build import build_index
        from gramcore.ngram.files import Description

        if Description.read(Path(part)) is None:
            build_index(source, part, progress=False, **options)

    task = ray.remote(build)
    ray.get([task.remote(os.fspath(s), str(p)) for s, p in zip(sources, parts, strict=True)])
    return parts


class _Holder:
    """Runs in an actor: the shards of some directories, open."""

    def __init__(self, paths: list[str], options: dict[str, Any]) -> None:
        self.index = Index(paths, **options)

    def facts(self) -> tuple[int, list[list[int]]]:
        """Tokens, and the documents of each shard of each directory."""
        index = self.index
        counts = iter([index._native.shard_facts(s)[1] for s in range(index.num_shards)])
        return index.num_tokens, [[next(counts) for _ in range(n)] for n in index.shards_by_path()]

    def count_batch(self, ids: npt.NDArray[np.uint32], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return self.index.count_batch((ids, offsets))

    def prob_batch(
        self, ids: npt.NDArray[np.uint32], offsets: npt.NDArray[np.int64], cont_ids: Ids
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return self.index.prob_batch((ids, offsets), cont_ids)

    def suffix_counts(self, ids: Sequence[int]) -> npt.NDArray[np.int64]:
        return self.index.suffix_counts(ids)

    def suffix_and_next(self, ids: Sequence[int], token: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Counts of every suffix alone and followed by the token."""
        longer = self.index.suffix_counts([*ids, token])[1:]
        return self.index.suffix_counts(ids), longer

    def ntd(self, ids: Sequence[int]) -> Distribution:
        return self.index.ntd(ids)

    def infgram_ntd(self, ids: Sequence[int]) -> Distribution:
        return self.index.infgram_ntd(ids)

    def suffix_lens(self, ids: Sequence[int]) -> npt.NDArray[np.int64]:
        return self.index.score(ids).suffix_len

    def creativity(self, ids: Sequence[int]) -> npt.NDArray[np.int64]:
        return self.index.creativity(ids)

    def find(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        return self.index.find(ids).segment_by_shard

    def find_cnf(self, cnf: Cnf, options: dict[str, Any]) -> CnfFound:
        return self.index.find_cnf(cnf, **options)

    def documents(self, places: list[tuple[int, int]], by_rank: bool, max_disp_len: int | None) -> list[Document]:
        """Documents at ranks or positions of shards, numbered within their shards."""
        index, found = self.index, []
        for shard, at in places:
            document = (index.doc_by_rank if by_rank else index.doc_by_position)(shard, at, max_disp_len=max_disp_len)
            document.doc_ix -= sum(index._native.shard_facts(s)[1] for s in range(shard))
            found.append(document)
        return found

    def places(self, ngrams: list[list[int]]) -> list[list[npt.NDArray[np.int64]]]:
        """Positions of every occurrence of n-grams, ascending, by shard."""
        native = self.index._native
        segments = [self.find(ids) for ids in ngrams]
        return [[np.sort(native.positions(s, *part)) for s, part in enumerate(parts)] for parts in segments]


class DistributedIndex:
    """The queries of :class:`Index` over directories held by Ray actors; the same answers as a local index.

    Directories are dealt to ``num_actors`` actors in turn. A query goes to all of them at once and the counts add up;
    actors return counts of every suffix length, so infini-gram probabilities take one round trip. When an actor is
    lost, another is started with its directories and the call is repeated, at most ``max_retries`` times per query.

    Args: paths: directories every node can read. num_actors: >= 1. max_retries: >= 0. options: of :class:`Index`.
    Raises: MissingExtraError without Ray; LimitError when an actor fails more than ``max_retries`` times in a query.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        num_actors: int = 2,
        max_retries: int = 3,
        **options: Any,
    ) -> None:
        if not len(paths):
            raise ValueError("paths must name at least one index directory, got none")
        self._ray = _ray()
        self._class = self._ray.remote(_Holder)
        self._options = options
        self._max_retries = check_int("max_retries", max_retries, low=0)
        number = min(check_int("num_actors", num_actors, low=1), len(paths))
        self._paths = [[os.fspath(p) for p in paths[i::number]] for i in range(number)]
        self._actors = [self._start(i) for i in range(number)]
        facts = self._all(lambda actor: actor.facts.remote())
        self.num_tokens = sum(tokens for tokens, _ in facts)
        #: of each shard, in the order of a local index: its actor, its number there, and its first document's
        self._shards: list[tuple[int, int, int]] = []
        self.num_documents = 0
        held = [0] * number
        for i in range(len(paths)):
            for documents in facts[i % number][1][i // number]:
                self._shards.append((i % number, held[i % number], self.num_documents))
                held[i % number] += 1
                self.num_documents += documents

    def _start(self, number: int) -> Any:
        return self._class.remote(self._paths[number], self._options)

    def _all(self, call: Callable[[Any], Any]) -> list[Any]:
        """Results of a call on every actor, in order."""
        return [result for _, result in sorted(self._ask(dict.fromkeys(range(len(self._actors)), call)).items())]

    def _ask(self, calls: Mapping[int, Callable[[Any], Any]]) -> dict[int, Any]:
        """Results of calls on actors by their number; lost actors are replaced and asked again."""
        pending = {i: call(self._actors[i]) for i, call in calls.items()}
        results: dict[int, Any] = {}
        for attempt in range(self._max_retries + 1):
            lost = []
            for i, reference in pending.items():
                try:
                    results[i] = self._ray.get(reference)
                except self._ray.exceptions.RayActorError as error:
                    if attempt == self._max_retries:
                        raise LimitError(
                            f"actor {i} must answer within {self._max_retries} retries, got {error}; check its node"
                        ) from error
                    lost.append(i)
            if not lost:
                break
            for i in lost:
                self._actors[i] = self._start(i)
            pending = {i: calls[i](self._actors[i]) for i in lost}
        return results

    def count(self, ids: Ids) -> int:
        """Occurrences of an n-gram."""
        return int(self.count_batch([ids])[0])

    def count_batch(self, queries: Queries) -> npt.NDArray[np.int64]:
        """(Q,) counts of many n-grams, one round trip."""
        ids, offsets = flatten(queries)
        return np.sum(self._all(lambda actor: actor.count_batch.remote(ids, offsets)), axis=0)

    def suffix_counts(self, ids: Ids) -> npt.NDArray[np.int64]:
        """Counts of the last 0, 1, 2, ... tokens."""
        prompt = [int(i) for i in ids]
        return np.sum(self._all(lambda actor: actor.suffix_counts.remote(prompt)), axis=0)

    def prob(self, prompt_ids: Ids, cont_id: int) -> Probability:
        """n-gram probability, one round trip."""
        before, after = self.count_batch([prompt_ids, [*prompt_ids, cont_id]]).tolist()
        return Probability(before, after, after / before if before else -1.0, len(prompt_ids))

    def infgram_prob(self, prompt_ids: Ids, cont_id: int) -> Probability:
        """Infini-gram probability, one round trip."""
        prompt = [int(i) for i in prompt_ids]
        both = self._all(lambda actor: actor.suffix_and_next.remote(prompt, cont_id))
        before, after = np.sum([b for b, _ in both], axis=0), np.sum([a for _, a in both], axis=0)
        length = int(np.flatnonzero(before)[-1])
        counts = int(before[length]), int(after[length])
        return Probability(*counts, counts[1] / counts[0], length)

    def prob_batch(self, prompts: Queries, cont_ids: Ids) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(prompt_cnt, cont_cnt), each (Q,), of many prompts and their continuations, one round trip."""
        ids, offsets = flatten(prompts)
        both = self._all(lambda actor: actor.prob_batch.remote(ids, offsets, cont_ids))
        return np.sum([b for b, _ in both], axis=0), np.sum([a for _, a in both], axis=0)

    def ntd(self, prompt_ids: Ids) -> Distribution:
        """Exact next-token distribution, one round trip."""
        prompt = [int(i) for i in prompt_ids]
        return _merge(self._all(lambda actor: actor.ntd.remote(prompt)))

    def infgram_ntd(self, prompt_ids: Ids) -> Distribution:
        """Infini-gram distribution, one round trip: an actor with a shorter match than others has none of theirs."""
        prompt = [int(i) for i in prompt_ids]
        parts = self._all(lambda actor: actor.infgram_ntd.remote(prompt))
        longest = max(p.suffix_len for p in parts)
        return _merge([p for p in parts if p.suffix_len == longest])

    def score(self, ids: Ids) -> Score:
        """Infini-gram probability of each token of a passage, two round trips: lengths of matches, then counts."""
        passage = [int(i) for i in ids]
        lengths: npt.NDArray[np.int64] = np.max(self._all(lambda actor: actor.suffix_lens.remote(passage)), axis=0)
        prompts = [passage[i - n : i] for i, n in enumerate(lengths.tolist())]
        return Score(lengths, *self.prob_batch(prompts, passage))

    def creativity(self, ids: Ids) -> npt.NDArray[np.int64]:
        """(T,) end of the longest stretch that begins at each token, one round trip."""
        passage = [int(i) for i in ids]
        ends: npt.NDArray[np.int64] = np.max(self._all(lambda actor: actor.creativity.remote(passage)), axis=0)
        return ends

    def find(self, ids: Ids) -> Found:
        """Ranks of the suffixes that begin with ``ids``, per shard, one round trip."""
        ngram = [int(i) for i in ids]
        parts = self._all(lambda actor: actor.find.remote(ngram))
        segments = [parts[actor][shard] for actor, shard, _ in self._shards]
        return Found(sum(end - begin for begin, end in segments), segments)

    def find_cnf(self, cnf: Cnf, *, max_diff_tokens: int = 100, max_clause_freq: int | None = None) -> CnfFound:
        """Boolean search as by :meth:`Index.find_cnf`, one round trip."""
        options = {"max_diff_tokens": max_diff_tokens, "max_clause_freq": max_clause_freq}
        parts = self._all(lambda actor: actor.find_cnf.remote(cnf, options))
        positions = [parts[actor].positions_by_shard[shard] for actor, shard, _ in self._shards]
        return CnfFound(sum(map(len, positions)), any(p.approx for p in parts), positions)

    def search_docs(self, ids: Ids, *, maxnum: int = 1, max_disp_len: int | None = 1000) -> Documents:
        """Documents as by :meth:`Index.search_docs`, two round trips."""
        found = self.find(ids)
        return Documents(found.cnt, False, self._documents(spread_ranks(found, maxnum), True, max_disp_len))

    def search_docs_cnf(
        self,
        cnf: Cnf,
        *,
        maxnum: int = 1,
        max_disp_len: int | None = 1000,
        max_diff_tokens: int = 100,
        max_clause_freq: int | None = None,
    ) -> Documents:
        """Documents as by :meth:`Index.search_docs_cnf`, two round trips."""
        found = self.find_cnf(cnf, max_diff_tokens=max_diff_tokens, max_clause_freq=max_clause_freq)
        documents = self._documents(spread_positions(found, maxnum), False, max_disp_len)
        return Documents(found.cnt, found.approx, documents)

    def _documents(self, places: list[tuple[int, int]], by_rank: bool, max_disp_len: int | None) -> list[Document]:
        """Documents at (shard, rank or position), those of an actor in one call, numbered over all shards."""
        wanted: dict[int, list[tuple[int, int]]] = {}
        for shard, at in places:
            actor, number, _ = self._shards[shard]
            wanted.setdefault(actor, []).append((number, at))
        calls = {
            i: lambda actor, some=some: actor.documents.remote(some, by_rank, max_disp_len)
            for i, some in wanted.items()
        }
        found = {i: iter(documents) for i, documents in self._ask(calls).items()}
        documents = []
        for shard, _ in places:
            actor, _, first = self._shards[shard]
            document = next(found[actor])
            documents.append(replace(document, shard=shard, doc_ix=first + document.doc_ix))
        return documents

    def attribute(
        self,
        ids: Ids,
        *,
        delim_ids: Ids = (),
        min_len: int = 1,
        max_cnt: int = 1000,
        bow_ids: frozenset[int] | None = None,
    ) -> list[Span]:
        """Spans as by :meth:`Index.attribute`, three round trips: ends of matches, counts, places."""
        check_int("min_len", min_len, low=0)
        check_int("max_cnt", max_cnt, low=1)
        passage = [int(i) for i in ids]
        ends = self.creativity(passage)
        spans = maximal_spans(passage, ends, delim_ids=delim_ids, min_len=min_len, bow_ids=bow_ids)
        counts = self.count_batch([*([t] for t in passage), *(passage[a:b] for a, b in spans)]).tolist()
        logprobs = [math.log(max(n, 1) / self.num_tokens) for n in counts[: len(passage)]]
        kept = [(*span, n) for span, n in zip(spans, counts[len(passage) :], strict=True) if n <= max_cnt]
        ngrams = [passage[a:b] for a, b, _ in kept]
        parts = self._all(lambda actor: actor.places.remote(ngrams))
        found = []
        for k, (left, right, count) in enumerate(kept):
            by_shard = [parts[actor][k][shard] for actor, shard, _ in self._shards]
            shards = np.repeat(np.arange(len(by_shard)), [len(p) for p in by_shard])
            logprob = sum(logprobs[left:right])
            found.append(Span(left, right, count, logprob, shards, np.concatenate(by_shard)))
        return found

    def close(self) -> None:
        """Stop the actors."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []


def _merge(parts: Sequence[Distribution]) -> Distribution:
    """The distribution over all parts, which are of one prompt."""
    tokens, inverse = np.unique(np.concatenate([p.token_ids for p in parts]), return_inverse=True)
    counts = np.zeros(len(tokens), np.int64)
    np.add.at(counts, inverse, np.concatenate([p.cont_cnts for p in parts]))
    return Distribution(sum(p.prompt_cnt for p in parts), tokens, counts, parts[0].suffix_len)
