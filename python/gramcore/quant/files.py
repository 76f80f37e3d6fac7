"""Quantised models on disk: one safetensors file with versioned metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gramcore._checks import require
from gramcore._files import replacing
from gramcore.errors import FormatError
from gramcore.quant.base import QTensor, restore
from gramcore.quant.modules import QuantEmbedding, QuantLinear
from gramcore.quant.packed import PackedTensor
from gramcore.quant.table import TableTensor

__all__ = ["load_quantized_", "save_quantized"]

_FORMAT, _VERSION = "gramcore.quant", "1"


def save_quantized(model: nn.Module, path: str | Path) -> None:
    """Write the state of ``model``, quantised layers packed, to a safetensors file (whole or not at all).

    Buffers shared by several layers are stored once.

    Args:
        model: a model treated by :func:`gramcore.quant.quantize_` or :func:`gramcore.model.load`.
        path: file to write; an existing one is replaced.

    Raises:
        OSError: the file cannot be written.
    """
    safetensors = require("safetensors.torch", "hf")
    tensors, layers, shared = packed_state(model)
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "layers": json.dumps(layers, sort_keys=True),
        "shared": json.dumps(shared, sort_keys=True),
    }
    with replacing(path) as part:
        try:
            safetensors.save_file(tensors, str(part), metadata=header)
        except require("safetensors", "hf").SafetensorError as error:
            raise OSError(f"quantised model must be written whole, got {error} ({str(path)!r})") from error


def packed_state(model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, Any]], dict[str, str]]:
    """The tensors of ``model``, what its quantised layers are, and names of tensors that are another's: stored once."""
    layers: dict[str, dict[str, Any]] = {}
    for name, module in model.named_modules():
        if isinstance(module, (QuantLinear, QuantEmbedding)):
            entry = {"module": type(module).__name__, "meta": dict(module.qweight.meta())}
            if isinstance(module, QuantLinear):
                entry["activations"] = module.activations
            layers[name] = entry
    tensors: dict[str, torch.Tensor] = {}
    shared: dict[str, str] = {}
    seen: dict[tuple[int, torch.Size, torch.dtype], str] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        owner, _, last = name.rpartition(".")
        if not isinstance(value, torch.Tensor) or (owner in layers and last == "_extra_state"):
            continue
        key = (value.data_ptr(), value.shape, value.dtype)
        if value.numel() and key in seen:
            shared[name] = seen[key]
            continue
        seen[key] = name
        tensors[name] = value.detach().contiguous()
    return tensors, layers, shared


def load_quantized_(model: nn.Module, path: str | Path) -> None:
    """Put the layers and parameters of a file of :func:`save_quantized` into ``model``, in place.

    Args:
        model: the architecture, dense or quantised; layers that the file holds quantised are replaced.
        path: the file.

    Raises:
        FileNotFoundError: no such file.
        FormatError: not such a file, truncated, of another version, or of another model.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"quantised model must exist, got {str(path)!r}")
    tensors, layers = _read(path)
    ready = _built(model, layers, tensors, path)
    rest = {n: t for n, t in tensors.items() if not any(n.startswith(f"{layer}.") for layer in ready)}
    _check_rest(model, rest, set(ready), path)
    _place(model, ready)
    model.load_state_dict(rest, strict=False)


def put_layers(
    model: nn.Module, layers: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], path: str | Path
) -> None:
    """Put quantised layers in place, all or none; ``path`` stands in messages.

    Args:
        model: changed in place.
        layers, tensors: as :func:`packed_state` gives them; tensors of other names do not matter.

    Raises:
        FormatError: they do not fit together or the model.
    """
    _place(model, _built(model, layers, tensors, path))


def _built(
    model: nn.Module, layers: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], path: str | Path
) -> dict[str, Any]:
    ready: dict[str, Any] = {}
    for name, entry in layers.items():
        old = _submodule(model, name, path)
        own = {n[len(name) + 1 :]: t for n, t in tensors.items() if n.startswith(f"{name}.")}
        bias = own.pop("bias", None)
        ready[name] = _module(entry, restore(entry.get("meta", {}), own), bias, path)
        size = (getattr(old, "out_features", None), getattr(old, "in_features", None))
        if None not in size and size != ready[name].qweight.shape:
            raise FormatError(f"{path}: layer {name!r} must have shape {size}, got {ready[name].qweight.shape}")
    return ready


def _place(model: nn.Module, ready: Mapping[str, nn.Module]) -> None:
    for name, module in ready.items():
        model.set_submodule(name, module.train(model.training))


def _check_rest(model: nn.Module, rest: dict[str, torch.Tensor], layers: set[str], path: str | Path) -> None:
    wanted = {
        n: v
        for n, v in model.state_dict().items()
        if isinstance(v, torch.Tensor) and n.rpartition(".")[0] not in layers
    }
    if set(wanted) != set(rest):
        odd = sorted(set(wanted) ^ set(rest))[0]
        raise FormatError(f"{path}: tensors must be those of this model, got a difference at {odd!r}")
    for name, value in rest.items():
        if value.shape != wanted[name].shape:
            raise FormatError(f"{path}: {name!r} must have shape {tuple(wanted[name].shape)}, got {tuple(value.shape)}")


def read_tensors(path: str | Path, layers: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file that belong to some of ``layers``.

    Raises:
        FormatError: not a whole safetensors file.
    """
    return _open(path, lambda name: name.rpartition(".")[0] in layers)[0]


def _open(path: str | Path, wanted: Callable[[str], bool]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    safetensors = require("safetensors", "hf")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if wanted(name)}, file.metadata() or {}  # noqa: SIM118  not a mapping
    except safetensors.SafetensorError as error:
        raise FormatError(f"{path}: must be a whole safetensors file, got {error}") from error


def _read(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors, header = _open(path, lambda name: True)
    if header.get("format") != _FORMAT or header.get("version") != _VERSION:
        raise FormatError(
            f"{path}: format must be {_FORMAT} version {_VERSION}, got {header.get('format')!r} "
            f"version {header.get('version')!r}"
        )
    try:
        layers, shared = json.loads(header["layers"]), json.loads(header["shared"])
        tensors |= {name: tensors[source] for name, source in shared.items()}
        if not all(isinstance(entry, dict) for entry in layers.values()):
            raise TypeError("layers must be objects")
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: metadata must be whole, got {error!r}") from error
    return tensors, layers


def _submodule(model: nn.Module, name: str, path: str | Path) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise FormatError(f"{path}: layers must be those of this model, got {name!r}") from error


def _module(entry: dict[str, Any], weight: QTensor, bias: torch.Tensor | None, path: str | Path) -> Any:
    kind = entry.get("module")
    if kind == "QuantLinear":
        try:
            return QuantLinear(weight, bias, activations=entry.get("activations", "int8"))
        except ValueError as error:
            raise FormatError(f"{path}: {error}") from error
    if kind == "QuantEmbedding" and isinstance(weight, PackedTensor | TableTensor):
        return QuantEmbedding(weight)
    raise FormatError(f"{path}: module of a layer must be QuantLinear or QuantEmbedding, got {kind!r}")
