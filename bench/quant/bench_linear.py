"""Low-bit matrix products against onnxruntime, OpenVINO, ggml and torch, in one process, interleaved.

Weights are Gaussian; every contender quantises the same matrix in its own format and is checked against the dense
product within the error of that format.  GB/s count the stored bytes of our weight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gramcore.quant import IntCodec, QTensor, linear

from bench.harness import Bench, Contender
from bench.quant.peers import peers_int4

SHAPES = ((4096, 4096), (14336, 4096), (576, 1536))


def run(bench: Bench) -> None:
    codecs: dict[str, Any] = {
        "int4 g32": IntCodec(bits=4),
        "int4 g32 asym": IntCodec(bits=4, symmetric=False),
        "int4 g128": IntCodec(bits=4, group_size=128),
        "int8 per channel": IntCodec(bits=8, group_size=None),
        "int8 g32": IntCodec(bits=8),
        "int3 g32": IntCodec(bits=3),
        "int2 g32": IntCodec(bits=2),
    }
    for n, k in SHAPES:
        weight = torch.randn(n, k, generator=torch.Generator().manual_seed(0)) * 0.02
        packed = {name: codec.quantize(weight) for name, codec in codecs.items()}
        for m in (1, 4, 8, 16, 128):
            if m > 16 and n > 8000:
                continue
            for name, q in packed.items():
                if name.startswith(("int3", "int2")) and m > 1:
                    continue
                _case(bench, name, q, weight, m, peers_int4 if name == "int4 g32" else lambda *_: [])


def _case(
    bench: Bench, name: str, q: QTensor, weight: torch.Tensor, m: int, peers: Callable[..., list[Contender]]
) -> None:
    n, k = weight.shape
    x = torch.randn(m, k, generator=torch.Generator().manual_seed(m))
    exact = (x.double() @ weight.double().T).numpy()
    scale = np.abs(exact).mean()

    def check(contender: str, output: Any) -> None:
        error = np.abs(np.asarray(output, dtype=np.float64).reshape(exact.shape) - exact).mean() / scale
        limit = 0.5 if "int2" in name else 0.3
        if not error < limit:
            raise AssertionError(
                f"{contender}: mean error {error:.3f} of the mean magnitude, at most {limit} is expected"
            )

    bench.case(
        f"{name} {n}x{k} M={m}",
        [Contender("gramcore", lambda: linear(x, q)), *peers(weight, x)],
        check=check,
        bytes_moved=float(q.stored_bytes()),
        flops=2.0 * m * n * k,
    )
