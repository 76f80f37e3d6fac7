"""Building from every kind of source; shards, memory limits, interrupted builds, unreadable records."""

from __future__ import annotations

import base64
import gzip
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gramcore.errors import FormatError, LimitError
from gramcore.ngram import Index, build_index, tables
from gramcore.ngram.encoders import load_encoder

TEXTS = ["the cat sat", "", "the cat ran", "naïve café"]


def stored(path: Path) -> list[str]:
    """Documents of a byte-token index, read back."""
    index = Index(path)
    return [
        bytes(index.doc_by_ix(i, max_disp_len=None).token_ids.astype(np.uint8)).decode()
        for i in range(index.num_documents)
    ]


def write_sources(root: Path) -> dict[str, Path]:
    """The same texts in every file format."""
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    zstandard = pytest.importorskip("zstandard")
    lines = "".join(json.dumps({"text": t, "n": i}) + "\n" for i, t in enumerate(TEXTS)).encode()
    (root / "a.jsonl").write_bytes(lines)
    (root / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (root / "a.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(lines))
    parquet.write_table(arrow.table({"text": TEXTS, "other": [1] * len(TEXTS)}), root / "a.parquet")
    (root / "texts").mkdir()
    for i, text in enumerate(TEXTS):
        (root / "texts" / f"{i}.txt").write_text(text)
    paths = {name: root / name for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet", "texts")}
    return paths


def test_every_file_format_gives_the_same_index(tmp_path: Path) -> None:
    for name, path in write_sources(tmp_path).items():
        out = tmp_path / f"index-{name}"
        report = build_index(path, out, token_dtype="u8", accel=True)
        assert report.num_documents == len(TEXTS), name
        assert stored(out) == TEXTS, name
        index = Index(out)
        index.verify()
        assert index.accelerated
        assert index.count(list(b"cat")) == 2
    build_index(f"{tmp_path}/texts/*.txt", tmp_path / "glob", token_dtype="u8")
    assert stored(tmp_path / "glob") == TEXTS


def test_iterables_and_metadata(tmp_path: Path) -> None:
    def generator() -> Iterator[dict[str, object]]:
        yield from ({"text": t, "n": i} for i, t in enumerate(TEXTS))

    build_index(generator(), tmp_path / "a", token_dtype="u8", metadata=True)
    assert stored(tmp_path / "a") == TEXTS
    line = json.loads(Index(tmp_path / "a").doc_by_ix(2).metadata)
    assert line == {"path": "", "linenum": 2, "metadata": {"n": 2}}
    build_index(iter(TEXTS), tmp_path / "b", token_dtype="u8")
    assert (tmp_path / "a" / "table.0").read_bytes() == (tmp_path / "b" / "table.0").read_bytes()
    build_index(np.arange(5), tmp_path / "c")
    assert Index(tmp_path / "c").num_tokens == 6
    np.save(tmp_path / "ids.npy", np.arange(6).reshape(2, 3))
    assert build_index(tmp_path / "ids.npy", tmp_path / "d").num_documents == 2


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_shards_do_not_change_counts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 5, rng.integers(0, 50)) for _ in range(40)]
    build_index(documents, tmp_path / "one", verify=True)
    build_index(documents, tmp_path / "three", shards=3, verify=True)
    one, three = (Index(tmp_path / n) for n in ("one", "three"))
    assert (one.num_shards, three.num_shards) == (1, 3)
    queries = [rng.integers(0, 5, rng.integers(1, 5)).tolist() for _ in range(100)]
    assert one.count_batch(queries).tolist() == three.count_batch(queries).tolist()
    for ids in queries[:20]:
        np.testing.assert_array_equal(one.ntd(ids, top=2).token_ids, three.ntd(ids, top=2).token_ids)
    with pytest.raises(ValueError, match="one document per shard"):
        build_index(documents[:2], tmp_path / "z", shards=3)
    assert build_index(documents[:2], tmp_path / "z", shards=2).num_documents == 2  # nothing was left
    with pytest.raises(ValueError, match="shards must be"):
        build_index(documents, tmp_path / "y", shards=0)


@pytest.mark.parametrize("dtype", ["u8", "u16", "u32"])
@pytest.mark.parametrize("version", [4, 5])
def test_memory_limit_changes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, version: int
) -> None:
    monkeypatch.setattr(tables, "fixed_bytes", lambda: 0)  # blocks of some tokens
    rng = np.random.default_rng(1)
    block = rng.integers(0, 200, 300)
    documents = [rng.integers(0, 5, 400), block, np.zeros(500, int), block, np.arange(200), block, np.array([], int)]
    options = {"token_dtype": dtype, "version": version, "shards": 2, "verify": True}
    build_index(documents, tmp_path / "roomy", **options)
    for limit in (1000, 2500, 8000):
        build_index(documents, tmp_path / f"{limit}", memory_limit=limit, **options)
        assert files(tmp_path / f"{limit}") == files(tmp_path / "roomy")
    with pytest.raises(LimitError, match="memory_limit must be at least"):
        build_index(documents, tmp_path / "x", memory_limit=100)
    monkeypatch.undo()
    with pytest.raises(LimitError, match="memory_limit must be at least"):
        build_index(documents, tmp_path / "y", memory_limit=4 << 20)


