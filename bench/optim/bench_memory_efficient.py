"""Steps of the memory-efficient optimizers over the shapes of a small Llama, beside torch, torchao and bitsandbytes.

Peers run for fewer layers than a whole model so that their slow steps fit the time; all contenders share the shapes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import gramcore
import torch
from gramcore.optim import create

from bench.harness import Bench, Contender, peer_version
from bench.optim.shapes import llama_shapes, make_params, share_grads

#: (case, ours by name, our arguments, (package, attribute, arguments) of the peer, bytes that must move per parameter)
CASES: list[tuple[str, str, dict[str, object], tuple[str, str, dict[str, object]] | None, float]] = [
    ("8-bit AdamW", "AdamW-8bit", {}, ("bitsandbytes", "bitsandbytes.optim:AdamW8bit", {}), 16.06),
    ("4-bit AdamW", "AdamW-4bit", {}, None, 14.1),
    ("8-bit Lion", "Lion-8bit", {}, ("bitsandbytes", "bitsandbytes.optim:Lion8bit", {}), 14.0),
    ("CAME", "CAME", {}, ("came-pytorch", "came_pytorch:CAME", {}), 20.0),
    ("Adam-mini", "Adam-mini", {}, None, 20.0),
    ("Grams", "Grams", {}, None, 28.0),
    ("Adafactor", "Adafactor", {}, ("torch", "torch.optim:Adafactor", {"foreach": False}), 12.0),
    ("APOLLO-Mini", "APOLLO-Mini", {"refresh_every": 10**6}, None, 12.0),
    ("GaLore rank 128", "GaLore", {"rank": 128, "method": "iterate", "refresh_every": 10**6}, None, 12.0),
]


def run(bench: Bench) -> None:
    torch.set_num_threads(1)
    gramcore.set_num_threads(1)
    bench.max_seconds = 4.0
    for case, name, arguments, peer, traffic in CASES:
        compare(bench, case, name, arguments, peer, traffic)


def compare(
    bench: Bench,
    case: str,
    name: str,
    arguments: dict[str, object],
    peer: tuple[str, str, dict[str, object]] | None,
    traffic: float,
) -> None:
    shapes = llama_shapes(layers=1, vocabulary=1024)
    grads = [p.detach() for p in make_params(shapes, torch.float32, seed=1)]
    start = make_params(shapes, torch.float32)
    made: list[tuple[str, torch.optim.Optimizer, list[torch.nn.Parameter]]] = []

    def add(label: str, build: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]) -> None:
        params = make_params(shapes, torch.float32)
        share_grads(grads, params)
        made.append((label, build(params), params))

    add(f"gramcore {name}", lambda ps: create(name, ps, lr=1e-4, **arguments))
    add(f"torch {torch.__version__} AdamW fused", lambda ps: torch.optim.AdamW(ps, lr=1e-4, fused=True))
    if peer:
        version = peer_version(peer[0])
        if version is None:
            bench.note(f"{peer[0]} is not installed; {case} runs without it")
        else:
            module, _, attribute = peer[1].partition(":")
            factory = getattr(importlib.import_module(module), attribute)
            add(f"{version} {attribute}", lambda ps: factory(ps, lr=1e-4, **peer[2]))

    def check(label: str, _: object) -> None:
        params = next(m[2] for m in made if m[0] == label)
        for p, s in zip(params, start, strict=True):
            if not bool(torch.isfinite(p).all()) or torch.equal(p, s):
                raise AssertionError(f"{label} left a parameter unchanged or not finite")

    numel = sum(p.numel() for p in start)
    bench.case(
        f"{case}, fp32, {numel / 1e6:.0f}M parameters, 1 thread",
        [Contender(label, optimizer.step) for label, optimizer, _ in made],
        check=check,
        bytes_moved=traffic * numel,
        units=numel / 1e3,
        limit_bytes_per_s=bench.limits.triad_gb_s * 1e9,
    )
