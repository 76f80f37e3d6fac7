"""Run by test_peak_memory.py: what the resident set of a process grows to in one training step with fused steps.

Prints one line of JSON per optimizer, in bytes.  glibc must be told to map every large block by itself
(``MALLOC_MMAP_THRESHOLD_``), so that what is freed leaves the resident set at once.
"""

from __future__ import annotations

import gc
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gramcore.optim import FusedBackward, create
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

WIDTH, LAYERS, HEADS, VOCABULARY, TOKENS = 512, 6, 8, 4096, 128


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = torch.nn.ModuleList(torch.nn.RMSNorm(WIDTH) for _ in range(2))
        self.qkv, self.out = torch.nn.Linear(WIDTH, 3 * WIDTH, False), torch.nn.Linear(WIDTH, WIDTH, False)
        self.up, self.down = torch.nn.Linear(WIDTH, 4 * WIDTH, False), torch.nn.Linear(4 * WIDTH, WIDTH, False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norms[0](x)).view(len(x), 3, HEADS, -1).permute(1, 2, 0, 3)
        x = x + self.out(scaled_dot_product_attention(q, k, v, is_causal=True).transpose(0, 1).flatten(1))
        return x + self.down(torch.nn.functional.silu(self.up(self.norms[1](x))))


def make_model() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = [Layer() for _ in range(LAYERS)]
    return torch.nn.Sequential(
        torch.nn.Embedding(VOCABULARY, WIDTH), *layers, torch.nn.Linear(WIDTH, VOCABULARY, False)
    )


def resident(field: str) -> int:
    found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def peak_of(work: Callable[[], Any]) -> int:
    """Largest resident set while ``work`` runs."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again at what is resident now
    work()
    return resident("VmHWM")


def measure(name: str, fused: bool, **arguments: Any) -> dict[str, Any]:
    model = make_model()
    ids = torch.randint(VOCABULARY, (TOKENS,))
    optimizer = create(name, model, lr=1e-4)
    context = FusedBackward(optimizer, **arguments) if fused else None

    def backward(loss: torch.Tensor) -> None:
        if context is not None:
            context.backward(loss)
        else:
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    if context is not None:
        context.__enter__()
    for _ in range(2):  # buffers that libraries keep, and the optimizer's state
        backward(cross_entropy(model(ids), ids))
    gc.collect()
    start = resident("VmRSS")
    loss = cross_entropy(model(ids), ids)
    held = resident("VmRSS")
    peak = peak_of(lambda: backward(loss))
    if context is not None:
        context.__exit__(None, None, None)
    sizes = [4 * p.numel() for p in model.parameters()]
    numbers = {"weights": sum(sizes), "largest_gradient": max(sizes), "state": optimizer.state_bytes()}
    return {"name": name, **numbers, "activations": held - start, "peak": peak - start + sum(sizes), **arguments}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in json.loads(sys.argv[1]):
        print(json.dumps(measure(**case)), flush=True)
