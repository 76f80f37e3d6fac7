"""Small trained parts on disk: a safetensors file with a kind, a version and settings in its metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from gramcore._checks import require
from gramcore._files import replacing
from gramcore.errors import FormatError

__all__ = ["VERSION", "read_weights", "write_weights"]

#: Version of the metadata; files of a later one are refused.
VERSION = 1
_FORMAT = "gramcore.spec"


def write_weights(
    path: str | os.PathLike[str], kind: str, settings: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Write arrays and JSON settings, whole or not at all."""
    safetensors = require("safetensors.numpy", "hf")
    metadata = {"format": _FORMAT, "version": str(VERSION), "kind": kind, "settings": json.dumps(dict(settings))}
    with replacing(path) as part:
        safetensors.save_file({k: v.copy(order="C") for k, v in tensors.items()}, str(part), metadata=metadata)


def read_weights(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Settings and arrays of a file written by :func:`write_weights`.

    Raises:
        FormatError: not such a file, another kind, a later version.
    """
    safetensors = require("safetensors", "hf")
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except safetensors.SafetensorError as error:
        raise FormatError(f"{path}: must be a safetensors file, got {error}") from error
    if metadata.get("format") != _FORMAT or metadata.get("kind") != kind:
        found = f"{metadata.get('format')} {metadata.get('kind')}"
        raise FormatError(f"{path}: must hold {_FORMAT} weights of kind {kind!r}, got {found}")
    version = metadata.get("version", "")
    if not version.isdigit() or int(version) > VERSION:
        raise FormatError(f"{path}: format version must be at most {VERSION}, got {version!r}; update gramcore")
    try:
        settings = json.loads(metadata["settings"])
    except (KeyError, ValueError) as error:
        raise FormatError(f"{path}: settings must be JSON in the metadata, got {error!r}") from error
    if not isinstance(settings, dict):
        raise FormatError(f"{path}: settings must be a JSON object, got {type(settings).__name__}")
    return settings, tensors
