"""Low-bit matrix products against onnxruntime, OpenVINO, ggml and torch, in one process, interleaved.

Weights are Gaussian; every contender quantises the same matrix in its own format and is checked against the dense
product within the error of that format.  GB/s count the stored bytes of our weight; the limit of a case is the longer
of reading those bytes and of the multiplications at the int8 rate of the vector units, both measured in the same run.
"""

from __future__ import annotations

from typing import Any

import gramcore
import torch
from gramcore.quant import IntCodec

from bench.harness import Bench
from bench.quant.peers import peers_ggml, peers_int4, peers_int8, product_case

SHAPES = ((4096, 4096), (14336, 4096), (576, 1536))


def run(bench: Bench) -> None:
    codecs: dict[str, Any] = {
        "int4 g32": IntCodec(bits=4),
        "int4 g32 asym": IntCodec(bits=4, symmetric=False),
        "int4 g128": IntCodec(bits=4, group_size=128),
        "int8 per channel": IntCodec(bits=8, group_size=None),
        "int8 g32": IntCodec(bits=8),
    }
    torch.set_num_threads(gramcore.num_threads())
    for n, k in SHAPES:
        weight = torch.randn(n, k, generator=torch.Generator().manual_seed(0)) * 0.02
        packed = {name: codec.quantize(weight) for name, codec in codecs.items()}
        for m in (1, 4, 8, 16, 128):
            if m > 16 and n > 8000:
                continue
            x = torch.randn(m, k, generator=torch.Generator().manual_seed(m))
            peers = {
                "int4 g32": [*peers_int4(weight, x), *peers_ggml(weight, x, ("Q4_0", "Q4_K", "IQ4_NL"))],
                "int8 g32": [*peers_int8(weight, x), *peers_ggml(weight, x, ("Q8_0",))],
            }
            for name, q in packed.items():
                product_case(bench, f"{name} {n}x{k} M={m}", {"gramcore": q}, weight, x, peers.get(name, []))