PEAK = """
import sys, threading, time
from pathlib import Path
import gramcore
import numpy as np
from gramcore.ngram import build, build_index

out, kind, limit, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
gramcore.set_num_threads(threads)

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))

def sort(*args):
    before, peak, done = anonymous(), 0, threading.Event()
    def watch():
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, anonymous())
    watcher = threading.Thread(target=watch)
    watcher.start()
    sort_shards(*args)
    done.set()
    watcher.join()
    print(peak - before)

sort_shards, build.sort_shards = build.sort_shards, sort
rng = np.random.default_rng(0)
size = 2_000_000
text = {
    "zipf": lambda: np.minimum(rng.zipf(1.3, size), 60_000),
    "uniform": lambda: rng.integers(0, 60_000, size),
    "repeats": lambda: np.tile(rng.integers(0, 60_000, size // 8), 8),
}[kind]()
build_index([text], out, memory_limit=limit, progress=False)
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["zipf", "uniform", "repeats"])
@pytest.mark.parametrize("limit", [9 << 20, 15 << 20, 20 << 20])  # many blocks, few, none
def test_sorting_stays_within_memory_limit(tmp_path: Path, kind: str, limit: int, threads: int) -> None:
    command = [sys.executable, "-c", PEAK, str(tmp_path / "out"), kind, str(limit), str(threads)]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert limit / 4 < peak <= limit


def interrupted(documents: list[np.ndarray], at: int) -> Iterator[np.ndarray]:
    for i, document in enumerate(documents):
        if i == at:
            raise KeyboardInterrupt
        yield document


@pytest.mark.parametrize("shards", [1, 2])
def test_text_goes_on_from_its_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: int) -> None:
    monkeypatch.setattr("gramcore.ngram.corpus_text.PIECE_TOKENS", 62)  # two documents with their separators
    monkeypatch.setattr("gramcore.ngram.build._BATCH", 1)
    documents = [np.full(30, i) for i in range(12)]
    options = {"shards": shards, "metadata": True}
    encoded: list[int] = []

    class Counting:
        def encode(self, text: str) -> list[int]:
            encoded.append(int(text))
            return [int(text)] * 30

    texts = [str(i) for i in range(12)]
    build_index(texts, tmp_path / "whole", tokenizer=Counting(), **options)
    with pytest.raises(KeyboardInterrupt):
        build_index(interrupted(documents, 9), tmp_path / "cut", tokenizer=Counting(), **options)
    (tmp_path / "cut" / "piece-4").mkdir()
    (tmp_path / "cut" / "piece-4" / "tokenized.0.tmp-1").write_bytes(b"half")  # what a kill would leave
    with pytest.raises(FormatError, match="unfinished build"):
        Index(tmp_path / "cut")
    with pytest.raises(FileExistsError, match=r"with options .*Counting.*, got .*bytes"):
        build_index(texts, tmp_path / "cut", **options)
    encoded.clear()
    build_index(texts, tmp_path / "cut", tokenizer=Counting(), **options)
    assert encoded == list(range(8, 12))  # eight documents in four checkpoints were there
    whole, cut = files(tmp_path / "whole"), files(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    for name in whole.keys() - {"metadata.0", "metadata.1", "metaoff.0", "metaoff.1"}:
        assert whole[name] == cut[name], name
    assert json.loads(Index(tmp_path / "cut").doc_by_ix(11 if shards == 1 else 5).metadata)["linenum"] in (10, 11)


def test_sorted_shards_and_blocks_are_kept_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "fixed_bytes", lambda: 0)  # blocks of some tokens
    rng = np.random.default_rng(2)
    np.save(tmp_path / "ids.npy", rng.integers(0, 3, (40, 100)))
    options = {"shards": 2, "memory_limit": 4000, "threads": 1, "progress": False}
    build_index(tmp_path / "ids.npy", tmp_path / "whole", **options)
    code = f"""
