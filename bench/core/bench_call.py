"""Cost of crossing into the native code: one tensor through the DLPack exchange."""

from __future__ import annotations

import torch
from gramcore import _core

from bench.harness import Bench, Contender


def run(bench: Bench) -> None:
    t = torch.zeros(8, 8)

    def check(name: str, output: object) -> None:
        address = output[4] if name.startswith("gramcore") else output[0]  # type: ignore[index]
        if address != t.data_ptr():
            raise AssertionError(f"{name} saw another address than the tensor's")

    peer = f"torch {torch.__version__} attributes"
    bench.case(
        "one tensor through the binding",
        [
            Contender("gramcore tensor_facts", lambda: _core.tensor_facts(t)),
            Contender(peer, lambda: (t.data_ptr(), t.dtype, t.shape, t.stride())),
        ],
        check=check,
    )
