"""Sources of documents: compressed and damaged files, fields of token ids, what is skipped, how far reading is."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gramcore.errors import FormatError
from gramcore.ngram import Index, build_index
from gramcore.ngram.sources import Reading, read

TEXTS = ["to be", "or not", "", "h\u00e9 to be"]
LINES = "".join(json.dumps({"text": t}) + "\n" for t in TEXTS).encode()


def zstd(data: bytes) -> bytes:
    return bytes(pytest.importorskip("zstandard").compress(data))


def read_all(source: object, **options: object) -> tuple[list[object], Reading]:
    reading = Reading()
    records = read(source, **{"text_key": "text", "on_error": "raise", "reading": reading} | options)
    return [r.content for r in records], reading


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("zst", zstd)])
def test_compressed_files_are_read_to_their_end_or_refused(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(compress(LINES) + compress(LINES))
    assert read_all(path)[0] == TEXTS * 2
    (tmp_path / f"b.txt.{suffix}").write_bytes(compress(b"to be or not"))
    assert read_all(tmp_path / f"b.txt.{suffix}")[0] == ["to be or not"]
    whole = compress(LINES * 1000)
    for size in (len(whole) - 1, len(whole) - 12, len(whole) // 2, 5, 1):
        for name in ("c.jsonl", "c.txt"):
            cut = tmp_path / f"{name}.{suffix}"
            cut.write_bytes(whole[:size])
            with pytest.raises(FormatError, match=f"{name}.{suffix}: must be readable to its end"):
                read_all(cut)
            assert read_all(cut, on_error="skip")[1].num_skipped == 1


def test_fields_may_hold_token_ids(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"input_ids": [1, 2, 3], "n": 1}, {"input_ids": [], "n": 2}, {"input_ids": [2, 3], "n": 3}]
    path = tmp_path / "ids.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "ids.parquet")
    sources = [datasets.Dataset.from_list(rows), rows, path, tmp_path / "ids.parquet"]
    for number, source in enumerate(sources):
        build_index(source, tmp_path / f"{number}", text_key="input_ids", metadata=True)
        index = Index(tmp_path / f"{number}")
        assert [index.doc_by_ix(i).token_ids.tolist() for i in range(3)] == [r["input_ids"] for r in rows]
        assert json.loads(index.doc_by_ix(2).metadata)["metadata"] == {"n": 3}
    path.write_text('{"text": "ok"}\n{"text": [1, 2.5]}\n')
    with pytest.raises(FormatError, match=r"ids\.jsonl:2: must hold text or token ids under 'text', got list"):
        read_all(path)
    with pytest.raises(FormatError, match=r"got fields \['input_ids', 'n'\]"):
        read_all(rows)
    path.write_text('{"text": [1]}\n{"text": [70000]}\n')
    with pytest.raises(ValueError, match=r"ids\.jsonl:2: token ids must be in \[0, 65535\)"):
        build_index(path, tmp_path / "wide")


def test_what_cannot_be_read_is_named_or_counted(tmp_path: Path) -> None:
    path = tmp_path / "lone.jsonl"
    path.write_bytes(b'{"text": "ok"}\n{"text": "\\ud800"}\n')
    with pytest.raises(FormatError, match=r"lone\.jsonl:2: must be valid Unicode"):
        read_all(path)
    with pytest.raises(FormatError, match=r"source:1: must be valid Unicode"):
        read_all(["\udc00"])
    np.save(tmp_path / "real.npy", np.arange(3.0))
    with pytest.raises(FormatError, match=r"real\.npy: must hold one or two dimensions of integers, got float64"):
        read_all(tmp_path / "real.npy")
    contents, reading = read_all(tmp_path, on_error="skip")
    assert (contents, reading.num_skipped) == (["ok"], 2)
    assert "lone.jsonl:2" in reading.first_skipped
    with pytest.raises(ValueError, match=r"got 1 that cannot be read, the first because: .*real\.npy"):
        build_index(tmp_path / "real.npy", tmp_path / "out", on_error="skip")
    with pytest.raises(TypeError, match=r"got a mapping with keys \['train'\]"):
        read_all({"train": ["a"]})
    with pytest.raises(TypeError, match=r"got object of shape \(\) \(document 1\)"):
        read_all(["a", None])


def test_reading_says_how_far_it_is(tmp_path: Path) -> None:
    for name, data in (("a.jsonl", LINES), ("b.jsonl.gz", gzip.compress(LINES)), ("c.txt", b"to be")):
        (tmp_path / name).write_bytes(data)
    size = sum(p.stat().st_size for p in tmp_path.iterdir())
    reading = Reading()
    seen = []
    for _ in read(tmp_path, text_key="text", on_error="raise", reading=reading):
        seen.append(reading.done)
    assert seen == sorted(seen)
    assert (reading.total, reading.unit, reading.done) == (size, "B", size)
    _, reading = read_all(TEXTS)
    assert (reading.total, reading.done) == (len(TEXTS), len(TEXTS))
    assert read_all(iter(TEXTS))[1].total is None


def test_names_of_files_are_not_taken_for_texts(tmp_path: Path) -> None:
    names = [str(tmp_path / f"{i}.txt") for i in range(2)]
    for name in names:
        Path(name).write_text("a text")
    with pytest.raises(ValueError, match=r"strings that name files .*wrap them in Path"):
        build_index(names, tmp_path / "index")
    assert build_index([*map(Path, names)], tmp_path / "files").num_documents == 2
