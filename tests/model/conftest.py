from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from gramcore.model import Decoder

from tests.model.tiny import SIZES, tiny
from tests.reference.quant import write_model


@pytest.fixture(scope="module")
def plain() -> Decoder:
    return Decoder.from_module(tiny("llama"))


@pytest.fixture
def short() -> Decoder:
    """An int8 cache."""
    return Decoder.from_module(tiny("llama"), kv_dtype="int8")


@pytest.fixture
def packed(tmp_path: Path) -> Decoder:
    """Q4_1 everywhere: the low-bit path."""
    sizes = {"vocab_size": 257, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}
    config = transformers.LlamaConfig(**(SIZES | sizes))
    torch.manual_seed(2)
    write_model(tmp_path / "m.gguf", transformers.LlamaForCausalLM(config), "Q4_1")
    return Decoder.from_gguf(tmp_path / "m.gguf")
