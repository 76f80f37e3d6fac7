"""Index files and counts against brute force; damaged files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gramcore.cli import main
from gramcore.errors import FormatError
from gramcore.ngram import Index, accelerate, build_index
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import ngram as reference

DOCUMENTS = st.lists(st.lists(st.integers(0, 3), max_size=25), min_size=1, max_size=6)
WIDTHS = {"u8": 1, "u16": 2, "u32": 4}


def table_of(path: Path, width: int) -> list[int]:
    """Positions in table.0, read with the layout's rule for the pointer width."""
    size = (path / "tokenized.0").stat().st_size
    pointer = max(1, int(np.ceil(np.log2(size) / 8)))
    raw = np.frombuffer((path / "table.0").read_bytes(), np.uint8).reshape(-1, pointer).astype(np.int64)
    return [int(v) // width for v in raw @ (256 ** np.arange(pointer))]


@given(DOCUMENTS, st.sampled_from(sorted(WIDTHS)), st.sampled_from([4, 5]))
def test_files_follow_the_layout(documents: list[list[int]], dtype: str, version: int) -> None:
    import tempfile

    width = WIDTHS[dtype]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        report = build_index(documents, path, token_dtype=dtype, version=version)
        text = reference.flat(documents, width, reverse=version == 5)
        assert (report.num_tokens, report.num_documents) == (len(text), len(documents))
        stored = np.frombuffer((path / "tokenized.0").read_bytes(), f"<u{width}")
        assert stored.tolist() == text
        starts = np.cumsum([0, *(len(d) + 1 for d in documents[:-1])]) * width
        assert np.frombuffer((path / "offset.0").read_bytes(), "<u8").tolist() == starts.tolist()
        assert table_of(path, width) == reference.suffix_array(text, width)
        index = Index(path)
        index.verify()
        assert (index.num_tokens, index.num_documents, index.token_dtype) == (len(text), len(documents), dtype)


@given(DOCUMENTS, st.lists(st.integers(0, 3), max_size=5))
def test_counts_equal_brute_force(documents: list[list[int]], ids: list[int]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        build_index(documents, f"{name}/a")
        build_index(list(reversed(documents)), f"{name}/b")
        text = reference.flat(documents, 2)
        expected = len(reference.occurrences(text, ids)) if ids else len(text)
        index = Index(f"{name}/a")
        found = index.find(ids)
        assert index.count(ids) == found.cnt == expected
        begin, end = found.segment_by_shard[0]
        positions = [index._native.position(0, r) for r in range(begin, end)]
        if ids:
            assert sorted(positions) == reference.occurrences(text, ids)
        both = Index([f"{name}/a", f"{name}/b"])
        within = sum(len(reference.occurrences(reference.flat([d], 2), ids)) for d in documents)
        assert both.count(ids) == 2 * (within if ids else len(text))


def build(path: Path) -> Path:
    rng = np.random.default_rng(0)
    build_index([rng.integers(0, 40, n) for n in (30, 0, 90, 1)], path)
    return path


def use(path: Path) -> None:
    index = Index(path)
    for token in range(40):
        index.count([token, token + 1])
    index.verify()


def test_every_truncation_and_swap_is_refused(tmp_path: Path) -> None:
    path = build(tmp_path / "index")
    for name in ("tokenized.0", "table.0", "offset.0"):
        whole = (path / name).read_bytes()
        for size in {0, 1, 7, len(whole) // 2, len(whole) - 1, len(whole) + 1}:
            (path / name).write_bytes((whole * 2)[:size])
            with pytest.raises(FormatError):
                Index(path)
        (path / name).write_bytes(whole)
    tokenized, table = (path / "tokenized.0").read_bytes(), (path / "table.0").read_bytes()
    (path / "tokenized.0").write_bytes(table)
    (path / "table.0").write_bytes(tokenized)
    with pytest.raises(FormatError):
        Index(path).verify()


def test_random_damage_never_crashes_and_verify_finds_it(tmp_path: Path) -> None:
    path = build(tmp_path / "index")
    rng = np.random.default_rng(5)
    accelerate(path)
    for name in ("table.0", "offset.0", "accel.0"):
        whole = (path / name).read_bytes()
        for _ in range(150):
            copy = bytearray(whole)
            copy[rng.integers(len(copy))] ^= int(rng.integers(1, 256))
            (path / name).write_bytes(bytes(copy))
            with pytest.raises(FormatError):
                use(path)
        (path / name).write_bytes(whole)


def test_directories_that_are_no_index(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must exist"):
        Index(tmp_path / "missing")
    with pytest.raises(FormatError, match=r"got no table\.0; is it an index"):
        Index(tmp_path)
    path = build(tmp_path / "index")
    with pytest.raises(FileExistsError, match="must not hold an index"):
        build(path)
    (path / "gramcore-index.json").write_text("{")
    with pytest.raises(FormatError, match="must describe an index"):
        Index(path)
    (path / "gramcore-index.json").unlink()  # an index of infini-gram has none
    assert Index(path).token_dtype == "u16"
    with pytest.raises(FormatError, match="tokens must be 4 bytes wide"):
        Index(path, token_dtype="u32")
    (path / "table.2").write_bytes(b"")
    with pytest.raises(FormatError, match="numbered 0 to 1"):
        Index(path)


def test_bad_arguments(tmp_path: Path) -> None:
    for source, error in ((b"x", TypeError), ([], ValueError), ("text", FileNotFoundError), ([[1.5]], TypeError)):
        with pytest.raises(error):
            build_index(source, tmp_path / "a")  # type: ignore[arg-type]
    for bad, dtype in ((65535, "u16"), (-1, "u16"), (255, "u8"), (2**32 - 1, "u32")):
        with pytest.raises(ValueError, match=r"token ids must be in \[0"):
            build_index([[0, bad]], tmp_path / "a", token_dtype=dtype)
    assert not (tmp_path / "a").exists()
    with pytest.raises(ValueError, match="version must be 4 or 5"):
        build_index([[1]], tmp_path / "a", version=3)
    with pytest.raises(ValueError, match="token_dtype must be one of"):
        build_index([[1]], tmp_path / "a", token_dtype="u64")
    index = Index(build(tmp_path / "b"))
    assert index.count([70000]) == 0
    for ids in ([-1], [2**32]):
        with pytest.raises(IndexError, match="ids must be in"):
            index.count(ids)
    with pytest.raises(ValueError, match="at least one"):
        Index([])


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "ids.npy", np.array([1, 2, 3, 1, 2], np.uint16))
    with pytest.raises(SystemExit) as done:
        main(["index", "build", str(tmp_path / "ids.npy"), str(tmp_path / "index")])
    assert done.value.code == 0
    with pytest.raises(SystemExit):
        main(["index", "query", str(tmp_path / "index"), "1", "2"])
    assert capsys.readouterr().out.split()[-1] == "2"
    with pytest.raises(SystemExit) as done:
        main(["index", "append", str(tmp_path / "ids.npy"), str(tmp_path / "index")])
    assert done.value.code == 0
    assert f"{tmp_path / 'index'}: 1 documents, 6 tokens, 1 shards" in capsys.readouterr().out
    with pytest.raises(SystemExit) as done:
        main(["index", "verify", str(tmp_path / "index")])
    assert done.value.code == 0
    assert "2 shards, 2 documents, 12 tokens, in order" in capsys.readouterr().out
    table = tmp_path / "index" / "table.1"
    table.write_bytes(bytes(reversed(table.read_bytes())))
    (tmp_path / "index" / "accel.1").unlink()  # which would be found to be of another table before
    with pytest.raises(SystemExit) as failed:
        main(["index", "verify", str(tmp_path / "index")])
    assert failed.value.code == 2
    assert "table.1" in capsys.readouterr().err
    with pytest.raises(SystemExit) as failed:
        main(["index", "query", str(tmp_path), "1"])
    assert failed.value.code == 2
    assert "is it an index" in capsys.readouterr().err


def test_command_line_queries_of_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_index(["the cat sat", "the cat ran"], tmp_path / "index", token_dtype="u8", progress=False)
    with pytest.raises(SystemExit) as done:
        main(["index", "query", str(tmp_path / "index"), "--text", "a cat ", "--next", "2"])
    assert done.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["0", "after 5 of 6 tokens, 2 times:", "1\t114\t'r'", "1\t115\t's'"]
    for arguments in ([], ["1", "--text", "a"]):
        with pytest.raises(SystemExit) as failed:
            main(["index", "query", str(tmp_path / "index"), *arguments])
        assert failed.value.code == 2
        assert "ids or as --text" in capsys.readouterr().err
