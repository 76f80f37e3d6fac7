"""Building an index: files to files, ours against infini-gram, one run each; block repeats; the suffix automaton."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

import gramcore
import numpy as np
import numpy.typing as npt
from gramcore import _core
from gramcore.ngram import SuffixAutomaton, build_index

from bench.harness import Bench, Contender, peer_version
from bench.ngram.corpus import corpus, documents

TOKENS = 88_000_000
BLOCK = 500_000


def run(bench: Bench) -> None:
    tokens = np.asarray(corpus()[:TOKENS])
    with tempfile.TemporaryDirectory(prefix="gc-") as root:
        _against_infini_gram(bench, tokens, Path(root))
        _repeats(bench, tokens, Path(root))
        _wide(bench, tokens, Path(root))
    _automaton(bench, tokens[:2_000_000].astype(np.int32))


def _against_infini_gram(bench: Bench, tokens: npt.NDArray[np.uint16], root: Path) -> None:
    out = root / "index"
    build_index(documents(tokens), out, progress=False)
    started = time.perf_counter()
    _core.ngram.build_table(str(out / "tokenized.0"), str(root / "again"), 2)
    ours = time.perf_counter() - started
    bench.note(f"table of {len(tokens)} u16 tokens: {ours:.2f} s, {len(tokens) / ours / 1e6:.1f} Mtok/s")
    if peer_version("infini-gram") is None:
        bench.note("infini-gram is not installed: no comparison")
        return
    started = time.perf_counter()
    _infini_gram(out / "tokenized.0", root)
    theirs = time.perf_counter() - started
    same = (root / "theirs").read_bytes() == (out / "table.0").read_bytes()
    bench.note(f"{peer_version('infini-gram')}: {theirs:.2f} s, ratio {theirs / ours:.1f}, files identical: {same}")


def _infini_gram(tokenized: Path, root: Path) -> None:
    import infini_gram

    tool = Path(infini_gram.__file__).parent / "rust_indexing"
    size, threads = tokenized.stat().st_size, 2
    ratio = str(int(np.ceil(np.log2(size) / 8)))
    shared = ["--data-file", str(tokenized), "--ratio", ratio, "--token-width", "2"]
    for name in ("parts", "merged"):
        (root / name).mkdir()
    step = -(-size // threads // 2) * 2
    jobs = []
    for begin in range(0, size, step):
        cut = ["--start-byte", str(begin), "--end-byte", str(min(begin + step + 100_000, size))]
        jobs.append(subprocess.Popen([tool, "make-part", "--parts-dir", root / "parts", *cut, *shared]))
    if any(job.wait() for job in jobs):
        raise RuntimeError("infini-gram make-part failed")
    both = ["--merged-dir", str(root / "merged"), "--num-threads", str(threads)]
    subprocess.run([tool, "merge", "--parts-dir", root / "parts", "--hacksize", "100000", *both, *shared], check=True)
    subprocess.run([tool, "concat", "--merged-file", root / "theirs", *both, *shared], check=True)


def _table_seconds(tokens: npt.NDArray[np.unsignedinteger], root: Path) -> float:
    path = root / "tokens"
    tokens.tofile(path)
    started = time.perf_counter()
    _core.ngram.build_table(str(path), str(root / "sorted"), tokens.dtype.itemsize)
    return time.perf_counter() - started


def _repeats(bench: Bench, tokens: npt.NDArray[np.uint16], root: Path) -> None:
    block = min(BLOCK, len(tokens) // 8)
    plain = _table_seconds(tokens, root)
    repeated = np.concatenate([tokens[:-block], tokens[:block]])
    bench.note(f"a block of {block} tokens repeated: {_table_seconds(repeated, root) / plain:.2f} x the plain time")


def _wide(bench: Bench, tokens: npt.NDArray[np.uint16], root: Path) -> None:
    """u32 tokens over a vocabulary of more than 100,000: every occurrence of a frequent id gets one of four ids."""
    wide = tokens.astype(np.uint32) + 65536 * (np.arange(len(tokens), dtype=np.uint32) % 4)
    seconds = _table_seconds(wide, root)
    bench.note(f"{len(np.unique(wide))} u32 symbols: {len(wide) / seconds / 1e6:.1f} Mtok/s")


def _automaton(bench: Bench, tokens: npt.NDArray[np.int32]) -> None:
    automaton = SuffixAutomaton(tokens)
    bench.note(
        f"suffix automaton of {len(tokens)} tokens: {automaton.num_bytes / len(tokens):.1f} B/token, "
        f"{automaton.num_states / len(tokens):.2f} states and {automaton.num_transitions / len(tokens):.2f} "
        "transitions per token"
    )

    def check(name: str, got: object) -> None:
        if automaton.match_len == 0:
            raise AssertionError(f"{name} lost the match")

    bench.case("SuffixAutomaton.propose(8)", [Contender("gramcore", lambda: automaton.propose(8))], check=check)
    half = tokens[: len(tokens) // 2]

    def extend() -> SuffixAutomaton:
        return SuffixAutomaton(half)

    def check_size(name: str, got: SuffixAutomaton) -> None:
        if len(got) != len(half):
            raise AssertionError(f"{name} lost tokens")

    bench.case("SuffixAutomaton.extend", [Contender("gramcore", extend)], check=check_size, units=len(half))
    gramcore.set_num_threads(0)
