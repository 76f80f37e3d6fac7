"""What is not a step: basis refresh against SVD, zeroth-order steps, clipping with zeroing, memory beyond the state.

``GRAMCORE_BENCH_CASES`` (comma-separated: refresh, clip, zeroth, temporaries, peak) picks parts.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import gramcore
import torch
from gramcore.optim import SGD, AdamW, FusedBackward, create, mezo
from gramcore.optim.subspace import generator_for, top_basis

from bench.harness import Bench, Contender
from bench.optim.shapes import llama_shapes, make_params, share_grads


def run(bench: Bench) -> None:
    torch.set_num_threads(1)
    gramcore.set_num_threads(1)
    bench.max_seconds = 4.0
    wanted = [w for w in os.environ.get("GRAMCORE_BENCH_CASES", "").split(",") if w]
    for part in (refresh, clip, zeroth, temporaries, peak):
        if not wanted or part.__name__ in wanted:
            part(bench)


def refresh(bench: Bench, rows: int = 2048, columns: int = 768, rank: int = 256) -> None:
    """Leading subspace of a matrix with the spectrum of a gradient (a power law)."""
    generator = torch.Generator().manual_seed(0)
    u = torch.linalg.qr(torch.randn(rows, columns, generator=generator)).Q
    v = torch.linalg.qr(torch.randn(columns, columns, generator=generator)).Q
    g = (u / torch.arange(1, columns + 1) ** 0.7) @ v.T

    def exact() -> torch.Tensor:
        return torch.linalg.svd(g, full_matrices=False).Vh[:rank].T

    best = (g @ exact()).norm() ** 2

    def check(name: str, basis: object) -> None:
        assert isinstance(basis, torch.Tensor)
        share = float((g @ basis).norm() ** 2 / best)
        bench.note(f"{name} captures {100 * share:.3f} % of the energy of the SVD's subspace")
        if share < 0.995:
            raise AssertionError(f"{name} captures {share} of the energy")

    bench.case(
        f"basis refresh, {rows} x {columns}, rank {rank}",
        [
            Contender("gramcore iterate", lambda: top_basis(g, rank, "iterate", generator_for(0, 0, 0))),
            Contender(f"torch {torch.__version__} SVD", exact),
        ],
        check=check,
    )


def clip(bench: Bench) -> None:
    """Global-norm clipping, step and zeroed gradients, which are filled again outside the timing."""
    shapes = llama_shapes(layers=2, vocabulary=2048)
    grads = [p.detach() for p in make_params(shapes, torch.float32, seed=1)]
    made: dict[str, tuple[list[torch.nn.Parameter], torch.optim.Optimizer]] = {}
    for name in ("gramcore", "torch"):
        params = make_params(shapes, torch.float32)
        share_grads([g.clone() for g in grads], params)
        rule = AdamW(params, max_grad_norm=1.0, zero_grads=True) if name == "gramcore" else None
        made[name] = (params, rule or torch.optim.AdamW(params, fused=True))

    def theirs() -> None:
        params, optimizer = made["torch"]
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    def check(name: str, _: object) -> None:
        params = made[name.split()[0]][0]
        if any(bool(p.grad.any()) for p in params if p.grad is not None):
            raise AssertionError(f"{name} left gradients")

    numel = sum(p.numel() for p in made["torch"][0])

    def fill(name: str) -> Callable[[], None]:
        def run() -> None:
            for p, g in zip(made[name][0], grads, strict=True):
                assert p.grad is not None
                p.grad.copy_(g)

        return run

    contenders = [
        Contender("gramcore AdamW clipped, zeroing", made["gramcore"][1].step, fill("gramcore")),
        Contender(f"torch {torch.__version__} clip, fused step, zero", theirs, fill("torch")),
    ]
    bench.case(f"clip, step and zero, fp32, {numel / 1e6:.0f}M", contenders, check=check, units=numel / 1e3)


def zeroth(bench: Bench) -> None:
    """A MeZO step against two forward passes of the same model."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(768, 2048), torch.nn.SiLU(), torch.nn.Linear(2048, 768))
    x = torch.randn(2048, 768)  # tokens of a batch

    def loss() -> torch.Tensor:
        return model(x).square().mean()

    @torch.no_grad()
    def forwards() -> float:
        return float(loss()) + float(loss())

    optimizer = mezo(model.parameters(), lr=1e-9)
    contenders = [Contender("gramcore mezo", lambda: optimizer.step(loss)), Contender("two forward passes", forwards)]
    bench.case("MeZO step, batch of 2048 tokens", contenders, check=lambda *_: None)


def temporaries(bench: Bench) -> None:
    """Bytes per parameter that a step allocates at its peak beyond what it keeps, by torch's allocator."""
    names = ("AdamW", "AdamW-8bit", "AdamW-4bit", "Lion-8bit", "Grams", "Sophia", "Adafactor", "CAME", "Adam-mini")
    projected = [("APOLLO-Mini", "fp32"), ("APOLLO", "fp32"), ("GaLore", "fp32"), ("Fira", "fp32"), ("Fira", "int8")]
    for dtype in (torch.float32, torch.bfloat16):
        for name in names:
            _temporaries(bench, name, dtype, llama_shapes(layers=2, vocabulary=2048))
        for (
            name,
            state,
        ) in projected:  # a panel of the largest matrix; the embedding is not projected, as in the recipes
            _temporaries(bench, name, dtype, llama_shapes(), state=state)
        for name in ("COSMOS", "GradNormLoRP"):  # fp32 copies of one matrix after the other
            _temporaries(bench, name, dtype, llama_shapes())


def _temporaries(bench: Bench, name: str, dtype: torch.dtype, shapes: list[tuple[int, ...]], **options: object) -> None:
    start = torch.randn(max(torch.Size(s).numel() for s in shapes), generator=torch.Generator().manual_seed(0)) * 0.02
    params = [torch.nn.Parameter(start[: torch.Size(s).numel()].view(s).to(dtype, copy=True)) for s in shapes]
    for p in params:
        p.grad = p.detach().clone()
    groups = [{"params": params[:1], "project": False}, {"params": params[1:]}] if options else params
    optimizer = create(name, groups, lr=1e-4, **options)
    optimizer.step()
    top, numel = allocated_peak(optimizer.step), sum(p.numel() for p in params)
    state = f", moments in {options['state']}" if options else ""
    bench.note(
        f"{name}, {dtype}{state}, {numel / 1e6:.0f}M parameters: temporaries {top / numel:.3f} bytes per parameter"
    )


def peak(bench: Bench) -> None:
    """Peak of a fused backward pass over what the loss holds, against the largest gradient."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(*[torch.nn.Linear(1024, 1024, bias=False) for _ in range(8)])
    x = torch.randn(64, 1024)
    with FusedBackward(SGD(model.parameters(), lr=1e-3)) as fused:
        fused.backward(model(x).square().mean())
        loss = model(x).square().mean()
        used = allocated_peak(lambda: fused.backward(loss))
    bench.note(f"LOMO: backward allocates {used / (4 << 20):.2f} times the largest gradient at its peak")


def allocated_peak(work: Callable[[], object]) -> int:
    """Largest sum of bytes allocated through torch's CPU allocator and not yet freed during ``work``."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    held = top = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns()):  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            top = max(top, held)
    return top
