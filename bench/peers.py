"""Peers that several families run on the packaged model."""

from __future__ import annotations

from typing import Any
from unittest import mock

import gramcore
from gramcore.model import find_model

from bench.harness import Bench

__all__ = ["open_llama"]


def open_llama(threads: int, bench: Bench, *, n_ctx: int = 2048) -> Any | None:
    """The packaged SmolLM2 in llama-cpp-python, or None where that is not installed."""
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
            str(find_model("smollm2")), n_threads=threads, n_threads_batch=threads, n_ctx=n_ctx, verbose=False
        )
