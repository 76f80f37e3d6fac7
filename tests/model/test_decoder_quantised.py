"""The native decoder on quantised transformers models: packed codes are kept, other forms are expanded."""

from __future__ import annotations

import itertools
from typing import Any

import gramcore
import numpy as np
import pytest
import torch
from gramcore.model import Decoder
from gramcore.quant import BipolarInt, Codec, IntCodec, QuantEmbedding, QuantLinear, quantize_
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

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


def llama(**changes: Any) -> Any:
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(**(SIZES | changes))).eval()


def logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(IDS)[None]).logits[0].float().numpy()


@pytest.mark.parametrize("scheme", ["int8", "int4_g32_asym", "int3_g64", "bipolar_w1a8", "finequant", "int5_g32"])
def test_packed_layers_compute_what_transformers_does(scheme: str, isa: str) -> None:
    model = llama()
    quantize_(model, scheme, skip=(), progress=False)
    decoder = Decoder.from_module(model, kv_dtype="float32")
    want = logits(model)  # rounds activations to int8 in the same blocks
    np.testing.assert_allclose(decoder.forward(IDS), want, atol=0.02 * np.abs(want).max())
    # Whole bytes per matrix, of which there are as many as the model stores, plus the dense embedding.
    stored = sum(m.qweight.stored_bytes() for m in model.modules() if isinstance(m, QuantLinear))
    assert stored <= decoder.weight_bytes <= stored + 101 * 48 * 4 + 16 * 48 * 4


MINIMA = IntCodec(symmetric=False)
PAIRS: dict[str, tuple[Codec, Codec]] = {
    "minima, one zero beside another": (MINIMA, IntCodec()),
    "two sizes of groups": (MINIMA, IntCodec(bits=5, group_size=128, symmetric=False)),
    "one group per row, one bit": (IntCodec(group_size=None, symmetric=False), BipolarInt(bits=1)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_rows_are_the_same_bits_however_they_are_split(pair: str, restore_threads: None) -> None:
    """Several threads round the activations of a few rows by column ranges, those of many by tiles."""
    model = llama(hidden_size=384, intermediate_size=352, num_key_value_heads=3)
    quantize_(model, PAIRS[pair][0], overrides={"up_proj": PAIRS[pair][1]}, progress=False)
    decoder = Decoder.from_module(model, kv_dtype="float32")
    gramcore.set_num_threads(1)
    want = np.concatenate([decoder.forward(IDS[i : i + 1]) for i in range(40)])
    for threads, n in itertools.product((1, 2, 3), (2, 3, 16, 17, 40)):
        gramcore.set_num_threads(threads)
        decoder.reset()
        np.testing.assert_array_equal(decoder.forward(IDS[:n]), want[:n])


@pytest.mark.parametrize("scheme", ["nupes4", "fp8_e4m3", "billm"])
def test_other_forms_are_expanded(scheme: str) -> None:
    model = llama()
    quantize_(model, scheme, calibration=[torch.from_numpy(IDS)[None]], activations="float32", progress=False)
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
    stored = sum(m.qweight.stored_bytes() for m in model.modules() if isinstance(m, QuantLinear))
    assert decoder.weight_bytes == stored


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
