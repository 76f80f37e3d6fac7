"""An index over HTTP: a FastAPI service with batch endpoints and limits, and a page to look at it with."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gramcore._checks import check_int, check_real, require
from gramcore.ngram.encoders import Codec, load_codec
from gramcore.ngram.index import Index

__all__ = ["Limits", "create_app"]

_PAGE = Path(__file__).with_name("serve.html")
_CHARS_PER_TOKEN = 64  # of a text that is encoded at all


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


_IDS = Codec(
    lambda texts: [np.array([_number(word) for word in t.replace(",", " ").split()], np.int64) for t in texts],
    lambda ids: "".join(f"{token} " for token in ids),
    lambda token: True,
)


def _number(word: str) -> int:
    if not word.isascii() or not word.isdigit():
        raise ValueError(f"text must be token ids with spaces between, got {word[:20]!r}; serve it with a tokenizer")
    if int(word) >= 2**32:
        raise ValueError(f"ids must be in [0, {2**32 - 1}], got {word[:20]}")
    return int(word)


class _Gate:
    """Runs work in threads, so many at once and each for so long."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._running = 0

    async def __call__(self, work: Callable[[], Any]) -> Any:
        error_type = require("fastapi", "serve").HTTPException
        most, seconds = self._limits.max_concurrent, self._limits.max_seconds
        if self._running >= most:
            raise error_type(429, f"requests at once must be <= {most}; try again")
        self._running += 1
        answer = asyncio.ensure_future(asyncio.to_thread(work))
        answer.add_done_callback(self._ended)
        try:  # a thread cannot be stopped: work that is given up on holds its place until it ends
            return await asyncio.wait_for(asyncio.shield(answer), seconds)
        except asyncio.TimeoutError as error:
            raise error_type(504, f"answer took more than {seconds} s; ask for less") from error
        except (ValueError, TypeError, IndexError) as error:
            raise error_type(400, str(error)) from error

    def _ended(self, answer: asyncio.Future[Any]) -> None:
        self._running -= 1
        if not answer.cancelled():
            answer.exception()  # looked at: nobody may be waiting any more


def _ids_of(query: Any, codec: Codec, limits: Limits) -> list[int]:
    """The tokens of a query, which is within the limits."""
    error_type = require("fastapi", "serve").HTTPException
    if (query.ids is None) == (query.text is None):
        raise error_type(422, "a query must have ids or text, and not both")
    for name, most in (
        ("maxnum", limits.max_documents),
        ("max_disp_len", limits.max_shown),
        ("max_cnt", limits.max_span_count),
    ):
        if getattr(query, name) > most:
            raise error_type(413, f"{name} must be <= {most}, got {getattr(query, name)}")
    ids: list[int] | None = query.ids
    if ids is None:
        most = limits.max_tokens * _CHARS_PER_TOKEN
        if len(query.text) > most:
            raise error_type(413, f"a text must have <= {most} characters, got {len(query.text)}")
        try:
            query.text.encode()
            ids = codec.encode([query.text])[0].tolist()
        except UnicodeEncodeError as error:
            raise error_type(400, f"text must be valid Unicode, got {error.reason}") from error
        except ValueError as error:
            raise error_type(400, str(error)) from error
    if len(ids) > limits.max_tokens:
        raise error_type(413, f"a query must have <= {limits.max_tokens} tokens, got {len(ids)}")
    return ids