import os, signal
from gramcore import _core
from gramcore.ngram import build_index, tables
tables.fixed_bytes = lambda: 0
class Killed(_core.ngram.ChunkedSort):
    calls = 0
    def sort_next(self):
        if Killed.calls == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        Killed.calls += 1
        super().sort_next()
_core.ngram.ChunkedSort = Killed
build_index({str(tmp_path / "ids.npy")!r}, {str(tmp_path / "cut")!r}, **{options!r})
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "cut").glob("table.*")}
    assert any("part" in p.name for p in kept)
    with pytest.raises(FormatError, match="unfinished build"):
        Index(tmp_path / "cut")
    with pytest.raises(FileExistsError, match="unfinished build"):
        build_index(tmp_path / "ids.npy", tmp_path / "cut", **{**options, "memory_limit": 5000})
    with pytest.raises(FileExistsError, match="must not hold"):
        build_index(tmp_path / "ids.npy", tmp_path / "cut", resume=False, **options)

    def unread() -> Iterator[np.ndarray]:
        raise AssertionError("the source must not be read again")
        yield

    build_index(unread(), tmp_path / "cut", **options)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert (tmp_path / "cut" / "table.0").stat().st_mtime_ns == kept[tmp_path / "cut" / "table.0"]


def test_a_damaged_block_is_refused(tmp_path: Path) -> None:
    from gramcore import _core

    np.arange(100, dtype=np.uint16).tofile(tmp_path / "tokenized.0")
    names = str(tmp_path / "tokenized.0"), str(tmp_path / "table.0")
    sorter = _core.ngram.ChunkedSort(*names, 2, 30)
    with pytest.raises(ValueError, match="must be sorted before"):
        sorter.merge()
    sorter.sort_next()
    with pytest.raises(FormatError, match="must belong to the block"):
        _core.ngram.ChunkedSort(*names, 2, 26).sort_next()
    while sorter.num_done() < sorter.num_blocks():
        sorter.sort_next()
    gap = tmp_path / "table.0.gap.1"
    whole = gap.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + b"\x05", whole[:40] + b"\xff" * 20, whole[:8]):
        gap.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"table\.0\.(gap|part)"):
            sorter.merge()
    gap.write_bytes(whole)
    sorter.merge()
    assert np.fromfile(tmp_path / "table.0", np.uint8).tolist() == list(range(0, 200, 2))


