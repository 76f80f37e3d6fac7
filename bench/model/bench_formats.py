"""One token of the packaged SmolLM2-135M in the formats that llama.cpp runs fastest, against the native decoder.

llama.cpp's own quantiser writes the other files from the packaged one (Q4_1 with a Q8_0 head): Q4_0 and Q8_0, whose
products it repacks at run time.  Ours reads the packaged file and, for equal bits, the same others.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gramcore
import numpy as np
import torch
from gramcore.model import Decoder, find_model

from bench.harness import Bench, Contender, peer_version
from bench.peers import open_llama, requantise

CONTEXT = 128
FORMATS = ("Q4_0", "Q8_0")


def run(bench: Bench) -> None:
    ids = np.random.default_rng(0).integers(1000, 49000, CONTEXT + 1)
    with tempfile.TemporaryDirectory() as folder:
        files = {"packaged": find_model("smollm2")}
        for kind in FORMATS:
            if requantise(kind, path := Path(folder) / f"{kind}.gguf"):
                files[kind] = path
        decoders = {kind: Decoder.from_gguf(path, max_len=512) for kind, path in files.items()}
        want = {
            kind: _law(_ours(Decoder.from_gguf(path, max_len=512, dense=True), ids)()) for kind, path in files.items()
        }
        for threads in (2, 1):
            gramcore.set_num_threads(threads)
            contenders = [Contender(f"gramcore, {kind}", _ours(d, ids)) for kind, d in decoders.items()]
            for kind, path in files.items():
                if (peer := open_llama(threads, bench, n_ctx=512, path=path)) is not None:
                    contenders.append(Contender(f"{peer_version('llama-cpp-python')}, {kind}", _llama(peer, ids)))

            def check(name: str, row: np.ndarray) -> None:
                """The law of the file's own weights in fp32, up to the rounding of activations."""
                p, q = want[name.rpartition(", ")[2]], _law(row)
                divergence = float((p.exp() * (p - q)).sum())
                if not divergence < 0.25:
                    raise AssertionError(f"{name}: KL divergence from the file in fp32 is {divergence:.3f}")

            bench.case(f"1 token, context {CONTEXT}, {threads} thread(s)", contenders, check=check)
    gramcore.set_num_threads(0)


def _law(row: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(row).float().log_softmax(-1)


def _ours(decoder: Decoder, ids: np.ndarray) -> Any:
    token = ids[CONTEXT:]

    def step() -> np.ndarray:
        if decoder.length != CONTEXT:
            decoder.reset()
            decoder.forward(ids[:CONTEXT], last_only=True)
        return decoder.forward(token, [-1])[-1]  # a tree of one node: not committed

    return step


def _llama(model: Any, ids: np.ndarray) -> Any:
    import llama_cpp

    def step() -> np.ndarray:
        if model.n_tokens < CONTEXT:
            model.eval(ids[:CONTEXT].tolist())
        model.n_tokens = CONTEXT
        model.eval(ids[CONTEXT:].tolist())
        logits = llama_cpp.llama_get_logits_ith(model.ctx, -1)
        return np.ctypeslib.as_array(logits, shape=(model.n_vocab(),)).copy()

    return step
