"""Building from every kind of source; shards, memory limits, interrupted builds, unreadable records."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gramcore.errors import FormatError, LimitError
from gramcore.ngram import Index, build_index
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


def test_shards_and_memory_limit_do_not_change_counts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 5, rng.integers(0, 50)) for _ in range(40)]
    build_index(documents, tmp_path / "one")
    build_index(documents, tmp_path / "three", shards=3)
    report = build_index(documents, tmp_path / "small", memory_limit=7 * 120)
    one, three, small = (Index(tmp_path / n) for n in ("one", "three", "small"))
    assert (one.num_shards, three.num_shards, small.num_shards) == (1, 3, report.num_shards)
    assert report.num_shards > 5
    queries = [rng.integers(0, 5, rng.integers(1, 5)).tolist() for _ in range(100)]
    assert one.count_batch(queries).tolist() == three.count_batch(queries).tolist()
    assert one.count_batch(queries).tolist() == small.count_batch(queries).tolist()
    for ids in queries[:20]:
        np.testing.assert_array_equal(small.ntd(ids, top=2).token_ids, three.ntd(ids, top=2).token_ids)
    for index in (three, small):
        index.verify()
    with pytest.raises(LimitError, match="memory_limit"):
        build_index([np.zeros(1000, np.int64)], tmp_path / "x", memory_limit=700)
    with pytest.raises(LimitError, match="shard 0 must have"):
        build_index(documents, tmp_path / "y", shards=2, memory_limit=7 * 120)
    with pytest.raises(ValueError, match="one document per shard"):
        build_index(documents[:2], tmp_path / "z", shards=3)


def test_an_interrupted_build_goes_on(tmp_path: Path) -> None:
    documents = [np.full(30, i) for i in range(12)]
    options = {"memory_limit": 7 * 70}
    build_index(documents, tmp_path / "whole", **options)
    seen = []

    def broken() -> Iterator[np.ndarray]:
        for i, document in enumerate(documents):
            if i == 7:
                raise KeyboardInterrupt
            yield document

    def counted() -> Iterator[np.ndarray]:
        for document in documents:
            seen.append(document)
            yield document

    with pytest.raises(KeyboardInterrupt):
        build_index(broken(), tmp_path / "cut", **options)
    assert not (tmp_path / "cut" / "gramcore-index.json").exists()
    with pytest.raises(FormatError, match="is it an index"):
        Index(tmp_path / "cut")
    build_index(counted(), tmp_path / "cut", **options)
    assert len(seen) == 12
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "cut" / file.name).read_bytes() == file.read_bytes(), file.name
    assert len(list((tmp_path / "cut").iterdir())) == len(list((tmp_path / "whole").iterdir()))


def test_finished_shards_are_kept_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gramcore import _core

    documents = [np.full(30, i) for i in range(12)]
    build_index(documents, tmp_path / "whole", memory_limit=7 * 70)
    real, calls = _core.ngram.build_table, []

    def failing(tokenized: str, table: str, width: int) -> None:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(table)
        real(tokenized, table, width)

    with monkeypatch.context() as patch:
        patch.setattr(_core.ngram, "build_table", failing)
        with pytest.raises(KeyboardInterrupt):
            build_index(documents, tmp_path / "cut", memory_limit=7 * 70)
    (tmp_path / "cut" / "table.3.tmp-1").write_bytes(b"half")  # what a kill would leave
    with pytest.raises(FileExistsError, match="unfinished build"):
        build_index(documents, tmp_path / "cut", memory_limit=7 * 80)
    with pytest.raises(FileExistsError, match="must not hold"):
        build_index(documents, tmp_path / "cut", memory_limit=7 * 70, resume=False)

    def unread() -> Iterator[np.ndarray]:
        raise AssertionError("the source must not be read again")
        yield

    build_index(unread(), tmp_path / "cut", memory_limit=7 * 70)
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "cut" / file.name).read_bytes() == file.read_bytes(), file.name
    assert not list((tmp_path / "cut").glob("*.tmp-*"))


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
    with pytest.raises(FormatError, match="Parquet"):
        build_index(tmp_path / "b.parquet", tmp_path / "a")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match="UTF-8"):
        build_index(tmp_path / "c.txt", tmp_path / "a")
    with pytest.raises(ValueError, match="on_error must be one of"):
        build_index(path, tmp_path / "a", on_error="ignore")


def test_full_disk_is_said_before_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(OSError, match="free disk space, got 10"):
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
