"""What a user gets wrong is said in one sentence, before a model is read or a server starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from gramcore import __version__

from tests.cli.command import gramcore, sentence

MODEL = ("--model", "nowhere.gguf")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut.json").write_text('{"type": ')
    (tmp_path / "bytes.json").write_bytes(b"\xfe\x00")
    (tmp_path / "ok.json").write_text("{}")
    (tmp_path / "text.txt").write_text("some text")


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (("generate", "hi", *MODEL, "--grammar", "cut.json"), "cut.json: JSON must have a value here"),
        (("generate", "hi", *MODEL, "--grammar", "bytes.json"), "bytes.json: must be UTF-8 text, got byte 0xfe at 0"),
        (("generate", "hi", *MODEL, "--top-p", "0"), "--top-p must be in (0, 1], got 0"),
        (("generate", "hi", *MODEL, "--stop", ""), "--stop must be a text of at least one character"),
        (("generate", "hi", *MODEL, "--weights", "none"), "--weights must name a file of gramcore quantize"),
        (("spec", "bench", *MODEL, "--bits", "7"), "--bits must be one of 4, 8, 16, 32"),
        (("spec", "bench", *MODEL, "--task", "knitting"), "--task must be one of"),
        (("spec", "train-heads", "none/h", "text.txt", *MODEL), "--out must name a file in a folder that exists"),
        (("spec", "train-heads", "h", "none.txt", *MODEL), "text must be a file that exists, got 'none.txt'"),
        (("spec", "train-heads", "h", "folder", *MODEL), "text must be a file, got the folder 'folder'"),
        (("spec", "train-heads", "h", "text.txt", "--kind", "falcon", *MODEL), "--kind must be one of"),
        (("grammar", "check", "none.json"), "schema must be a file that exists, got 'none.json'"),
        (("grammar", "check", "folder"), "schema must be a file, got the folder 'folder'"),
        (("grammar", "check", "bytes.json"), "bytes.json: must be UTF-8 text, got byte 0xfe at 0"),
        (("grammar", "check", "ok.json", "--instance", "none"), "--instance must be a file that exists, got 'none'"),
        (("optim", "memory", "none.json"), "none.json: no such file"),
    ],
)
def test_files_and_options_are_checked_first(arguments: tuple[str, ...], rule: str) -> None:
    result = gramcore(*arguments)
    assert rule in sentence(result)
    assert "nowhere" not in result.stderr
    assert not result.stdout


def test_a_port_that_is_none(tmp_path: Path) -> None:
    result = gramcore("index", "serve", "nowhere", "--port", "99999")
    assert result.returncode == 2
    assert "--port" in result.stderr
    assert "Traceback" not in result.stderr


def test_system_errors_name_the_file_without_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", "text.txt")

    monkeypatch.setattr(Path, "read_text", refuse)
    assert sentence(gramcore("grammar", "check", "ok.json")) == "error: text.txt: Permission denied"


def test_a_package_that_is_missing_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise ModuleNotFoundError("No module named 'transformers'", name="transformers")

    monkeypatch.setattr(Path, "read_text", refuse)
    assert "transformers must be installed for this" in sentence(gramcore("grammar", "check", "ok.json"))
    assert "pip install 'gramcore[hf]'" in sentence(gramcore("grammar", "check", "ok.json"))


def test_a_byte_order_mark_is_no_part_of_a_schema(tmp_path: Path) -> None:
    (tmp_path / "mark.json").write_bytes(b'\xef\xbb\xbf{"const": 1}')
    (tmp_path / "one.json").write_bytes(b"\xef\xbb\xbf1")
    result = gramcore("grammar", "check", "mark.json", "--instance", "one.json")
    assert (result.returncode, "matches" in result.stdout) == (0, True)


def test_version_and_the_hint_at_tracebacks() -> None:
    assert gramcore("--version").stdout == f"gramcore {__version__}\n"
    assert "--debug" in gramcore("--help").stdout