def create_app(index: Index, *, tokenizer: Any = None, limits: Limits | None = None) -> Any:
    """The FastAPI application; its OpenAPI description is at ``/docs``.

    POST endpoints take ``{"ids": [...]}`` or ``{"text": "..."}``: ``/count``, ``/ntd``, ``/infgram_prob``, ``/score``,
    ``/search_docs``, ``/attribute``. ``/count_batch``, ``/prob_batch`` (with ``cont_ids``) and ``/ntd_batch`` (with
    ``top``) take ``{"queries": [[...], ...]}``; ``/search_cnf`` takes ``{"cnf": [[[...], ...], ...]}``, clauses of
    n-grams. A bad argument gives 400 or 422 with one sentence, too large a query 413, too many requests 429, too slow
    an answer 504.

    Args:
        index: forward.
        tokenizer: what :func:`gramcore.ngram.encoders.load_encoder` takes, the one the index was built with; or
            ``"ids"``: a text is token ids with spaces between.
    Raises: MissingExtraError without FastAPI; errors of load_encoder; ValueError for another tokenizer.
    """
    fastapi = require("fastapi", "serve")
    pydantic = require("pydantic", "serve")
    bounds = limits or Limits()
    codec = _IDS if tokenizer == "ids" else load_codec(tokenizer)
    if codec is not _IDS:
        index.check_tokenizer(tokenizer)
    name = _tokenizer_name(tokenizer)
    app = fastapi.FastAPI(title="gramcore index", description=repr(index))
    guarded = _Gate(bounds)
    query_type = pydantic.create_model(
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

    def ids_of(query: Any) -> list[int]:
        return _ids_of(query, codec, bounds)

    _add_queries(app, index, codec, guarded, ids_of, query_type)

    _add_batches(app, index, guarded, bounds)

    async def page() -> Any:
        return fastapi.responses.HTMLResponse(_PAGE.read_text(encoding="utf-8"))

    async def facts() -> dict[str, Any]:
        return {
            "tokens": index.num_tokens,
            "documents": index.num_documents,
            "shards": index.num_shards,
            "tokenizer": name,
        }

    app.get("/", include_in_schema=False)(page)
    app.get("/facts")(facts)
    return app


def _tokenizer_name(tokenizer: Any) -> str:
    if tokenizer is None or tokenizer == "bytes":
        return "UTF-8 bytes"
    if tokenizer == "ids":
        return "token ids with spaces between"
    if isinstance(tokenizer, (str, os.PathLike)):
        return f"tokens of {Path(tokenizer).name}"
    return f"tokens of {type(tokenizer).__name__}"


def _post(app: Any, path: str, endpoint: Callable[..., Any], body: type) -> None:
    """Register an endpoint whose one argument is a body of the given model."""
    name = next(iter(endpoint.__code__.co_varnames))
    endpoint.__annotations__ = {name: body}
    app.post(path)(endpoint)


def _add_batches(app: Any, index: Index, guarded: Callable[..., Any], bounds: Limits) -> None:
    error_type = require("fastapi", "serve").HTTPException
    create = require("pydantic", "serve").create_model
    queries = (list[list[int]], ...)

    def limited(ngrams: list[list[int]]) -> list[list[int]]:
        most = bounds.max_batch * bounds.max_tokens
        if len(ngrams) > bounds.max_batch or sum(map(len, ngrams)) > most:
            raise error_type(413, f"a batch must have <= {bounds.max_batch} queries and <= {most} tokens")
        return ngrams

    async def count_batch(batch: Any) -> dict[str, Any]:
        ngrams = limited(batch.queries)
        return {"counts": (await guarded(lambda: index.count_batch(ngrams))).tolist()}

    async def prob_batch(batch: Any) -> dict[str, Any]:
        ngrams = limited(batch.queries)
        before, after = await guarded(lambda: index.prob_batch(ngrams, batch.cont_ids))
        return {"prompt_cnts": before.tolist(), "cont_cnts": after.tolist()}

    async def ntd_batch(batch: Any) -> dict[str, Any]:
        ngrams = limited(batch.queries)
        found = await guarded(lambda: index.ntd_batch(ngrams, top=batch.top))
        return {
            "prompt_cnts": found.prompt_cnts.tolist(),
            "offsets": found.offsets.tolist(),
            "token_ids": found.token_ids.tolist(),
            "cont_cnts": found.cont_cnts.tolist(),
        }

    async def search_cnf(search: Any) -> dict[str, Any]:
        limited([ids for clause in search.cnf for ids in clause])
        if search.maxnum > bounds.max_documents or search.max_disp_len > bounds.max_shown:
            raise error_type(413, f"maxnum must be <= {bounds.max_documents}, max_disp_len <= {bounds.max_shown}")
        found = await guarded(
            lambda: index.search_docs_cnf(
                search.cnf,
                maxnum=search.maxnum,
                max_disp_len=search.max_disp_len,
                max_diff_tokens=search.max_diff_tokens,
                max_clause_freq=bounds.max_clause_freq,
            )
        )
        documents = [
            {"doc_ix": d.doc_ix, "doc_len": d.doc_len, "needle_offset": d.needle_offset, "ids": d.token_ids.tolist()}
            for d in found.documents
        ]
        return {"cnt": found.cnt, "approx": found.approx, "documents": documents}

    _post(app, "/count_batch", count_batch, create("Batch", queries=queries))
    _post(app, "/prob_batch", prob_batch, create("ProbBatch", queries=queries, cont_ids=(list[int], ...)))
    _post(app, "/ntd_batch", ntd_batch, create("NtdBatch", queries=queries, top=(int, 20)))
    shape = {"maxnum": (int, 3), "max_disp_len": (int, 60), "max_diff_tokens": (int, 100)}
    _post(app, "/search_cnf", search_cnf, create("Cnf", cnf=(list[list[list[int]]], ...), **shape))


def _add_queries(
    app: Any,
    index: Index,
    codec: Codec,
    guarded: Callable[..., Any],
    ids_of: Callable[[Any], list[int]],
    query_type: type,
) -> None:
    def named(ids: list[int]) -> list[dict[str, Any]]:
        return [{"id": i, "text": text} for i, text in zip(ids, codec.pieces(ids), strict=True)]

    def next_text(ids: list[int], token: int) -> str:
        if token == index.separator:
            return "<end>"
        return codec.pieces([*ids[-4:], token])[-1] or f"<{token}>"

    async def count(query: Any) -> dict[str, Any]:
        ids = ids_of(query)
        return {"count": await guarded(lambda: index.count(ids)), "tokens": named(ids)}

    async def ntd(query: Any) -> dict[str, Any]:
        ids = ids_of(query)
        found = await guarded(lambda: index.infgram_ntd(ids, top=query.top))
        rows = [
            {"id": t, "text": next_text(ids, t), "count": n}
            for t, n in zip(found.token_ids.tolist(), found.cont_cnts.tolist(), strict=True)
        ]
        return {"prompt_cnt": found.prompt_cnt, "suffix_len": found.suffix_len, "next": rows}

    async def infgram_prob(query: Any) -> dict[str, Any]:
        ids = ids_of(query)
        if query.cont_id is None:
            raise require("fastapi", "serve").HTTPException(422, "cont_id must be given, got none")
        found = await guarded(lambda: index.infgram_prob(ids, query.cont_id))
        return {name: getattr(found, name) for name in ("prompt_cnt", "cont_cnt", "prob", "suffix_len")}

    async def score(query: Any) -> dict[str, Any]:
        ids = ids_of(query)
        found = await guarded(lambda: index.score(ids))
        return {
            "tokens": named(ids),
            "suffix_len": found.suffix_len.tolist(),
            "prob": found.prob.tolist(),
            "longest_from": (await guarded(lambda: index.creativity(ids)) - np.arange(len(ids))).tolist(),
        }

    async def search_docs(query: Any) -> dict[str, Any]:
        ids = ids_of(query)
        shown = query.max_disp_len + 2 * len(ids)  # half of it is before the match, which is seen whole
        found = await guarded(lambda: index.search_docs(ids, maxnum=query.maxnum, max_disp_len=shown))
        documents = [
            {
                "doc_ix": d.doc_ix,
                "doc_len": d.doc_len,
                "needle_offset": d.needle_offset - (len(ids) - 1 if index.version == 5 else 0),
                "needle_len": len(ids),
                "tokens": named(d.token_ids.tolist()),
                "metadata": d.metadata,
            }
            for d in found.documents
        ]
        return {"cnt": found.cnt, "documents": documents}

    async def attribute(query: Any) -> dict[str, Any]:
        ids = ids_of(query)
        spans = await guarded(lambda: index.attribute(ids, min_len=query.min_len, max_cnt=query.max_cnt))
        return {
            "tokens": named(ids),
            "spans": [{"l": s.l, "r": s.r, "count": s.count, "docs": s.docs[: query.maxnum]} for s in spans],
        }

    for path, endpoint in (
        ("/count", count),
        ("/ntd", ntd),
        ("/infgram_prob", infgram_prob),
        ("/score", score),
        ("/search_docs", search_docs),
        ("/attribute", attribute),
    ):
        _post(app, path, endpoint, query_type)
