"""Weights into the native decoder: from a GGUF file or a transformers module."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gramcore import _core
from gramcore._checks import check_int

__all__ = ["ARCHITECTURES", "Weights", "read_gguf", "read_module"]

#: ``config.model_type`` of the transformers models that :func:`read_module` takes.
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")

_MATRICES = {
    "self_attn.q_proj": "q",
    "self_attn.k_proj": "k",
    "self_attn.v_proj": "v",
    "self_attn.o_proj": "o",
    "mlp.gate_proj": "gate",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}
_VECTORS = {
    "input_layernorm.weight": "attention_norm",
    "post_attention_layernorm.weight": "ffn_norm",
    "self_attn.q_proj.bias": "q_bias",
    "self_attn.k_proj.bias": "k_bias",
    "self_attn.v_proj.bias": "v_bias",
    "self_attn.q_norm.weight": "q_norm",
    "self_attn.k_norm.weight": "k_norm",
    "model.norm.weight": "final_norm",
}
_TOP = {"model.embed_tokens": "embed", "lm_head": "head"}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)$")


@dataclass
class Weights:
    """A native decoder with all weights set, and what Python needs to know of it."""

    native: Any
    sizes: dict[str, int]
    context_len: int
    eos_token_ids: tuple[int, ...]
    low_bit: bool = False


def _place(name: str) -> tuple[str, int]:
    """Transformers parameter name -> (name in the native decoder, layer)."""
    found = _LAYER.match(name)
    layer, rest = (int(found[1]), found[2]) if found else (0, name)
    if rest in _VECTORS:
        return _VECTORS[rest], layer
    stem = rest.removesuffix(".weight")
    return (_MATRICES if found else _TOP).get(stem, ""), layer


def _create(sizes: dict[str, int], inverse_frequency: npt.NDArray[np.float32], eps: float, rope_scale: float) -> Any:
    return _core.model.Decoder(sizes, [float(f) for f in inverse_frequency], eps, rope_scale)


def read_gguf(path_or_name: str | Path, *, dense: bool = False) -> Weights:
    """Read a GGUF file without torch: quantised formats keep their codes, others become fp32."""
    from gramcore.model.gguf import read_shape, target_tensors
    from gramcore.model.hf import find_model
    from gramcore.quant import GgufFile

    file = GgufFile(find_model(path_or_name))
    shape = read_shape(file)
    sizes = {
        "layers": shape.num_layers,
        "hidden": shape.hidden,
        "feed_forward": shape.feed_forward,
        "heads": shape.num_heads,
        "kv_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "vocab": shape.vocab,
    }
    exponents = np.arange(0, shape.head_dim, 2, dtype=np.float32) / np.float32(shape.head_dim)
    native = _create(sizes, (1.0 / np.float32(shape.rope_base) ** exponents).astype(np.float32), shape.rms_eps, 1.0)
    low_bit = False
    for target, tensor, order in target_tensors(file, shape):
        name, layer = _place(target)
        if len(tensor.shape) == 1:
            values = tensor.dequantize()
            native.set_vector(name, layer, values if order is None else values[order])
        else:
            low_bit |= _set_matrix(native, name, layer, tensor, order, dense)
    native.finish()
    eos = file.metadata.get("tokenizer.ggml.eos_token_id")
    return Weights(native, sizes, shape.context_len, () if eos is None else (int(eos),), low_bit=low_bit)


def _set_matrix(native: Any, name: str, layer: int, tensor: Any, order: Any, dense: bool) -> bool:
    """Hand over one matrix; returns whether its codes were kept."""
    groups = None if dense or tensor.type.groups is None else tensor.type.groups(tensor.data)
    n, k = tensor.shape
    if groups is None:
        values = tensor.dequantize()
        native.set_dense(name, layer, np.ascontiguousarray(values if order is None else values[order]))
        return False
    size = groups.codes.shape[1]

    def rows(x: npt.NDArray[Any], dtype: Any) -> npt.NDArray[Any]:
        matrix = x.reshape(n, -1).astype(dtype, copy=False)
        return np.ascontiguousarray(matrix if order is None else matrix[order])

    codes, scales = rows(groups.codes, np.uint8), rows(groups.scales, np.float32)
    mins = None if groups.mins is None else rows(groups.mins, np.float32)
    table = None
    if size == 16:  # blocks of 32 with two scales, codes as places in a table of whole numbers
        size, table = 32, np.arange(-groups.zero, (1 << groups.bits) - groups.zero, dtype=np.float32)
        scales, mins = (np.ascontiguousarray(scales[:, half::2]) for half in (0, 1))
    exact = groups.scales.dtype != np.float16
    spec = _pack_spec(n, k, groups.bits, size, groups.zero, mins is not None, exact)
    native.set_codes(name, layer, spec, codes, scales, mins, table)
    return True


def _pack_spec(*numbers: int) -> dict[str, int]:
    """The form of a packed matrix, its numbers in the order of :class:`gramcore.quant.PackedTensor`."""
    return dict(zip(("n", "k", "bits", "group", "zero", "has_min", "scale_f32"), numbers, strict=True))


def read_module(model: Any) -> Weights:
    """Copy the weights of a transformers model; quantised layers whose form the kernels read keep their bytes."""
    config = model.config
    _check_config(config)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    sizes = {
        "layers": config.num_hidden_layers,
        "hidden": config.hidden_size,
        "feed_forward": config.intermediate_size,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "head_dim": head_dim,
        "vocab": model.get_output_embeddings().out_features,
    }
    rotary = model.model.rotary_emb
    frequencies = rotary.inv_freq.detach().float().cpu().numpy()
    native = _create(sizes, frequencies, config.rms_norm_eps, float(rotary.attention_scaling))
    low_bit = False
    for target, weight in _module_weights(model):
        name, layer = _place(target)
        if not name:
            raise ValueError(
                f"parameters must be those of {', '.join(ARCHITECTURES)} models, got {target}; unsupported"
            )
        low_bit |= _set_weight(native, name, layer, weight)
    native.finish()
    eos = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = () if eos is None else (int(eos),) if isinstance(eos, int) else tuple(int(i) for i in eos)
    return Weights(native, sizes, int(config.max_position_embeddings), ids, low_bit=low_bit)


def _module_weights(model: Any) -> Iterator[tuple[str, Any]]:
    """Parameters and quantised weights by name; a head that shares the embedding's memory is left out."""
    from gramcore.quant import QuantEmbedding, QuantLinear

    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    of = {id(module): next(iter((*module.parameters(), *module.buffers()))) for module in (head, embedding)}
    tied = of[id(head)].data_ptr() == of[id(embedding)].data_ptr()
    for target, parameter in model.named_parameters(remove_duplicate=False):
        if not (tied and target == "lm_head.weight"):
            yield target, parameter.detach().cpu()
    for target, module in model.named_modules():
        if isinstance(module, QuantLinear | QuantEmbedding) and not (tied and module is head):
            yield target, module.qweight


