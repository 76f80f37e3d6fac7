"""Products with weights of one to three bits: against own int4, and ggml in its formats of like width.

TQ2_0 holds -1, 0 and 1 under one scale per 256 columns, a narrower format than groups of 32: 2.06 bits per weight
beside 2.5, in groups of 128 2.125.
"""

from __future__ import annotations

import gramcore
import torch
from gramcore.quant import BiLLM, BipolarInt, IntCodec, QTensor

from bench.harness import Bench
from bench.quant.peers import peers_ggml, product_case

SHAPES = ((4096, 4096), (576, 1536))
PEERS = {"int3 g32": ("Q3_K",), "int2 g32": ("Q2_K", "TQ2_0"), "int2 g128": ("Q2_K", "TQ2_0")}


def run(bench: Bench) -> None:
    torch.set_num_threads(gramcore.num_threads())
    for n, k in SHAPES:
        weight = torch.randn(n, k, generator=torch.Generator().manual_seed(0)) * 0.02
        inputs = torch.randn(k, k, generator=torch.Generator().manual_seed(1))
        packed: dict[str, QTensor] = {
            "int3 g32": IntCodec(bits=3).quantize(weight),
            "int2 g32": IntCodec(bits=2).quantize(weight),
            "int2 g128": IntCodec(bits=2, group_size=128).quantize(weight),
            "bipolar one bit g32": BipolarInt(bits=1).quantize(weight),
            "bipolar one bit g128": BipolarInt(bits=1, group_size=128).quantize(weight),
            "BiLLM": BiLLM().quantize(weight, inputs),
        }
        int4 = IntCodec(bits=4).quantize(weight)
        for m in (1, 2, 8):
            x = torch.randn(m, k, generator=torch.Generator().manual_seed(m))
            for name, q in packed.items():
                ours = {"gramcore": q, "gramcore int4 g32": int4}
                peers = peers_ggml(weight, x, PEERS.get(name, ()))
                product_case(bench, f"{name} {n}x{k} M={m}, {q.bits_per_weight():.2f} bits", ours, weight, x, peers)
