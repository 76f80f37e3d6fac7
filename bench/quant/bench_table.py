"""Products with weights whose values come from a table (fp8, power-exponent codes, GGUF's Q6_K): against dense torch
and ggml in Q6_K.

Activations are not rounded by ours and by dense torch; ggml rounds them to int8.
"""

from __future__ import annotations

import gramcore
import torch
from gramcore.quant import Fp8, PowerCodec, QTensor
from gramcore.quant.table import SixBitTensor

from bench.harness import Bench, Contender
from bench.quant.peers import peers_ggml, product_case

SHAPES = ((4096, 4096), (576, 1536))


def run(bench: Bench) -> None:
    torch.set_num_threads(gramcore.num_threads())
    for n, k in SHAPES:
        weight = torch.randn(n, k, generator=torch.Generator().manual_seed(0)) * 0.02
        packed: dict[str, QTensor] = {
            "fp8 e4m3": Fp8().quantize(weight),
            "nupes4": PowerCodec(bits=4).quantize(weight),
            "nupes8": PowerCodec(bits=8, group_size=None).quantize(weight),
            "Q6_K codes": _six_bits(weight),
        }
        for m in (1, 4, 16):
            x = torch.randn(m, k, generator=torch.Generator().manual_seed(m))
            for name, q in packed.items():
                peers = [*_dense(weight, x), *(peers_ggml(weight, x, ("Q6_K",)) if name.startswith("Q6_K") else [])]
                title = f"{name} {n}x{k} M={m}, {q.bits_per_weight():.2f} bits"
                product_case(bench, title, {"gramcore": q}, weight, x, peers, operations="fp32")


def _six_bits(weight: torch.Tensor) -> QTensor:
    """Codes within -32 .. 31 in groups of 16, the largest magnitude of a group at -32."""
    groups = weight.reshape(weight.shape[0], -1, 16)
    scales = groups.gather(2, groups.abs().argmax(2, keepdim=True)) / -32
    codes = (groups / scales + 32).round().clamp(0, 63).to(torch.uint8)
    return SixBitTensor.pack(codes.reshape(weight.shape), scales[..., 0])


def _dense(weight: torch.Tensor, x: torch.Tensor) -> list[Contender]:
    low_weight, low_x = weight.bfloat16(), x.bfloat16()
    return [
        Contender(f"torch {torch.__version__} fp32", lambda: torch.nn.functional.linear(x, weight)),
        Contender(f"torch {torch.__version__} bf16", lambda: torch.nn.functional.linear(low_x, low_weight).float()),
    ]
