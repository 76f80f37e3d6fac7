"""The FM-index over bytes of source text: size, count, locate, extract, and opening a saved one."""

from __future__ import annotations

import sysconfig
import tempfile
import time
from pathlib import Path

import gramcore
import numpy as np
from gramcore.ngram import FMIndex

from bench.harness import Bench, Contender

#: Plain source text (not in the repository); Python's own sources where it is not there.
FILE = Path(__file__).resolve().parents[1] / "data" / "linux.txt"
BYTES = 30_000_000
QUERIES = 256
#: Queries that occur more often are not located: a licence's line would be most of the run.
MOST = 1000


def text() -> bytes:
    """Up to ``BYTES`` of source text."""
    if FILE.exists():
        with FILE.open("rb") as file:
            return file.read(BYTES)
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
    return b"".join(p.read_bytes() for p in sources if "site-packages" not in p.parts)[:BYTES]


def run(bench: Bench) -> None:
    data = text()
    gramcore.set_num_threads(1)
    started = time.perf_counter()
    fm = FMIndex(data)
    seconds = time.perf_counter() - started
    bench.note(
        f"{len(data) / 1e6:.0f} MB: {fm.num_bytes / len(data):.3f} B/char, built in {seconds:.1f} s "
        f"({len(data) / seconds / 1e6:.1f} MB/s)"
    )
    starts = np.random.default_rng(0).integers(0, len(data) - 40, QUERIES).tolist()
    fives = [data[s : s + 5] for s in starts]
    counts = [data.count(q) for q in fives[:4]]  # non-overlapping: a lower bound

    def check_counts(name: str, got: list[int]) -> None:
        if any(g < c for g, c in zip(got, counts, strict=False)):
            raise AssertionError(f"{name} misses occurrences")

    bench.case("count, 5 characters", [Contender("gramcore", lambda: [fm.count(q) for q in fives])],
               check=check_counts, units=QUERIES)  # fmt: skip
    occurrences = {s: fm.count(data[s : s + 24]) for s in starts}
    rare_starts = [s for s in starts if occurrences[s] <= MOST]
    rare = [data[s : s + 24] for s in rare_starts]
    located = sum(occurrences[s] for s in rare_starts)
    bench.note(f"locate: {len(rare)} of {QUERIES} queries occur up to {MOST} times, {located} occurrences in all")

    def check_places(name: str, got: list[list[int]]) -> None:
        if any(s not in places for s, places in zip(rare_starts, got, strict=True)):
            raise AssertionError(f"{name} misses an occurrence")

    bench.case(
        "locate, per occurrence of 24 characters",
        [Contender("gramcore", lambda: [fm.locate(q).tolist() for q in rare])],
        check=check_places,
        units=located,
    )
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "fm"

        def check_size(name: str, got: FMIndex | None) -> None:
            if got is not None and len(got) != len(data):
                raise AssertionError(f"{name} opens another index")

        bench.case("save", [Contender("gramcore", lambda: fm.save(path))], check=check_size)
        bench.case("load and check", [Contender("gramcore", lambda: FMIndex.load(path))], check=check_size)
    gramcore.set_num_threads(0)
