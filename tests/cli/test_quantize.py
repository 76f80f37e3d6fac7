"""``gramcore quantize``: a run on a tiny model, and mistakes that are said before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from gramcore.model import load, open_model
from gramcore.quant import QuantLinear, load_quantized_, save_quantized, scheme_names

from tests.cli.command import gramcore
from tests.model.tiny import SIZES
from tests.reference.quant import write_model


@pytest.fixture
def model(tmp_path: Path) -> str:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**(SIZES | {"vocab_size": 257, "num_hidden_layers": 1}))
    write_model(tmp_path / "m.gguf", transformers.LlamaForCausalLM(config))
    (tmp_path / "text.txt").write_text("ab and all that follows. " * 20)
    return str(tmp_path / "m.gguf")


def test_a_run_reports_saves_and_plots(model: str, tmp_path: Path) -> None:
    out, plot = tmp_path / "q.safetensors", tmp_path / "errors.png"
    options = ("--text", str(tmp_path / "text.txt"), "--max-tokens", "100", "--out", str(out), "--plot", str(plot))
    done = gramcore("quantize", model, "--scheme", "dgq", *options)
    assert done.returncode == 0
    assert "model.layers.0.mlp.down_proj" in done.stdout
    assert "perplexity" in done.stdout
    assert f"wrote {out}" in done.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
    read = load(model, bits=32)[0]
    load_quantized_(read, out)
    assert sum(isinstance(m, QuantLinear) for m in read.modules()) == 7


@pytest.mark.parametrize("host", ["native", "transformers"])
def test_what_was_written_generates(model: str, tmp_path: Path, host: str) -> None:
    out, ids = tmp_path / "q.safetensors", torch.tensor([[5, 6, 7]])
    assert gramcore("quantize", model, "--scheme", "int8", "--out", str(out)).returncode == 0
    options = ("--model", model, "--host", host, "--raw", "--max-new-tokens", "4", "--stats")
    done = gramcore("generate", "ab", *options, "--weights", str(out))
    assert done.returncode == 0, done.stderr
    assert f"{host} host, {out}" in done.stderr
    read = load(model, bits=32)[0]
    dense = read(ids).logits
    load_quantized_(read, out)
    opened = open_model(model, host=host, weights=out).host
    if host == "transformers":  # whose activations are not rounded
        for module in read.modules():
            if hasattr(module, "activations"):
                module.activations = "float32"
        torch.testing.assert_close(opened(ids).logits, read(ids).logits)
    else:
        expected, found = read(ids).logits[0], torch.as_tensor(opened.decoder.forward([5, 6, 7]))
        assert (found - expected).abs().max() < 0.5 * (dense - expected).abs().max()
    done = gramcore("generate", "ab", *options, "--weights", str(tmp_path / "none.safetensors"))
    assert done.returncode == 2
    assert "none.safetensors" in done.stderr


def test_a_quantised_file_is_no_model(tmp_path: Path) -> None:
    """It has no tokenizer: the message says how to run it."""
    path = tmp_path / "q.safetensors"
    save_quantized(torch.nn.Linear(2, 2), path)
    for command in (("generate", "ab", "--model", str(path)), ("quantize", str(path))):
        done = gramcore(*command)
        assert done.returncode == 2
        assert f"--model MODEL --weights {path}" in done.stderr


def test_a_folder_of_transformers_is_quantised(model: str, tmp_path: Path) -> None:
    dense, tokenizer = load(model, bits=32)
    folder, out = tmp_path / "saved", tmp_path / "q.safetensors"
    dense.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    done = gramcore("quantize", str(folder), "--scheme", "int8", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "7 layers" in done.stdout
    done = gramcore("generate", "ab", "--model", str(folder), "--weights", str(out), "--raw", "--max-new-tokens", "2")
    assert done.returncode == 0, done.stderr


def test_schemes_are_listed_without_a_model() -> None:
    assert gramcore("quantize", "--scheme", "list").stdout.split() == list(scheme_names())


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--scheme", "int9"], "scheme must be one of"),
        (["--scheme", "nupe4"], "got 'nupe4'; did you mean nupes4"),
        (["--scheme", "INT4"], "got 'INT4'; did you mean int4_g32, int4_g32_asym, int4_g64?"),
        (["--scheme", "billm"], "--text must be given for scheme billm"),
        (["--text", "none.txt"], "text must be a file that exists, got 'none.txt'"),
        (["--out", "none/q.safetensors"], "--out must name a file in a folder that exists"),
        (["--out", "."], "--out must name a file, got the folder '.'"),
        (["--plot", "none/e.png"], "--plot must name a file in a folder that exists"),
        (["--plot", "e.docx"], "--plot must end in one of"),
        (["--max-tokens", "1"], "Invalid value for '--max-tokens'"),
    ],
)
def test_mistakes_are_said_before_the_model_is_read(options: list[str], rule: str) -> None:
    """No such model exists, and nothing says so."""
    done = gramcore("quantize", "nowhere.gguf", *options)
    assert done.returncode == 2
    assert rule in done.stderr
    assert "nowhere" not in done.stderr


def test_what_the_model_lacks_is_said(model: str, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("x")
    assert (
        "text must have at least two tokens, got 1"
        in gramcore("quantize", model, "--text", str(tmp_path / "one.txt")).stderr
    )
    assert "model must be given" in gramcore("quantize").stderr
    assert "no model at 'nowhere.gguf'" in gramcore("quantize", "nowhere.gguf").stderr


def test_a_full_disk_is_said_and_leaves_nothing(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    def full(tensors: object, path: str, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise safetensors.SafetensorError("No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    done = gramcore("quantize", model, "--scheme", "int8", "--out", str(tmp_path / "q.safetensors"))
    assert done.returncode == 2
    assert "quantised model must be written whole, got No space left on device" in done.stderr
    assert not list(tmp_path.glob("q.safetensors*"))
