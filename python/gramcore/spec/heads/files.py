"""Trained draft parts on disk."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import numpy as np
import torch

from gramcore.errors import FormatError
from gramcore.spec.heads.base import TrainableDraft
from gramcore.spec.heads.kinds import kinds
from gramcore.spec.weights_file import read_weights, write_weights

__all__ = ["load_heads", "save_heads", "tokenizer_hash"]

_KIND = "draft heads"


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 of a tokenizer's vocabulary."""
    pairs = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    return hashlib.sha256(json.dumps(pairs, ensure_ascii=True).encode()).hexdigest()


def save_heads(path: str | os.PathLike[str], draft: TrainableDraft, *, tokenizer: Any = None) -> None:
    """Write a trained draft part to a safetensors file, whole or not at all.

    Args:
        path: an existing file is replaced.
        draft: heads or prompt tokens; what is the target's own is not stored.
        tokenizer: its vocabulary is noted, so that other ones are refused later.
    """
    settings = draft.settings()
    ids = settings.pop("vocabulary")
    tensors = {f"weight.{name}": value.float().numpy() for name, value in draft.state_dict().items()}
    if ids is not None:
        tensors["vocabulary"] = np.asarray(ids, np.int64)
    note = "" if tokenizer is None else tokenizer_hash(tokenizer)
    write_weights(path, _KIND, {"draft": draft.kind, "tokenizer": note, "settings": settings}, tensors)


def load_heads(path: str | os.PathLike[str], model: Any, *, tokenizer: Any = None) -> TrainableDraft:
    """Read a file of :func:`save_heads` and attach it to its target.

    Args:
        path: the file; it may come from anywhere, nothing in it is executed.
        model: the target.
        tokenizer: refuse a file made with another vocabulary.

    Raises:
        FileNotFoundError: no such file.
        FormatError: not such a file, of another kind or version, or tensors that do not fit their settings.
        ValueError: made for another model or tokenizer.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"heads must exist, got {os.fspath(path)!r}; train them with gramcore spec train-heads")
    header, tensors = read_weights(path, _KIND)
    try:
        made = kinds()[header["draft"]]
        settings = dict(header["settings"])
        ids = tensors.pop("vocabulary", None)
        if ids is not None and (ids.ndim != 1 or ids.dtype != np.int64 or (np.diff(ids) <= 0).any()):
            raise TypeError(f"vocabulary must be one ascending row of int64, got {ids.dtype} {ids.shape}")
        with torch.device("meta"):
            empty = made(**settings, vocabulary=ids)
    except (KeyError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        raise FormatError(f"{path}: settings must describe a known draft part, got {error!r}") from error
    wanted = {f"weight.{name}": tuple(value.shape) for name, value in empty.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if wanted != found:
        odd = sorted(set(wanted.items()) ^ set(found.items()))[0]
        raise FormatError(f"{path}: tensors must be those of its settings, got a difference at {odd}")
    if any(value.dtype != np.float32 or not np.isfinite(value).all() for value in tensors.values()):
        raise FormatError(f"{path}: tensors must be finite float32 numbers")
    if tokenizer is not None and header.get("tokenizer") not in ("", tokenizer_hash(tokenizer)):
        raise ValueError(f"{path}: tokenizer must be the one the heads were trained with, got another vocabulary")
    empty.load_state_dict({name[7:]: torch.from_numpy(v) for name, v in tensors.items()}, assign=True)
    empty.attach(model)
    return empty.eval()
