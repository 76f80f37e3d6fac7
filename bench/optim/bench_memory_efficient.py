"""Steps of the memory-efficient optimizers over the shapes of a small Llama, beside the official packages.

Peers run for fewer layers than a whole model so that their slow steps fit the time; all contenders of a case share the
shapes. ``GRAMCORE_BENCH_CASES`` (comma-separated parts of names) picks cases.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gramcore
import torch
from gramcore.optim import create

from bench.harness import Bench, Contender, peer_version
from bench.optim.shapes import llama_shapes, make_params, share_grads

NEVER = 10**6  # steps between refreshes: none is timed
GRASS_ROWS = 192
Params = list[torch.nn.Parameter]


@dataclass(frozen=True)
class Case:
    """One optimizer, its official or best registry package, and the bytes that must move per parameter: the limit.

    Bytes: the parameter read and written (8), the gradient read (4), each fp32 moment read and written (8); GWT and
    FRUGAL keep moments for a quarter, Grass touches nothing but its rows.
    """

    name: str
    ours: str
    traffic: float
    arguments: dict[str, Any] = field(default_factory=dict)
    package: str = ""
    peer: Callable[[Params], torch.optim.Optimizer] | None = None
    dtype: torch.dtype = torch.float32
    threads: int = 1


def _grass_traffic() -> float:
    """AdamW's 28 bytes for the selected rows of the shapes that are timed, and for vectors."""
    shapes = llama_shapes(layers=1, vocabulary=1024)
    touched = sum(GRASS_ROWS * s[1] if len(s) == 2 else s[0] for s in shapes)
    return 28.0 * touched / sum(math.prod(s) for s in shapes)