def test_unreadable_records_name_path_and_line(tmp_path: Path) -> None:
    good = json.dumps({"text": "ok"})
    path = tmp_path / "bad.jsonl"
    for line in ("{", '["x"]', '{"body": "x"}', '{"text": 3}'):
        path.write_text(f"{good}\n{line}\n{good}\n")
        with pytest.raises(FormatError, match=r"bad\.jsonl:2: must"):
            build_index(path, tmp_path / "a")
        report = build_index(path, tmp_path / f"skip-{len(line)}", on_error="skip")
        assert (report.num_documents, report.num_skipped) == (2, 1)
        assert "bad.jsonl:2" in report.first_skipped
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(f"{good}\n".encode() * 1000)[:-12])
    with pytest.raises(FormatError, match="readable to its end"):
        build_index(cut, tmp_path / "a")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(FormatError, match=r"b\.parquet: must be a Parquet file"):
        build_index(tmp_path / "b.parquet", tmp_path / "a")
    (tmp_path / "d.npy").write_bytes(b"nothing")
    with pytest.raises(FormatError, match=r"d\.npy: must be a \.npy file"):
        build_index(tmp_path / "d.npy", tmp_path / "a")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match="UTF-8"):
        build_index(tmp_path / "c.txt", tmp_path / "a")
    with pytest.raises(FileExistsError, match="out must be a directory"):
        build_index(path, tmp_path / "c.txt")
    with pytest.raises(ValueError, match="on_error must be one of"):
        build_index(path, tmp_path / "a", on_error="ignore")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="must name files, got an empty directory"):
        build_index(tmp_path / "empty", tmp_path / "a")
    assert not (tmp_path / "a").exists()  # nothing of a refused build is left
    assert (tmp_path / "empty").exists()


def test_full_disk_is_said_before_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3))
    with pytest.raises(OSError, match="free disk space, got 3"):
        build_index([[1, 2, 3]], tmp_path)


def test_tokenizers(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"the": 0, "cat": 1, "sat": 2, "[UNK]": 3}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    expected = [[0, 1, 2], [], [3]]
    for given in (tokenizer, tmp_path / "tokenizer.json", str(tmp_path)):
        encode = load_encoder(given)
        assert [ids.tolist() for ids in encode(["the cat sat", "", "dog"])] == expected
    build_index(["the cat sat", "the cat"], tmp_path / "index", tokenizer=tmp_path / "tokenizer.json")
    assert Index(tmp_path / "index").count([0, 1]) == 2

    class Plain:
        def encode(self, text: str) -> list[int]:
            return [len(w) for w in text.split()]

    assert load_encoder(Plain())(["a bcd"])[0].tolist() == [1, 3]
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(FormatError, match="tokenizers JSON"):
        load_encoder(tmp_path / "bad.json")
    with pytest.raises(FileNotFoundError):
        load_encoder(tmp_path / "none.json")
    with pytest.raises(TypeError, match="tokenizer must be"):
        load_encoder(3)


def test_tiktoken_ranks(tmp_path: Path) -> None:
    pytest.importorskip("tiktoken")
    tokens = [bytes([b]) for b in range(256)] + [b"th", b"the"]
    lines = [f"{base64.b64encode(t).decode()} {i}" for i, t in enumerate(tokens)]
    path = tmp_path / "small.tiktoken"
    path.write_text("\n".join(lines))
    assert load_encoder(path)(["the t"])[0].tolist() == [257, 32, 116]
    path.write_text("a b c\n")
    with pytest.raises(FormatError, match=r"small\.tiktoken:1"):
        load_encoder(path)


def test_shards_are_sorted_at_once_as_far_as_memory_and_threads_allow() -> None:
    one = 1000 * tables.sort_bytes_per_token(2) + tables.fixed_bytes()
    sizes = [1000, 900, 1000]
    assert [tables._at_once(sizes, 2, budget, 4) for budget in (3 * one, 3 * one - 1, 2 * one, 2 * one - 1, 1)] == [
        3,
        2,
        2,
        1,
        1,
    ]
    assert tables._at_once(sizes, 2, 3 * one, 2) == 2
    assert tables._at_once([1000], 2, 9 * one, 4) == 1
