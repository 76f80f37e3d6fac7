"""Engines that decode one token, each in a process of its own, so that none waits with spinning threads while another
is timed.

All are started first; then one at a time is asked for some tokens through a pipe, on which the others sleep.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import Bench

__all__ = ["CONTEXT", "IDS", "Engine"]

CONTEXT = 128
IDS = np.random.default_rng(0).integers(1000, 49000, CONTEXT + 1)
REST = 0.005  # seconds until the threads of the engine asked before are asleep

Step = Callable[[], np.ndarray]


class Engine:
    """One engine with one file, in a process that ends with this object's ``close``.

    Args:
        kind: ``"gramcore"`` or ``"llama.cpp"``.
        path: the GGUF file.
        threads: threads it decodes with.
    """

    def __init__(self, kind: str, path: Path, threads: int, *, dense: bool = False) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit the threads of this process
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, kind, str(path), threads, dense), daemon=True)
        self._process.start()
        theirs.close()
        self.installed: bool  # whether the engine's package is there; notes say what is to be known about it
        self.notes: list[str]
        self.installed, self.notes = self._receive()

    def wake(self) -> None:
        """After a rest, two tokens outside any timing: threads are awake and caches hold this engine's weights."""
        time.sleep(REST)
        self.tokens(2)

    def tokens(self, count: int) -> np.ndarray:
        """Decodes the token behind the context ``count`` times; logits of the last."""
        self._pipe.send(count)
        return self._receive()

    def close(self) -> None:
        if self.installed and self._process.is_alive():
            self._pipe.send(0)
        self._process.join()

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"engine must answer, got exit status {self._process.exitcode}") from None


def _serve(pipe: Any, kind: str, path: str, threads: int, dense: bool) -> None:
    bench = Bench("model", "engine")
    with contextlib.redirect_stdout(io.StringIO()):  # the parent prints the notes
        step = (_ours if kind == "gramcore" else _llama)(path, threads, dense, bench)
    pipe.send((step is not None, bench.notes))
    while step is not None and (count := pipe.recv()) > 0:
        for _ in range(count):
            row = step()
        pipe.send(row)


def _ours(path: str, threads: int, dense: bool, bench: Bench) -> Step:
    import gramcore
    from gramcore.model import Decoder

    gramcore.set_num_threads(threads)
    decoder = Decoder.from_gguf(path, max_len=512, dense=dense)
    decoder.forward(IDS[:CONTEXT], last_only=True)
    return lambda: decoder.forward(IDS[CONTEXT:], [-1])[-1]  # a tree of one node: not committed


def _llama(path: str, threads: int, dense: bool, bench: Bench) -> Step | None:
    from bench.peers import open_llama

    if (model := open_llama(threads, bench, n_ctx=512, path=Path(path))) is None:
        return None
    import llama_cpp

    model.eval(IDS[:CONTEXT].tolist())

    def step() -> np.ndarray:
        model.n_tokens = CONTEXT
        model.eval(IDS[CONTEXT:].tolist())
        logits = llama_cpp.llama_get_logits_ith(model.ctx, -1)
        return np.ctypeslib.as_array(logits, shape=(model.n_vocab(),)).copy()

    return step