def _attribute(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _plain(path: str, **arguments: Any) -> Callable[[Params], torch.optim.Optimizer]:
    return lambda ps: _attribute(path)(ps, lr=1e-4, **arguments)


def _grouped(path: str, **arguments: Any) -> Callable[[Params], torch.optim.Optimizer]:
    """GaLore's protocol: matrices in a group that carries the projection's numbers."""

    def build(ps: Params) -> torch.optim.Optimizer:
        matrices, rest = [p for p in ps if p.ndim == 2], [p for p in ps if p.ndim != 2]
        made: torch.optim.Optimizer = _attribute(path)([{"params": rest}, {"params": matrices, **arguments}], lr=1e-4)
        return made

    return build


def _adam_mini(ps: Params) -> torch.optim.Optimizer:
    named = [(f"mlp.{i}.weight" if p.ndim == 2 else f"norm.{i}.weight", p) for i, p in enumerate(ps)]
    made: torch.optim.Optimizer = _attribute("adam_mini:Adam_mini")(named, lr=1e-4, dim=768, n_heads=12, verbose=False)
    return made


GALORE = {"rank": 256, "update_proj_gap": NEVER, "scale": 0.25, "proj_type": "std"}
APOLLO = {"rank": 256, "update_proj_gap": NEVER, "scale": 1.0, "proj": "random", "proj_type": "std"}
FIRA = {"rank": 256, "update_proj_gap": NEVER, "alpha": 0.25, "proj_type": "std"}
LOW = {"rank": 256, "refresh_every": NEVER}
BF16 = torch.bfloat16

CASES = [
    Case("8-bit AdamW", "AdamW-8bit", 16.06, {}, "bitsandbytes", _plain("bitsandbytes.optim:AdamW8bit")),
    Case("8-bit AdamW", "AdamW-8bit", 16.06, threads=2),
    Case("4-bit AdamW", "AdamW-4bit", 14.1),
    Case("4-bit AdamW", "AdamW-4bit", 14.1, threads=2),
    Case("torchao 8-bit", "AdamW-8bit", 16.06, {}, "torchao", _plain("torchao.optim:AdamW8bit")),
    Case("torchao 4-bit", "AdamW-4bit", 14.1, {}, "torchao", _plain("torchao.optim:AdamW4bit")),
    Case("8-bit Lion", "Lion-8bit", 14.0, {}, "bitsandbytes", _plain("bitsandbytes.optim:Lion8bit")),
    Case("CAME", "CAME", 20.0, {}, "came-pytorch", _plain("came_pytorch:CAME")),
    Case("Adam-mini", "Adam-mini", 20.0, {}, "adam-mini", _adam_mini),
    Case("Adafactor", "Adafactor", 12.0, {}, "torch", _plain("torch.optim:Adafactor", foreach=False)),
    Case("AdaLomo rule", "AdaLomo", 12.0),
    Case("Grams", "Grams", 28.0, {}, "grams-pytorch", _plain("grams:Grams")),
    Case("Sophia", "Sophia", 24.0),
    Case("Grass", "Grass", _grass_traffic(), {"rank": GRASS_ROWS, "refresh_every": NEVER}),
    Case("FRUGAL", "FRUGAL", 16.0, {"refresh_every": NEVER}),
    Case("GWT", "GWT", 16.0),
    Case("APOLLO-Mini", "APOLLO-Mini", 12.0, {"refresh_every": NEVER}, "apollo-torch",
         _grouped("apollo_torch:APOLLOAdamW", **{**APOLLO, "rank": 1, "scale": 128.0, "scale_type": "tensor"})),
    Case("APOLLO rank 256", "APOLLO", 12.0, LOW, "apollo-torch",
         _grouped("apollo_torch:APOLLOAdamW", **APOLLO, scale_type="channel")),
    Case("APOLLO rank 256 bf16", "APOLLO", 6.0, LOW, "apollo-torch",
         _grouped("apollo_torch:APOLLOAdamW", **APOLLO, scale_type="channel"), BF16),
    Case("GaLore rank 256", "GaLore", 12.0, {**LOW, "method": "iterate"}, "galore-torch",
         _grouped("galore_torch:GaLoreAdamW", **GALORE)),
    Case("GaLore rank 256 bf16", "GaLore", 6.0, {**LOW, "method": "iterate"}, "galore-torch",
         _grouped("galore_torch:GaLoreAdamW", **GALORE), BF16),
    Case("Fira rank 256", "Fira", 12.0, {**LOW, "method": "iterate"}, "fira",
         _grouped("fira:FiraAdamW", **FIRA)),
    Case("Fira rank 256 bf16", "Fira", 6.0, {**LOW, "method": "iterate"}, "fira",
         _grouped("fira:FiraAdamW", **FIRA), BF16),
]  # fmt: skip


def run(bench: Bench) -> None:
    wanted = [w for w in os.environ.get("GRAMCORE_BENCH_CASES", "").split(",") if w]
    bench.max_seconds = 3.0
    for case in CASES:
        if not wanted or any(w in case.name for w in wanted):
            torch.set_num_threads(case.threads)
            gramcore.set_num_threads(case.threads)
            compare(bench, case)


def compare(bench: Bench, case: Case) -> None:
    shapes = llama_shapes(layers=1, vocabulary=1024)
    grads = [p.detach() for p in make_params(shapes, case.dtype, seed=1)]
    start = make_params(shapes, case.dtype)
    made: list[tuple[str, torch.optim.Optimizer, Params]] = []

    def add(label: str, build: Callable[[Params], torch.optim.Optimizer]) -> None:
        params = make_params(shapes, case.dtype)
        share_grads(grads, params)
        made.append((label, build(params), params))

    add(f"gramcore {case.ours}", lambda ps: create(case.ours, ps, lr=1e-4, **case.arguments))
    add(f"torch {torch.__version__} AdamW fused", lambda ps: torch.optim.AdamW(ps, lr=1e-4, fused=True))
    if case.peer:
        version = peer_version(case.package)
        if version is None:
            bench.note(f"{case.package} is not installed; {case.name} runs without it")
        else:
            add(version, case.peer)

    def check(label: str, _: object) -> None:
        params = next(m[2] for m in made if m[0] == label)
        for p, s in zip(params, start, strict=True):
            if not bool(torch.isfinite(p).all()) or torch.equal(p, s):
                raise AssertionError(f"{label} left a parameter unchanged or not finite")

    numel = sum(p.numel() for p in start)
    dtype = str(case.dtype).removeprefix("torch.")
    bench.case(
        f"{case.name}, {dtype}, {numel / 1e6:.0f}M parameters, {case.threads} thread(s)",
        [Contender(label, optimizer.step) for label, optimizer, _ in made],
        check=check,
        bytes_moved=case.traffic * numel,
        units=numel / 1e3,
        limit_bytes_per_s=bench.limits.triad_gb_s * 1e9,
    )
