"""The native decoder on the packaged SmolLM2-135M: one token, 8 and 16 tokens, and a prompt of 512.

Every step reads new tokens after a context of 128 and forgets them again, so all repetitions do the same work.
Peers: llama-cpp-python on the same file, transformers in bf16 and fp32.
"""

from __future__ import annotations

from collections.abc import Callable

import gramcore
import numpy as np
import torch
from gramcore._hf import cache_argument
from gramcore.model import Decoder, load

from bench.harness import Bench, Contender, peer_version
from bench.peers import open_llama

CONTEXT, PROMPT = 128, 512
Step = Callable[[], np.ndarray]


def run(bench: Bench) -> None:
    ids = np.random.default_rng(0).integers(1000, 49000, CONTEXT + PROMPT)
    reference = _transformers(torch.float32, ids)
    peers = {
        f"{peer_version('transformers')} bf16": _transformers(torch.bfloat16, ids),
        f"{peer_version('transformers')} fp32": reference,
    }
    decoder = Decoder.from_gguf("smollm2", max_len=2048)
    ours = _native(decoder, ids)
    for threads in (2, 1):
        gramcore.set_num_threads(threads)
        torch.set_num_threads(threads)
        named = dict(peers)
        if llama := _llama(ids, threads, bench):
            named = {str(peer_version("llama-cpp-python")): llama, **named}
        for n in (1, 8, 16) if threads == 2 else (1,):
            _case(bench, f"{n} token(s), context {CONTEXT}, {threads} thread(s)", n, ours, named, reference, decoder)
        if threads == 2:
            _case(bench, f"prompt of {PROMPT}, {threads} threads", PROMPT, ours, named, reference, decoder)
    gramcore.set_num_threads(0)


def _case(
    bench: Bench,
    case: str,
    n: int,
    ours: Callable[[int], Step],
    peers: dict[str, Callable[[int], Step]],
    reference: Callable[[int], Step],
    decoder: Decoder,
) -> None:
    want = torch.from_numpy(reference(n)()).log_softmax(-1)

    def check(name: str, row: np.ndarray) -> None:
        """Same file, so the same law up to the rounding of activations."""
        got = torch.from_numpy(row).float().log_softmax(-1)
        divergence = float((want.exp() * (want - got)).sum())
        if not divergence < 0.25:
            raise AssertionError(f"{name}: KL divergence of the last row from fp32 is {divergence:.3f}")
        bench.note(f"{name}: KL divergence of the last row from fp32 {divergence:.4f}")

    contenders = [Contender("gramcore Decoder", ours(n)), *(Contender(k, v(n)) for k, v in peers.items())]
    moved = float(decoder.weight_bytes) if n == 1 else 0.0
    bench.case(case, contenders, check=check, units=n if n == PROMPT else 1, bytes_moved=moved)


def _native(decoder: Decoder, ids: np.ndarray) -> Callable[[int], Step]:
    def make(n: int) -> Step:
        if n == PROMPT:

            def prefill() -> np.ndarray:
                decoder.reset()
                return decoder.forward(ids[:PROMPT], last_only=True)[-1]

            return prefill
        tokens, chain = ids[CONTEXT : CONTEXT + n], np.arange(-1, n - 1)

        def step() -> np.ndarray:
            if decoder.length != CONTEXT:
                decoder.reset()
                decoder.forward(ids[:CONTEXT], last_only=True)
            return decoder.forward(tokens, chain)[-1]

        return step

    return make


def _transformers(dtype: torch.dtype, ids: np.ndarray) -> Callable[[int], Step]:
    model = load("smollm2", bits=16 if dtype == torch.bfloat16 else 32)[0]

    def make(n: int) -> Step:
        from transformers import DynamicCache

        cache = DynamicCache()

        @torch.no_grad()
        def step() -> np.ndarray:
            nonlocal cache
            if n == PROMPT:
                cache = DynamicCache()
            elif cache.get_seq_length() != CONTEXT:
                model(torch.from_numpy(ids[None, :CONTEXT]), logits_to_keep=1, **cache_argument(model, cache))
            start = 0 if n == PROMPT else CONTEXT
            keep = 1 if n == PROMPT else 0
            out = model(
                torch.from_numpy(ids[None, start : start + n]), logits_to_keep=keep, **cache_argument(model, cache)
            )
            if n != PROMPT:
                cache.crop(-n)
            return out.logits[0, -1].float().numpy()

        return step

    return make


def _llama(ids: np.ndarray, threads: int, bench: Bench) -> Callable[[int], Step] | None:
    model = open_llama(threads, bench)
    if model is None:
        return None
    import llama_cpp

    def make(n: int) -> Step:
        def step() -> np.ndarray:
            start = 0 if n == PROMPT else CONTEXT
            if model.n_tokens < start:
                model.eval(ids[:CONTEXT].tolist())
            model.n_tokens = start
            model.eval(ids[start : start + n].tolist())
            logits = llama_cpp.llama_get_logits_ith(model.ctx, -1)
            return np.ctypeslib.as_array(logits, shape=(model.n_vocab(),)).copy()

        return step

    return make
