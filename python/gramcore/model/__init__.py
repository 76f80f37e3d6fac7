"""Language models ready to run: loading from one GGUF file, with tokenizer, offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gramcore._lazy import attach

if TYPE_CHECKING:
    from gramcore.model.decoder import Decoder
    from gramcore.model.hf import find_model, load, stop_tokens
    from gramcore.model.session import Session, open_model
    from gramcore.model.tokenizer import load_tokenizer

__all__ = ["Decoder", "Session", "find_model", "load", "load_tokenizer", "open_model", "stop_tokens"]

__getattr__, __dir__ = attach(
    __name__,
    {
        "decoder": "Decoder",
        "hf": "find_model load stop_tokens",
        "session": "Session open_model",
        "tokenizer": "load_tokenizer",
    },
)