def _set_weight(native: Any, name: str, layer: int, weight: Any) -> bool:
    """Hand over a tensor or a quantised matrix; returns whether low-bit codes were kept."""
    import torch

    from gramcore.quant import BipolarTensor, PackedTensor, SmoothTensor, TableTensor

    column_scale, activation_bits = None, 8
    if isinstance(weight, SmoothTensor):
        weight, column_scale = weight.inner, weight.inverse.cpu()
    if isinstance(weight, BipolarTensor):
        weight, activation_bits = weight.inner, weight.activation_bits
    if isinstance(weight, PackedTensor | TableTensor):
        values = weight.values.cpu() if isinstance(weight, TableTensor) else None
        spec = _pack_spec(*weight.numbers)
        native.set_packed(name, layer, spec, weight.packed.cpu(), values, column_scale, activation_bits)
        return True
    dense = weight if isinstance(weight, torch.Tensor) else weight.dequantize()
    if dense.dim() == 1:
        native.set_vector(name, layer, dense.float().contiguous())
    else:
        keep = dense.dtype in (torch.float32, torch.bfloat16)
        native.set_dense(name, layer, (dense if keep else dense.float()).contiguous())
    return False


def supports(config: Any) -> bool:
    """Whether the native decoder runs models of this transformers configuration."""
    try:
        _check_config(config)
    except ValueError:
        return False
    return True


def _check_config(config: Any) -> None:
    kind = getattr(config, "model_type", None)
    if kind not in ARCHITECTURES:
        raise ValueError(
            f"architecture must be one of {', '.join(ARCHITECTURES)}, got {kind!r}; use transformers for it"
        )
    if config.hidden_act != "silu":
        raise ValueError(f"hidden_act must be silu, got {config.hidden_act!r} ({kind}); use transformers for it")
    if kind == "llama" and (config.attention_bias or config.mlp_bias):
        raise ValueError("attention_bias and mlp_bias must be False, got True (llama); use transformers for it")
    window = getattr(config, "sliding_window", None)
    if window and (kind == "mistral" or getattr(config, "use_sliding_window", False)):
        check_int("sliding_window (attention must be full; use transformers for it)", window, low=1 << 30)
    rope = getattr(config, "rope_parameters", None) or {}
    scaling = rope.get("rope_type", "default")
    if scaling not in ("default", "linear", "llama3", "yarn"):
        raise ValueError(
            f"rope scaling must be default, linear, llama3 or yarn, got {scaling!r}; use transformers for it"
        )
