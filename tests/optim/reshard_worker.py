"""Run by test_resharding.py: quantised state saved by some processes, and loaded by others.

reshard_worker.py save FOLDER      trains two steps and saves model and optimizers; one process more step
reshard_worker.py load FOLDER      loads them on this many processes and takes the same step
reshard_worker.py refuse FOLDER    loads where shards would not have whole blocks
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from gramcore.optim import AdamW, Lion, galore
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.fsdp import fully_shard

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "int8": (AdamW, {"lr": 1e-2, "state": "int8"}),
    "int4": (AdamW, {"lr": 1e-2, "state": "int4"}),
    "lion": (Lion, {"lr": 1e-3, "state": "int8"}),
    "galore": (galore, {"lr": 1e-2, "rank": 64, "refresh_every": 2, "method": "gram", "state": "int8"}),
}


class Model(torch.nn.Module):
    """Shards of whole blocks on one, two and three processes; ``odd`` is so on one process only."""

    def __init__(self, odd: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tall, self.wide = torch.nn.Linear(128, 192 + odd), torch.nn.Linear(192 + odd, 96)
        self.stack = torch.nn.Parameter(torch.randn(48, 96, 4))
        self.tail = torch.nn.Parameter(torch.randn(599, 64))  # the last group of rows is not full


def make(case: str, odd: bool = False) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = Model(odd)
    if dist.get_world_size() > 1:
        fully_shard(model)
    rule, numbers = CASES[case]
    return model, rule(model.parameters(), **numbers)


def set_grads(model: torch.nn.Module, t: int) -> None:
    """The same gradients whatever the number of processes, to the last bit."""
    generator = torch.Generator().manual_seed(t)
    for p in model.parameters():
        whole = torch.randn(p.shape, generator=generator)
        if isinstance(p, torch.distributed.tensor.DTensor):
            p.grad = torch.distributed.tensor.distribute_tensor(whole, p.device_mesh, p.placements)
        else:
            p.grad = whole


def save(folder: Path) -> None:
    for case in CASES:
        model, optimizer = make(case)
        for t in range(2):
            set_grads(model, t)
            optimizer.step()
        state = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}
        dcp.save(state, checkpoint_id=folder / case)
        set_grads(model, 2)
        optimizer.step()
        dcp.save({"model": model.state_dict()}, checkpoint_id=folder / f"{case}-after")
    model, optimizer = make("int8", odd=True)
    set_grads(model, 0)
    optimizer.step()
    dcp.save({"optimizer": get_optimizer_state_dict(model, optimizer)}, checkpoint_id=folder / "odd")


def load(folder: Path) -> None:
    for case in CASES:
        model, optimizer = make(case)
        state = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}
        dcp.load(state, checkpoint_id=folder / case)
        model.load_state_dict(state["model"])
        set_optimizer_state_dict(model, optimizer, state["optimizer"])
        set_grads(model, 2)
        optimizer.step()
        after = {"model": {name: torch.empty_like(value) for name, value in model.state_dict().items()}}
        dcp.load(after, checkpoint_id=folder / f"{case}-after")
        for name, value in model.state_dict().items():
            mine, theirs = (getattr(x, "_local_tensor", x) for x in (value, after["model"][name]))
            error = (mine - theirs).abs().max() if mine.numel() else torch.zeros(())
            assert error <= (1e-6 if case == "galore" else 0.0), (case, name, float(error))


def refuse(folder: Path) -> None:
    model, optimizer = make("int8", odd=True)
    state = {"optimizer": get_optimizer_state_dict(model, optimizer)}
    with pytest.raises(dcp.api.CheckpointException, match="Size mismatch"):
        dcp.load(state, checkpoint_id=folder / "odd")
    before = optimizer.state_dict()
    name = next(i for i, s in before["state"].items() if "exp_avg_scale" in s)
    other = {**before, "state": {**before["state"], name: {**before["state"][name], "exp_avg": torch.zeros(2, 7)}}}
    with pytest.raises(ValueError, match="load on as many processes as saved"):
        optimizer.load_state_dict(other)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    {"save": save, "load": load, "refuse": refuse}[sys.argv[1]](Path(sys.argv[2]))
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # the communication threads sometimes call std::terminate among static destructors
