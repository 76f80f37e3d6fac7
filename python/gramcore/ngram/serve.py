"""An index over HTTP: a FastAPI service with batch endpoints and limits, and a page to look at it with."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gramcore._checks import require
from gramcore.ngram.encoders import Codec, load_codec
from gramcore.ngram.endpoints import Batches, Limits, Queries
from gramcore.ngram.index import Index

__all__ = ["Limits", "create_app"]

_PAGE = Path(__file__).with_name("serve.html")


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
    bounds = limits or Limits()
    codec = _IDS if tokenizer == "ids" else load_codec(tokenizer)
    if codec is not _IDS:
        index.check_tokenizer(tokenizer)
    name = _tokenizer_name(tokenizer)
    app = fastapi.FastAPI(title="gramcore index", description=repr(index))
    guarded = _Gate(bounds)
    Queries(index, guarded, bounds, codec).add_to(app)
    Batches(index, guarded, bounds).add_to(app)

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
