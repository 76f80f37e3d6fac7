"""Language models ready to run: loading from one GGUF file, with tokenizer, offline."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["Decoder", "Session", "find_model", "load", "load_tokenizer", "open_model", "stop_tokens"]

_HOMES = {
    "Decoder": "decoder",
    "Session": "session",
    "find_model": "hf",
    "load": "hf",
    "load_tokenizer": "tokenizer",
    "open_model": "session",
    "stop_tokens": "hf",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"gramcore.model.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'gramcore.model' has no attribute {name!r}")
