"""One AdamW step over the shapes of a small Llama, beside torch's fused step; times per parameter."""

from __future__ import annotations

import gramcore
import torch
from gramcore.optim import AdamW

from bench.harness import Bench, Contender
from bench.optim.shapes import llama_shapes, make_params, share_grads

#: Bytes that must move per parameter: read p, g, m, v and write p, m, v.
BYTES = {torch.float32: 28, torch.bfloat16: 14}


def run(bench: Bench) -> None:
    for threads in (1, 2):
        torch.set_num_threads(threads)
        gramcore.set_num_threads(threads)
        for dtype in (torch.float32, torch.bfloat16):
            compare(bench, dtype, threads)


def compare(bench: Bench, dtype: torch.dtype, threads: int) -> None:
    shapes = llama_shapes()
    grads = [p.detach() for p in make_params(shapes, dtype, seed=1)]
    state = "fp32" if dtype is torch.float32 else "bf16"
    ours, theirs = make_params(shapes, dtype), make_params(shapes, dtype)
    contenders = [
        ("gramcore AdamW", AdamW(ours, lr=1e-4, state=state), ours),
        (f"torch {torch.__version__} fused", torch.optim.AdamW(theirs, lr=1e-4, fused=True), theirs),
    ]
    if dtype is torch.bfloat16:
        rounded = make_params(shapes, dtype)
        optimizer = AdamW(rounded, lr=1e-4, state=state, rounding="stochastic")
        contenders.append(("gramcore AdamW stochastic", optimizer, rounded))
    for _, _, params in contenders:
        share_grads(grads, params)
    exact = first_step(make_params(shapes, dtype)[1], grads[1])

    def check(name: str, _: object) -> None:
        params = next(c[2] for c in contenders if c[0] == name)
        error = (params[1].detach().double() - exact).abs().max().item()
        if error > (1e-7 if dtype is torch.float32 else 1e-3):
            raise AssertionError(f"{name} is {error} away from the fp64 step")

    numel = sum(p.numel() for p in ours)
    bench.case(
        f"{str(dtype).removeprefix('torch.')}, {numel / 1e6:.0f}M parameters, {threads} thread(s)",
        [Contender(name, optimizer.step) for name, optimizer, _ in contenders],
        check=check,
        bytes_moved=BYTES[dtype] * numel,
        units=numel / 1e3,  # times printed are ns per parameter
        limit_bytes_per_s=bench.limits.triad_gb_s * 1e9,
    )


def first_step(p: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """AdamW's first step in fp64: the bias-corrected moments are the gradient and its square."""
    w, g = p.detach().double(), g.double()
    return w * (1 - 1e-4 * 1e-2) - 1e-4 * g / (g.abs() + 1e-8)
