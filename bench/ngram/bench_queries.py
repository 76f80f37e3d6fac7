"""Queries of a suffix-array index against infini-gram on the same files, warm, one thread, distinct queries."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import gramcore
import numpy as np
import numpy.typing as npt
from gramcore.ngram import Index, accelerate, build_index

from bench.harness import Bench, Contender, peer_version
from bench.ngram.corpus import corpus, documents

QUERIES = 64
LATENCIES = 400  # queries of which each is timed alone
HELD_OUT = 20_000


def run(bench: Bench) -> None:
    tokens = corpus()
    text, held_out = tokens[:-HELD_OUT], np.asarray(tokens[-HELD_OUT:])
    gramcore.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        report = build_index(documents(text), directory, progress=False)
        bench.note(f"corpus of {report.num_tokens} tokens, index {report.num_bytes / report.num_tokens:.2f} B/token")
        bench.note(f"acceleration {accelerate(directory) / report.num_tokens:.2f} B/token")
        index = Index(directory, load_to_ram=True)
        peer = _peer(directory)
        _single(bench, index, peer, np.asarray(text))
        _latencies(bench, index, peer, np.asarray(text))
        _batch(bench, index, np.asarray(text))
        _passage(bench, index, peer, held_out)
    gramcore.set_num_threads(0)


def _peer(directory: str) -> Any:
    if peer_version("infini-gram") is None:
        return None
    from infini_gram.engine import InfiniGramEngine

    return InfiniGramEngine(directory, eos_token_id=50256, vocab_size=65535, load_to_ram=True)


def _contenders(ours: Callable[[], Any], theirs: Callable[[], Any] | None) -> list[Contender]:
    found = [Contender("gramcore", ours)]
    if theirs is not None:
        found.append(Contender(str(peer_version("infini-gram")), theirs))
    return found


def _same(want: Any) -> Callable[[str, Any], None]:
    def check(name: str, got: Any) -> None:
        if got != want:
            raise AssertionError(f"{name} does not give the reference answers")

    return check


def _single(bench: Bench, index: Index, peer: Any, text: npt.NDArray[np.uint16]) -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 5, 8):
        starts = rng.integers(0, len(text) - n - 1, QUERIES)
        prompts = [text[s : s + n].tolist() for s in starts]
        nexts = [int(text[s + n]) for s in starts]
        pairs = list(zip(prompts, nexts, strict=True))
        counts = index.count_batch(prompts).tolist()
        bench.case(
            f"count, n = {n}",
            _contenders(
                lambda p=prompts: [index.count(q) for q in p],
                peer and (lambda p=prompts: [peer.count(q)["count"] for q in p]),
            ),
            check=_same(counts),
            units=QUERIES,
        )
        probs = [index.count([*q, t]) / index.count(q) for q, t in pairs]
        for call in ("prob", "infgram_prob"):
            bench.case(
                f"{call}, n = {n}",
                _contenders(
                    lambda p=pairs, c=call: [getattr(index, c)(q, t).prob for q, t in p],
                    peer and (lambda p=pairs, c=call: [getattr(peer, c)(q, t)["prob"] for q, t in p]),
                ),
                check=_same(probs),
                units=QUERIES,
            )
        bench.case(
            f"ntd, n = {n} (ours exact, theirs sampled)",
            _contenders(
                lambda p=prompts: [index.ntd(q).prompt_cnt for q in p],
                peer and (lambda p=prompts: [peer.ntd(q)["prompt_cnt"] for q in p]),
            ),
            check=_same(counts),
            units=QUERIES,
        )


def _latencies(bench: Bench, index: Index, peer: Any, text: npt.NDArray[np.uint16]) -> None:
    """Median and 99th percentile over distinct queries of the quickest of three calls each, one engine at a time."""
    rng = np.random.default_rng(2)
    for n in (1, 2, 3, 5, 8):
        starts = rng.integers(0, len(text) - n - 1, LATENCIES)
        queries = [(text[s : s + n].tolist(), int(text[s + n])) for s in starts]
        for name, call in (
            ("count", lambda engine, q, t: engine.count(q)),
            ("prob", lambda engine, q, t: engine.prob(q, t)),
            ("infgram_prob", lambda engine, q, t: engine.infgram_prob(q, t)),
            ("ntd", lambda engine, q, t: engine.ntd(q)),
        ):
            texts = []
            for engine in (index, peer):
                if engine is None:
                    continue
                times = []
                for q, t in queries[:: 4 if engine is peer else 1]:
                    best = np.inf
                    for _ in range(3):
                        started = time.perf_counter()
                        call(engine, q, t)
                        best = min(best, time.perf_counter() - started)
                    times.append(best * 1e6)
                texts.append(f"{np.median(times):.2f} / {np.percentile(times, 99):.1f}")
            bench.note(f"{name}, n = {n}, median / p99 us, warm: " + "; infini-gram ".join(texts))


def _batch(bench: Bench, index: Index, text: npt.NDArray[np.uint16]) -> None:
    starts = np.random.default_rng(1).integers(0, len(text) - 6, 100_000)
    queries = np.ascontiguousarray(text[starts[:, None] + np.arange(5)], np.uint32)
    some = [index.count(q) for q in queries[:500]]

    def check(name: str, got: npt.NDArray[np.int64]) -> None:
        if got[:500].tolist() != some:
            raise AssertionError(f"{name} does not give the reference answers")

    bench.case(
        "count_batch, 100,000 distinct 5-grams",
        [Contender("gramcore", lambda: index.count_batch(queries))],
        check=check,
        units=len(queries),
    )


def _passage(bench: Bench, index: Index, peer: Any, held_out: npt.NDArray[np.uint16]) -> None:
    ids = held_out[:256].tolist()
    probs = [index.infgram_prob(ids[:i], ids[i]).prob for i in range(len(ids))]
    bench.case(
        "score 256 held-out tokens",
        _contenders(
            lambda: index.score(ids).prob.tolist(),
            peer and (lambda: [peer.infgram_prob(ids[:i], ids[i])["prob"] for i in range(len(ids))]),
        ),
        check=_same(probs),
        units=len(ids),
    )
    bench.case(
        "creativity, 256 tokens",
        _contenders(lambda: index.creativity(ids).tolist(), peer and (lambda: peer.creativity(ids)["rs"])),
        check=_same(index.creativity(ids).tolist()),
    )
    spans = [(s.l, s.r) for s in index.attribute(ids, min_len=4, max_cnt=100)]
    bench.case(
        "attribute, 256 tokens",
        _contenders(
            lambda: [(s.l, s.r) for s in index.attribute(ids, min_len=4, max_cnt=100)],
            peer and (lambda: [(s["l"], s["r"]) for s in peer.attribute(ids, [], 4, 100, False)["spans"]]),
        ),
        check=_same(spans),
    )
