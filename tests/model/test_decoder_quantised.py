"""The native decoder on quantised models: packed codes and tables are kept, columns scaled back, BiLLM expanded."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import gramcore
import numpy as np
import pytest
import torch
from gramcore.model import Decoder, load
from gramcore.quant import (
    DGQ,
    BipolarInt,
    BipolarTensor,
    Codec,
    Fp8,
    IntCodec,
    PackedTensor,
    PowerCodec,
    QuantEmbedding,
    QuantLinear,
    SmoothTensor,
    quantize_,
)
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from tests.reference.quant import write_model

SIZES: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 48,
    "intermediate_size": 88,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
IDS = np.random.default_rng(0).integers(0, 101, 40)
CALIBRATION = [torch.from_numpy(IDS)[None]]
EMBEDDING = (101 + 16) * 48 * 4  # dense, in panels of 16 rows, with what begins on cache lines


def llama(**changes: Any) -> Any:
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(**(SIZES | changes))).eval()


def stored_bytes(model: Any) -> int:
    return sum(m.qweight.stored_bytes() for m in model.modules() if isinstance(m, QuantLinear))


def logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(IDS)[None]).logits[0].float().numpy()


SCHEMES = ["int8", "int4_g32_asym", "int3_g64", "bipolar_w1a8", "bipolar_w2a6", "bipolar_w3a7", "finequant", "int5_g32"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_packed_layers_compute_what_transformers_does(scheme: str, isa: str) -> None:
    model = llama()
    quantize_(model, scheme, skip=(), progress=False)
    decoder = Decoder.from_module(model, kv_dtype="float32")
    want = logits(model)  # rounds activations to int8 in the same blocks
    np.testing.assert_allclose(decoder.forward(IDS), want, atol=0.02 * np.abs(want).max())
    # Whole bytes per matrix, of which there are as many as the model stores, plus the dense embedding.
    assert stored_bytes(model) <= decoder.weight_bytes <= stored_bytes(model) + EMBEDDING


def test_layers_of_one_model_may_round_activations_differently() -> None:
    """Readers of one norm and of one place in different layers, each with its own bits."""
    model = llama()
    overrides = {"0.self_attn.k_proj": "bipolar_w4a4", "1.self_attn": "int8", "1.mlp": "bipolar_w4a5"}
    quantize_(model, "bipolar_w4a3", skip=(), overrides=overrides, progress=False)
    decoder = Decoder.from_module(model, kv_dtype="float32")
    want = logits(model)
    error = np.abs(decoder.forward(IDS) - want).mean()
    assert stored_bytes(model) <= decoder.weight_bytes <= stored_bytes(model) + EMBEDDING
    eight = Decoder.from_module(same_weights_at_eight_bits(model), kv_dtype="float32")
    assert 10 * error < np.abs(eight.forward(IDS) - want).mean()


def same_weights_at_eight_bits(model: Any) -> Any:
    """The bits of activations taken away, to show that they count."""
    for name, module in list(model.named_modules()):
        if isinstance(module, QuantLinear) and isinstance(module.qweight, BipolarTensor):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, QuantLinear(module.qweight.inner))
    return model


def smoothed() -> Any:
    """DGQ everywhere, with factors so spread that dropping or mixing them would show."""
    model = llama()
    quantize_(model, DGQ(), calibration=CALIBRATION, skip=(), progress=False)
    rng = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, QuantLinear):
            module.inverse.copy_(torch.rand(module.in_features, generator=rng) + 0.5)
    return model


def test_smoothed_layers_stay_packed(isa: str) -> None:
    model = smoothed()
    assert all(isinstance(m.qweight, SmoothTensor) for m in model.modules() if isinstance(m, QuantLinear))
    decoder = Decoder.from_module(model, kv_dtype="float32")
    want = logits(model)
    np.testing.assert_allclose(decoder.forward(IDS), want, atol=0.02 * np.abs(want).max())
    # Up to 63 bytes more for each of 15 matrices and 15 vectors, which start on cache lines.
    assert stored_bytes(model) <= decoder.weight_bytes <= stored_bytes(model) + EMBEDDING + 30 * 63


def test_readers_of_one_norm_share_it_where_their_factors_agree() -> None:
    """Nearly exact products, so that columns scaled by another layer's factors would show."""
    rng = torch.Generator().manual_seed(3)
    model = llama()
    quantize_(model, "int8_g32", skip=(), progress=False)
    shared = torch.rand(48, generator=rng) + 0.5
    for name, module in list(model.named_modules()):
        if isinstance(module, QuantLinear):
            alike = name.endswith(("q_proj", "v_proj", "up_proj"))
            inverse = shared if alike else torch.rand(module.in_features, generator=rng) + 0.5
            parent, _, child = name.rpartition(".")
            if not name.endswith("gate_proj"):  # which has none
                setattr(model.get_submodule(parent), child, QuantLinear(SmoothTensor(module.qweight, inverse)))
    want = logits(model)
    decoder = Decoder.from_module(model, kv_dtype="float32")
    np.testing.assert_allclose(decoder.forward(IDS), want, atol=2e-3 * np.abs(want).max())
    # Final hidden states are not scaled, though the head's inputs are.
    decoder.reset()
    hidden = decoder._native.forward([decoder._cache], [IDS], None, "none", True)[1]
    with torch.no_grad():
        states = model.model(torch.from_numpy(IDS)[None]).last_hidden_state[0].numpy()
    np.testing.assert_allclose(hidden, states, atol=2e-3 * np.abs(states).max())


