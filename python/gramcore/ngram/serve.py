"""An index over HTTP: a FastAPI service with batch endpoints and limits, and a page to look at it with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gramcore._checks import check_int, check_real, require
from gramcore.ngram.index import Index

__all__ = ["Limits", "create_app"]

_PAGE = Path(__file__).with_name("serve.html")


@dataclass(frozen=True)
class Limits:
    """What one request may ask: tokens per query, queries per batch, requests at once, seconds."""

    max_tokens: int = 2048
    max_batch: int = 1024
    max_concurrent: int = 16
    max_seconds: float = 10.0

    def __post_init__(self) -> None:
        for name in ("max_tokens", "max_batch", "max_concurrent"):
            check_int(name, getattr(self, name), low=1)
        check_real("max_seconds", self.max_seconds, low=0, low_open=True)


class _Codec:
    """Text to ids and back for the page."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        if self._tokenizer is None:
            return list(text.encode())
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        return list(getattr(ids, "ids", ids))

    def decode(self, token: int) -> str:
        if self._tokenizer is None:
            return bytes([token]).decode("latin-1") if token < 256 else f"<{token}>"
        return str(self._tokenizer.decode([token])) or f"<{token}>"


def create_app(index: Index, *, tokenizer: Any = None, limits: Limits | None = None) -> Any:
    """The FastAPI application; its OpenAPI description is at ``/docs``.

    POST endpoints take ``{"ids": [...]}`` or ``{"text": "..."}`` (with ``tokenizer``, else UTF-8 bytes):
    ``/count``, ``/ntd``, ``/infgram_prob``, ``/score``, ``/search_docs``, ``/attribute``; ``/count_batch`` takes
    ``{"queries": [[...], ...]}``. A bad argument gives 400 or 422 with one sentence, too large a query 413, too many
    requests 429, too slow an answer 504.

    Args: index: forward. tokenizer: with ``encode(text, add_special_tokens=)`` and ``decode(ids)``.
    Raises: MissingExtraError without FastAPI.
    """
    fastapi = require("fastapi", "serve")
    pydantic = require("pydantic", "serve")
    bounds = limits or Limits()
    codec = _Codec(tokenizer)
    app = fastapi.FastAPI(title="gramcore index", description=repr(index))
    running = 0

    async def guarded(work: Callable[[], Any]) -> Any:
        nonlocal running
        if running >= bounds.max_concurrent:
            raise fastapi.HTTPException(429, f"requests at once must be <= {bounds.max_concurrent}; try again")
        running += 1
        try:
            return await asyncio.wait_for(asyncio.to_thread(work), bounds.max_seconds)
        except asyncio.TimeoutError as error:
            raise fastapi.HTTPException(504, f"answer took more than {bounds.max_seconds} s; ask for less") from error
        except (ValueError, TypeError, IndexError) as error:
            raise fastapi.HTTPException(400, str(error)) from error
        finally:
            running -= 1

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
    batch_type = pydantic.create_model("Batch", queries=(list[list[int]], ...))

    def ids_of(query: Any) -> list[int]:
        if (query.ids is None) == (query.text is None):
            raise fastapi.HTTPException(422, "a query must have ids or text, and not both")
        ids = query.ids if query.ids is not None else codec.encode(query.text)
        if len(ids) > bounds.max_tokens:
            raise fastapi.HTTPException(413, f"a query must have <= {bounds.max_tokens} tokens, got {len(ids)}")
        return list(ids)

    _add_queries(app, index, codec, guarded, ids_of, query_type)

    async def count_batch(batch: Any) -> dict[str, Any]:
        total = sum(map(len, batch.queries))
        if len(batch.queries) > bounds.max_batch or total > bounds.max_batch * bounds.max_tokens:
            raise fastapi.HTTPException(413, f"a batch must have <= {bounds.max_batch} queries")
        return {"counts": (await guarded(lambda: index.count_batch(batch.queries))).tolist()}

    _post(app, "/count_batch", count_batch, batch_type)

    async def page() -> Any:
        return fastapi.responses.HTMLResponse(_PAGE.read_text(encoding="utf-8"))

    async def facts() -> dict[str, Any]:
        return {"tokens": index.num_tokens, "documents": index.num_documents, "shards": index.num_shards}

    app.get("/", include_in_schema=False)(page)
    app.get("/facts")(facts)
    return app


def _post(app: Any, path: str, endpoint: Callable[..., Any], body: type) -> None:
    """Register an endpoint whose one argument is a body of the given model."""
    name = next(iter(endpoint.__code__.co_varnames))
    endpoint.__annotations__ = {name: body}
    app.post(path)(endpoint)


def _add_queries(
    app: Any,
    index: Index,
    codec: _Codec,
    guarded: Callable[..., Any],
    ids_of: Callable[[Any], list[int]],
    query_type: type,
) -> None:
    def named(ids: list[int]) -> list[dict[str, Any]]:
        return [{"id": i, "text": codec.decode(i)} for i in ids]

    async def count(query: Any) -> dict[str, Any]:
        ids = ids_of(query)
        return {"count": await guarded(lambda: index.count(ids)), "tokens": named(ids)}

    async def ntd(query: Any) -> dict[str, Any]:
        ids = ids_of(query)
        found = await guarded(lambda: index.infgram_ntd(ids, top=query.top))
        rows = [
            {"id": t, "text": codec.decode(t) if t != index.separator else "<end>", "count": n}
            for t, n in zip(found.token_ids.tolist(), found.cont_cnts.tolist(), strict=True)
        ]
        return {"prompt_cnt": found.prompt_cnt, "suffix_len": found.suffix_len, "next": rows}

    async def infgram_prob(query: Any) -> dict[str, Any]:
        ids = ids_of(query)
        if query.cont_id is None:
            raise ValueError("cont_id must be given, got none")
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
        found = await guarded(lambda: index.search_docs(ids, maxnum=query.maxnum, max_disp_len=query.max_disp_len))
        documents = [
            {
                "doc_ix": d.doc_ix,
                "doc_len": d.doc_len,
                "needle_offset": d.needle_offset,
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
