"""What the HTTP service answers: endpoints as methods, each of a body that is within the limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gramcore._checks import check_int, check_real, require
from gramcore.ngram.encoders import Codec
from gramcore.ngram.index import Index

__all__ = ["Batches", "Limits", "Queries"]

_CHARS_PER_TOKEN = 64  # of a text that is encoded at all

#: Runs work aside and waits for its result, or raises what an HTTP client is told.
Gate = Callable[[Callable[[], Any]], Awaitable[Any]]
Answer = dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """What one request may ask: tokens per query, queries per batch, requests at once, seconds, of documents how
    many and how many tokens of each beside the match, how often an attributed span may occur, and how many places of
    a clause are looked at."""

    max_tokens: int = 2048
    max_batch: int = 1024
    max_concurrent: int = 16
    max_seconds: float = 10.0
    max_documents: int = 100
    max_shown: int = 2048
    max_span_count: int = 10_000
    max_clause_freq: int = 500_000

    def __post_init__(self) -> None:
        for name in (
            "max_tokens",
            "max_batch",
            "max_concurrent",
            "max_documents",
            "max_shown",
            "max_span_count",
            "max_clause_freq",
        ):
            check_int(name, getattr(self, name), low=1)
        check_real("max_seconds", self.max_seconds, low=0, low_open=True)


class _Endpoints:
    """An index behind a gate. ``/name`` is the method of that name."""

    def __init__(self, index: Index, gate: Gate, limits: Limits) -> None:
        self._index = index
        self._run = gate
        self._limits = limits
        self._error: Any = require("fastapi", "serve").HTTPException
        self._model: Callable[..., type] = require("pydantic", "serve").create_model


class Queries(_Endpoints):
    """Endpoints of one query, token ids or a text."""

    def __init__(self, index: Index, gate: Gate, limits: Limits, codec: Codec) -> None:
        super().__init__(index, gate, limits)
        self._codec = codec

    def add_to(self, app: Any) -> None:
        """Register the endpoints with an application."""
        body = self._model(
            "Query",
            ids=(list[int] | None, None),
            text=(str | None, None),
            cont_id=(int | None, None),
            top=(int, 20),
            maxnum=(int, 3),
            max_disp_len=(int, 60),
            min_len=(int, 3),
            max_cnt=(int, 1000),
        )
        for method in (self.count, self.ntd, self.infgram_prob, self.score, self.search_docs, self.attribute):
            _post(app, method, body)

    async def count(self, query: Any) -> Answer:
        ids = self._ids(query)
        return {"count": await self._run(lambda: self._index.count(ids)), "tokens": self._named(ids)}

    async def ntd(self, query: Any) -> Answer:
        ids = self._ids(query)
        found = await self._run(lambda: self._index.infgram_ntd(ids, top=query.top))
        rows = [
            {"id": t, "text": self._next_text(ids, t), "count": n}
            for t, n in zip(found.token_ids.tolist(), found.cont_cnts.tolist(), strict=True)
        ]
        return {"prompt_cnt": found.prompt_cnt, "suffix_len": found.suffix_len, "next": rows}

    async def infgram_prob(self, query: Any) -> Answer:
        ids = self._ids(query)
        if query.cont_id is None:
            raise self._error(422, "cont_id must be given, got none")
        found = await self._run(lambda: self._index.infgram_prob(ids, query.cont_id))
        return {name: getattr(found, name) for name in ("prompt_cnt", "cont_cnt", "prob", "suffix_len")}

    async def score(self, query: Any) -> Answer:
        ids = self._ids(query)
        found = await self._run(lambda: self._index.score(ids))
        ends = await self._run(lambda: self._index.creativity(ids))
        return {
            "tokens": self._named(ids),
            "suffix_len": found.suffix_len.tolist(),
            "prob": found.prob.tolist(),
            "longest_from": (ends - np.arange(len(ids))).tolist(),
        }

    async def search_docs(self, query: Any) -> Answer:
        ids = self._ids(query)
        shown = query.max_disp_len + 2 * len(ids)  # half of it is before the match, which is seen whole
        found = await self._run(lambda: self._index.search_docs(ids, maxnum=query.maxnum, max_disp_len=shown))
        documents = [
            {
                "doc_ix": d.doc_ix,
                "doc_len": d.doc_len,
                "needle_offset": d.needle_offset - (len(ids) - 1 if self._index.version == 5 else 0),
                "needle_len": len(ids),
                "tokens": self._named(d.token_ids.tolist()),
                "metadata": d.metadata,
            }
            for d in found.documents
        ]
        return {"cnt": found.cnt, "documents": documents}

    async def attribute(self, query: Any) -> Answer:
        ids = self._ids(query)
        spans = await self._run(lambda: self._index.attribute(ids, min_len=query.min_len, max_cnt=query.max_cnt))
        return {
            "tokens": self._named(ids),
            "spans": [{"l": s.l, "r": s.r, "count": s.count, "docs": s.docs[: query.maxnum]} for s in spans],
        }

    def _ids(self, query: Any) -> list[int]:
        """The tokens of a query, which is within the limits."""
        if (query.ids is None) == (query.text is None):
            raise self._error(422, "a query must have ids or text, and not both")
        for name, most in (
            ("maxnum", self._limits.max_documents),
            ("max_disp_len", self._limits.max_shown),
            ("max_cnt", self._limits.max_span_count),
        ):
            if getattr(query, name) > most:
                raise self._error(413, f"{name} must be <= {most}, got {getattr(query, name)}")
        ids: list[int] = self._encoded(query.text) if query.ids is None else query.ids
        if len(ids) > self._limits.max_tokens:
            raise self._error(413, f"a query must have <= {self._limits.max_tokens} tokens, got {len(ids)}")
        return ids

    def _encoded(self, text: str) -> list[int]:
        most = self._limits.max_tokens * _CHARS_PER_TOKEN
        if len(text) > most:
            raise self._error(413, f"a text must have <= {most} characters, got {len(text)}")
        try:
            text.encode()
            return list(self._codec.encode([text])[0].tolist())
        except UnicodeEncodeError as error:
            raise self._error(400, f"text must be valid Unicode, got {error.reason}") from error
        except ValueError as error:
            raise self._error(400, str(error)) from error

    def _named(self, ids: list[int]) -> list[Answer]:
        return [{"id": i, "text": text} for i, text in zip(ids, self._codec.pieces(ids), strict=True)]

    def _next_text(self, ids: list[int], token: int) -> str:
        if token == self._index.separator:
            return "<end>"
        return self._codec.pieces([*ids[-4:], token])[-1] or f"<{token}>"


class Batches(_Endpoints):
    """Endpoints of many n-grams, token ids only."""

    def add_to(self, app: Any) -> None:
        """Register the endpoints with an application."""
        many = (list[list[int]], ...)
        shape = {"maxnum": (int, 3), "max_disp_len": (int, 60), "max_diff_tokens": (int, 100)}
        for method, fields in (
            (self.count_batch, {"queries": many}),
            (self.prob_batch, {"queries": many, "cont_ids": (list[int], ...)}),
            (self.ntd_batch, {"queries": many, "top": (int, 20)}),
            (self.search_cnf, {"cnf": (list[list[list[int]]], ...), **shape}),
        ):
            _post(app, method, self._model("".join(part.title() for part in method.__name__.split("_")), **fields))

    async def count_batch(self, batch: Any) -> Answer:
        ngrams = self._limited(batch.queries)
        return {"counts": (await self._run(lambda: self._index.count_batch(ngrams))).tolist()}

    async def prob_batch(self, batch: Any) -> Answer:
        ngrams = self._limited(batch.queries)
        before, after = await self._run(lambda: self._index.prob_batch(ngrams, batch.cont_ids))
        return {"prompt_cnts": before.tolist(), "cont_cnts": after.tolist()}

    async def ntd_batch(self, batch: Any) -> Answer:
        ngrams = self._limited(batch.queries)
        found = await self._run(lambda: self._index.ntd_batch(ngrams, top=batch.top))
        return {
            "prompt_cnts": found.prompt_cnts.tolist(),
            "offsets": found.offsets.tolist(),
            "token_ids": found.token_ids.tolist(),
            "cont_cnts": found.cont_cnts.tolist(),
        }

    async def search_cnf(self, search: Any) -> Answer:
        limits = self._limits
        self._limited([ids for clause in search.cnf for ids in clause])
        if search.maxnum > limits.max_documents or search.max_disp_len > limits.max_shown:
            raise self._error(413, f"maxnum must be <= {limits.max_documents}, max_disp_len <= {limits.max_shown}")
        found = await self._run(
            lambda: self._index.search_docs_cnf(
                search.cnf,
                maxnum=search.maxnum,
                max_disp_len=search.max_disp_len,
                max_diff_tokens=search.max_diff_tokens,
                max_clause_freq=limits.max_clause_freq,
            )
        )
        documents = [
            {"doc_ix": d.doc_ix, "doc_len": d.doc_len, "needle_offset": d.needle_offset, "ids": d.token_ids.tolist()}
            for d in found.documents
        ]
        return {"cnt": found.cnt, "approx": found.approx, "documents": documents}

    def _limited(self, ngrams: list[list[int]]) -> list[list[int]]:
        queries, most = self._limits.max_batch, self._limits.max_batch * self._limits.max_tokens
        if len(ngrams) > queries or sum(map(len, ngrams)) > most:
            raise self._error(413, f"a batch must have <= {queries} queries and <= {most} tokens")
        return ngrams


def _post(app: Any, method: Callable[[Any], Awaitable[Answer]], body: type) -> None:
    """Register a method as the endpoint of its name; FastAPI reads the body's model off the annotation."""

    async def endpoint(query: Any) -> Answer:
        return await method(query)

    name = getattr(method, "__name__", "")
    endpoint.__name__, endpoint.__annotations__ = name, {"query": body}
    app.post(f"/{name}")(endpoint)
