"""Steps that multiply matrices: COSMOS and MKOR against the machine's fp32 rate; the limit counts their products."""

from __future__ import annotations

from collections.abc import Callable

import gramcore
import torch
from gramcore.optim import COSMOS, MKOR, AdamW

from bench.harness import Bench, Contender
from bench.optim.shapes import LLAMA_LAYER, make_params, share_grads

MATRICES = [s for s in LLAMA_LAYER if len(s) == 2]
RANK = 64


def cosmos_flops(rows: int, columns: int) -> float:
    """Six products with the basis and five steps of Newton and Schulz, three products each."""
    short, long = sorted((rows, columns))
    return 12.0 * rows * columns * RANK + 5.0 * (4.0 * short**2 * long + 2.0 * short**3)


def mkor_flops(rows: int, columns: int) -> float:
    """The gradient times the inverse factor of either side."""
    return 2.0 * rows * columns * (rows + columns)


def run(bench: Bench) -> None:
    bench.max_seconds = 6.0
    bench.repetitions = bench.least = 5  # a step takes half a second
    torch.set_num_threads(1)
    gramcore.set_num_threads(1)
    params = make_params(MATRICES, torch.float32)
    share_grads([p.detach() for p in make_params(MATRICES, torch.float32, seed=1)], params)
    compare(bench, f"COSMOS rank {RANK}", COSMOS(params, lr=1e-4, rank=RANK).step, params, cosmos_flops)
    model = torch.nn.ModuleList(torch.nn.Linear(n, m, bias=False) for m, n in MATRICES)
    weights = list(model.parameters())
    share_grads([p.detach() for p in make_params(MATRICES, torch.float32, seed=1)], weights)
    mkor = MKOR(model, AdamW(weights, lr=1e-4), update_every=10**6)
    compare(bench, "MKOR over AdamW, no factor update", mkor.step, weights, mkor_flops)


def compare(
    bench: Bench,
    name: str,
    step: Callable[[], object],
    params: list[torch.nn.Parameter],
    flops: Callable[[int, int], float],
) -> None:
    start = [p.detach().clone() for p in params]

    def check(label: str, _: object) -> None:
        for p, s in zip(params, start, strict=True):
            if not bool(torch.isfinite(p).all()) or torch.equal(p, s):
                raise AssertionError(f"{label} left a parameter unchanged or not finite")

    numel = sum(p.numel() for p in params)
    bench.case(
        f"{name}, float32, {numel / 1e6:.0f}M parameters, 1 thread",
        [Contender(f"gramcore {name.split()[0]}", step)],
        check=check,
        flops=sum(flops(*p.shape) for p in params),
        units=numel / 1e3,
        operations="fp32",
    )
