"""One token of the packaged SmolLM2-135M in the formats that llama.cpp runs fastest, against the native decoder.

llama.cpp's own quantiser writes the other files from the packaged one (Q4_1 with a Q8_0 head): Q4_0 and Q8_0, whose
products it repacks at run time.  Ours reads the packaged file and, for equal bits, the same others.  Every engine has a
process of its own and they take turns: eight tokens each, after two that are not timed.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from gramcore.model import find_model

from bench.harness import Bench, Contender, Result, peer_version
from bench.model.engines import CONTEXT, Engine
from bench.peers import requantise

FORMATS = ("Q4_0", "Q8_0")
TOKENS = 8  # of a turn: what a turn costs besides is nothing beside them


def run(bench: Bench) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = {"packaged": find_model("smollm2")}
        for kind in FORMATS:
            if requantise(kind, path := Path(folder) / f"{kind}.gguf"):
                files[kind] = path
        want = {kind: _law(_reference(path)) for kind, path in files.items()}
        for threads in (2, 1):
            _compare(bench, files, want, threads)


def _compare(bench: Bench, files: dict[str, Path], want: dict[str, np.ndarray], threads: int) -> None:
    peer = str(peer_version("llama-cpp-python"))

    def check(name: str, row: np.ndarray) -> None:
        """The law of the file's own weights in fp32, up to the rounding of activations."""
        p, q = want[name.rpartition(", ")[2]], _law(row)
        divergence = float((np.exp(p) * (p - q)).sum())
        if not divergence < 0.25:
            raise AssertionError(f"{name}: KL divergence from the file in fp32 is {divergence:.3f}")

    with ExitStack() as stack:
        contenders = []
        for engine in ("gramcore", "llama.cpp"):
            for kind, path in files.items():
                process = Engine(engine, path, threads)
                stack.callback(process.close)
                for note in process.notes:
                    if note not in bench.notes:
                        bench.note(note)
                if process.installed:
                    name = f"{'gramcore' if engine == 'gramcore' else peer}, {kind}"
                    contenders.append(Contender(name, partial(process.tokens, TOKENS), process.wake))
        case = f"1 token, context {CONTEXT}, {threads} thread(s)"
        _ratios(bench, peer, bench.case(case, contenders, check=check, units=TOKENS))


def _ratios(bench: Bench, peer: str, results: list[Result]) -> None:
    """20th percentiles: llama.cpp over ours with the same file, and its fastest format over our packaged file."""
    time = {r.contender: r.p20_us for r in results}
    theirs = {name.rpartition(", ")[2]: t for name, t in time.items() if name.startswith(peer)}
    if not theirs:
        return
    same = ", ".join(f"{kind} {t / time[f'gramcore, {kind}']:.2f}" for kind, t in theirs.items())
    best = min(theirs, key=lambda kind: theirs[kind])
    ratio = theirs[best] / time["gramcore, packaged"]
    bench.note(f"llama.cpp over ours, same file: {same}; its fastest, {best}, over our packaged file: {ratio:.2f}")


def _reference(path: Path) -> np.ndarray:
    engine = Engine("gramcore", path, 2, dense=True)
    row = engine.tokens(1)
    engine.close()
    return row


def _law(row: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities."""
    x = row.astype(np.float64) - row.max()
    return np.asarray(x - np.log(np.exp(x).sum()))
