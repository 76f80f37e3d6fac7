"""Peers that several families run on the packaged model."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import gramcore
from gramcore.model import find_model

from bench.harness import Bench

__all__ = ["open_llama", "requantise"]


def open_llama(threads: int, bench: Bench, *, n_ctx: int = 2048, path: Path | None = None) -> Any | None:
    """A GGUF file, by default the packaged SmolLM2, in llama-cpp-python, or None where that is not installed."""
    try:
        import llama_cpp
    except ImportError as error:
        bench.note(f"llama-cpp-python is not installed ({error})")
        return None
    defaults = llama_cpp.llama_cpp.llama_model_default_params()
    _, levels, _ = gramcore.cpu_info()
    if "amx" in levels:
        # Its tile products of several rows end the process by an illegal instruction (0.3.36, Sapphire Rapids).
        bench.note("llama-cpp-python: without its packed layouts, whose AMX products fail here")
        defaults.use_extra_bufts = False
    with mock.patch.object(llama_cpp.llama_cpp, "llama_model_default_params", return_value=defaults):
        return llama_cpp.Llama(
            str(path or find_model("smollm2")), n_threads=threads, n_threads_batch=threads, n_ctx=n_ctx, verbose=False
        )


def requantise(kind: str, to: Path) -> bool:
    """The packaged SmolLM2 in another format of llama.cpp (``"Q4_0"``), written by its own quantiser to `to`.

    Returns whether llama-cpp-python is installed.
    """
    try:
        from llama_cpp import llama_cpp
    except ImportError:
        return False
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    options.allow_requantize = True
    status = llama_cpp.llama_model_quantize(str(find_model("smollm2")).encode(), str(to).encode(), options)
    if status != 0:
        raise RuntimeError(f"llama_model_quantize to {kind} must return 0, got {status}")
    return True