TABLES: dict[str, Codec] = {
    "fp8": Fp8(),
    "nupes4": PowerCodec(bits=4, group_size=96),
    "nupes8 rows": PowerCodec(bits=8, group_size=None),
}


@pytest.mark.parametrize("kind", TABLES)
def test_table_codes_stay_packed(kind: str, isa: str) -> None:
    model = llama()
    quantize_(model, TABLES[kind], skip=(), progress=False)
    table = TABLES[kind].quantize(model.get_input_embeddings().weight)
    model.model.embed_tokens = QuantEmbedding(table)
    decoder = Decoder.from_module(model, kv_dtype="float32")
    np.testing.assert_allclose(decoder.forward(IDS), logits(model), atol=1e-4)
    stored = stored_bytes(model) + table.stored_bytes()
    assert stored + 16 * 1536 <= decoder.weight_bytes <= stored + 16 * (1536 + 63)
    assert Decoder.from_module(model).kv_dtype == "float16"


def test_six_bit_files_stay_packed(tmp_path: Path, isa: str) -> None:
    sizes = {"vocab_size": 257, "hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 4}
    write_model(tmp_path / "m.gguf", llama(**sizes, tie_word_embeddings=True), "Q6_K")
    decoder = Decoder.from_gguf(tmp_path, kv_dtype="float32")
    want = logits(load(tmp_path, bits=32)[0])
    np.testing.assert_allclose(decoder.forward(IDS), want, atol=2e-5 * np.abs(want).max())
    dense = Decoder.from_gguf(tmp_path, dense=True)
    np.testing.assert_allclose(dense.forward(IDS), want, atol=2e-5 * np.abs(want).max())
    # 6 bits and a 32-bit scale per 16 weights: a quarter of fp32, and a table for each of 15 matrices.
    assert decoder.weight_bytes == dense.weight_bytes // 4 + 15 * 1536


MINIMA = IntCodec(symmetric=False)
PAIRS: dict[str, tuple[Codec, Codec]] = {
    "smoothed columns, a table": (DGQ(), PowerCodec(bits=5, group_size=96)),
    "minima, one zero beside another": (MINIMA, IntCodec()),
    "two sizes of groups": (MINIMA, IntCodec(bits=5, group_size=128, symmetric=False)),
    "one group per row, one bit": (IntCodec(group_size=None, symmetric=False), BipolarInt(bits=1)),
    "activations of few bits beside eight": (BipolarInt(bits=2, activation_bits=4), BipolarInt(bits=3)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_rows_are_the_same_bits_however_they_are_split(pair: str, restore_threads: None) -> None:
    """Several threads round the activations of a few rows by column ranges, those of many by tiles."""
    check_rows(llama(hidden_size=384, intermediate_size=352, num_key_value_heads=3), *PAIRS[pair])


class GroupsOf96(Codec):
    """Random codes in groups of 96."""

    def quantize(self, weight: torch.Tensor, inputs: torch.Tensor | None = None) -> PackedTensor:
        n, k = weight.shape
        rng = torch.Generator().manual_seed(n)
        codes = torch.randint(0, 16, (n, k), dtype=torch.uint8, generator=rng)
        scales = 0.02 * torch.rand((n, -(-k // 96)), generator=rng)
        return PackedTensor.pack(codes, scales, bits=4, group_size=96, zero=8)


def test_groups_that_end_behind_the_last_columns(restore_threads: None) -> None:
    """The last range of 128 columns that a thread prepares holds nothing but the padding of a group."""
    check_rows(llama(hidden_size=128, num_attention_heads=4), GroupsOf96(), GroupsOf96())


def check_rows(model: Any, codec: Codec, of_up: Codec) -> None:
    """Rows of forwards of any number of tokens are those of one token each."""
    quantize_(model, codec, overrides={"up_proj": of_up}, calibration=CALIBRATION, progress=False)
    decoder = Decoder.from_module(model, kv_dtype="float32")
    gramcore.set_num_threads(1)
    want = np.concatenate([decoder.forward(IDS[i : i + 1]) for i in range(40)])
    for threads, n in itertools.product((1, 2, 3), (2, 3, 16, 17, 40)):
        gramcore.set_num_threads(threads)
        decoder.reset()
        np.testing.assert_array_equal(decoder.forward(IDS[:n]), want[:n])


def test_billm_is_expanded() -> None:
    model = llama()
    quantize_(model, "billm", calibration=CALIBRATION, activations="float32", progress=False)
    decoder = Decoder.from_module(model)
    assert decoder.kv_dtype == "float32"
    np.testing.assert_allclose(decoder.forward(IDS), logits(model), atol=1e-4)


def test_a_head_that_shares_the_embedding_is_kept_once() -> None:
    model = llama(tie_word_embeddings=True)
    table = IntCodec(bits=8).quantize(model.get_input_embeddings().weight)
    quantize_(model, "int8_g32", progress=False)
    model.model.embed_tokens, model.lm_head = QuantEmbedding(table), QuantLinear(table)
    decoder = Decoder.from_module(model)
    assert decoder.kv_dtype == "float16"
    want = logits(model)
    np.testing.assert_allclose(decoder.forward(IDS), want, atol=0.02 * np.abs(want).max())
    assert decoder.weight_bytes == stored_bytes(model)


def test_biases_of_quantised_layers_are_taken() -> None:
    torch.manual_seed(1)
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES)).eval()
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            p.data.normal_()
    quantize_(model, "int8", overrides={"0.mlp.down_proj": "int4_g128"}, progress=False)
    want = logits(model)
    np.testing.assert_allclose(
        Decoder.from_module(model, kv_dtype="float32").forward(IDS), want, atol=0.02 * np.abs(want).max()
    )
