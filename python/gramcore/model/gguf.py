"""What a GGUF file says about a Llama-family model: its configuration and the place of every tensor.

llama.cpp stores the rows of the query and key projections of architecture ``llama`` in pairs (rotary position
embedding over neighbouring elements); transformers rotates halves.  :func:`row_order` gives the row order that turns
one into the other; rows are only moved, so codes and scales stay what the file holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gramcore.errors import FormatError
from gramcore.quant import GgufFile, GgufTensor

__all__ = ["ARCHITECTURES", "LlamaShape", "read_shape", "row_order", "target_tensors"]

#: GGUF architecture -> whether its query/key rows are stored in rotary pairs.
ARCHITECTURES = {"llama": True, "qwen2": False}

_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
_BLOCK = re.compile(r"blk\.(\d{1,6})\.(\w+)\.(weight|bias)$")


@dataclass(frozen=True)
class LlamaShape:
    """Sizes and constants of a Llama-family model, as read from a GGUF file."""

    architecture: str
    num_layers: int
    context_len: int
    hidden: int
    feed_forward: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab: int
    rope_base: float
    rms_eps: float
    tied_head: bool


def read_shape(file: GgufFile) -> LlamaShape:
    """The model's sizes, checked against the tensors.

    Raises:
        FormatError: a needed entry is missing or contradicts the tensors.
        ValueError: the architecture is not supported; the message lists those that are.
    """
    meta = file.metadata
    arch = meta.get("general.architecture")
    if arch not in ARCHITECTURES:
        raise ValueError(
            f"architecture must be one of {', '.join(ARCHITECTURES)}, got {arch!r} ({file.path}); convert another model"
        )
    _refuse_variants(file, str(arch))

    def number(key: str, default: float | None = None, kind: type = int) -> Any:
        value = meta.get(f"{arch}.{key}", default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise FormatError(f"{file.path}: {arch}.{key} must be a positive number, got {value!r}")
        return kind(value)

    if "token_embd.weight" not in file:
        raise FormatError(f"{file.path}: must hold tensor token_embd.weight; this is no whole model")
    heads, hidden = number("attention.head_count"), number("embedding_length")
    shape = LlamaShape(
        architecture=str(arch),
        num_layers=number("block_count"),
        context_len=number("context_length"),
        hidden=hidden,
        feed_forward=number("feed_forward_length"),
        num_heads=heads,
        num_kv_heads=number("attention.head_count_kv", heads),
        head_dim=number("attention.key_length", hidden // heads),
        vocab=file["token_embd.weight"].shape[0],
        rope_base=number("rope.freq_base", 10000.0, float),
        rms_eps=number("attention.layer_norm_rms_epsilon", 1e-5, float),
        tied_head="output.weight" not in file,
    )
    if number("rope.dimension_count", shape.head_dim) != shape.head_dim or shape.head_dim % 2:
        raise FormatError(f"{file.path}: rotary dimensions must be the even head size {shape.head_dim}")
    if shape.num_heads % shape.num_kv_heads:
        raise FormatError(f"{file.path}: {heads} heads must be a multiple of {shape.num_kv_heads} key/value heads")
    return shape


def _refuse_variants(file: GgufFile, arch: str) -> None:
    """Llama files may hold models we do not run; say which instead of running them wrongly."""
    scaling = file.metadata.get(f"{arch}.rope.scaling.type", "none")
    if scaling != "none":
        raise ValueError(f"rope scaling must be none, got {scaling!r} ({file.path}); use a model without it")
    if "rope_freqs.weight" in file:
        raise ValueError(f"rope must have one base frequency, got a table rope_freqs ({file.path}); unsupported")
    if file.metadata.get(f"{arch}.expert_count", 0):
        raise ValueError(f"architecture must be dense, got a mixture of experts ({file.path}); unsupported")
    if file.metadata.get(f"{arch}.attention.sliding_window", 0):
        raise ValueError(f"attention must be full, got a sliding window ({file.path}); unsupported")


def row_order(shape: LlamaShape, name: str) -> npt.NDArray[np.int64] | None:
    """Order of the stored rows that transformers expects for tensor ``name``, or None when they already agree."""
    found = _BLOCK.match(name)
    if not ARCHITECTURES[shape.architecture] or found is None or found[2] not in ("attn_q", "attn_k"):
        return None
    heads = shape.num_heads if found[2] == "attn_q" else shape.num_kv_heads
    rows = np.arange(heads * shape.head_dim).reshape(heads, shape.head_dim // 2, 2)
    return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(-1)


def target_tensors(file: GgufFile, shape: LlamaShape) -> Iterator[tuple[str, GgufTensor, npt.NDArray[np.int64] | None]]:
    """``(transformers parameter name, tensor, row order)`` of every weight, shapes checked.

    Raises:
        FormatError: a tensor is missing, unknown or of the wrong shape.
    """
    wanted = _expected(shape)
    for name, tensor in file.items():
        target = _target(name)
        if target is None or target not in wanted:
            raise FormatError(f"{file.path}: tensors must be those of a {shape.architecture} model, got {name!r}")
        expected = wanted.pop(target)
        if tensor.shape != expected:
            raise FormatError(f"{file.path}: tensor {name!r} must have shape {expected}, got {tensor.shape}")
        yield target, tensor, row_order(shape, name)
    if wanted:
        missing = list(wanted)
        raise FormatError(f"{file.path}: no tensor must be missing, got {len(missing)} absent, {missing[0]} first")


def _target(name: str) -> str | None:
    if name in _TOP:
        return _TOP[name]
    if name == "output.weight":
        return "lm_head.weight"
    found = _BLOCK.match(name)
    if found is None or found[2] not in _LAYER:
        return None
    return f"model.layers.{int(found[1])}.{_LAYER[found[2]]}.{found[3]}"


def _expected(shape: LlamaShape) -> dict[str, tuple[int, ...]]:
    q, kv = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    matrices = {
        "self_attn.q_proj": (q, shape.hidden),
        "self_attn.k_proj": (kv, shape.hidden),
        "self_attn.v_proj": (kv, shape.hidden),
        "self_attn.o_proj": (shape.hidden, q),
        "mlp.gate_proj": (shape.feed_forward, shape.hidden),
        "mlp.up_proj": (shape.feed_forward, shape.hidden),
        "mlp.down_proj": (shape.hidden, shape.feed_forward),
    }
    wanted: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (shape.vocab, shape.hidden),
        "model.norm.weight": (shape.hidden,),
    }
    if not shape.tied_head:
        wanted["lm_head.weight"] = (shape.vocab, shape.hidden)
    for i in range(shape.num_layers):
        layer = f"model.layers.{i}."
        for name, size in matrices.items():
            wanted[f"{layer}{name}.weight"] = size
            if shape.architecture == "qwen2" and name[10:] in ("q_proj", "k_proj", "v_proj"):
                wanted[f"{layer}{name}.bias"] = size[:1]
        for norm in ("input_layernorm", "post_attention_layernorm"):
            wanted[f"{layer}{norm}.weight"] = (shape.hidden,)
    return wanted
