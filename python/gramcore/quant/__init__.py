"""Low-bit weights: codecs, packed tensors and the matmuls that read them.

Reading GGUF files needs NumPy alone; everything else imports torch on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gramcore._lazy import attach
from gramcore._registry import Row, register
from gramcore.quant.gguf import GgufFile, GgufTensor

if TYPE_CHECKING:
    from gramcore.quant.base import Codec, QTensor, linear
    from gramcore.quant.billm import BiLLM, BinaryTensor
    from gramcore.quant.bipolar import BipolarInt
    from gramcore.quant.calibrate import sample_texts
    from gramcore.quant.dgq import DGQ
    from gramcore.quant.evaluate import Divergence, compare, perplexity
    from gramcore.quant.files import load_quantized_, save_quantized
    from gramcore.quant.finequant import FineQuant
    from gramcore.quant.fp8 import Fp8, Fp8Linear, Fp8Stats, Fp8Tensor, fp8_round
    from gramcore.quant.from_gguf import packed_from_gguf
    from gramcore.quant.gptq import GPTQ
    from gramcore.quant.integer import IntCodec
    from gramcore.quant.modules import LayerReport, QuantEmbedding, QuantLinear, QuantReport, quantize_
    from gramcore.quant.nupes import PowerCodec, PowerTensor
    from gramcore.quant.packed import PackedTensor
    from gramcore.quant.schemes import scheme_names

__all__ = [
    "DGQ",
    "GPTQ",
    "BiLLM",
    "BinaryTensor",
    "BipolarInt",
    "Codec",
    "Divergence",
    "FineQuant",
    "Fp8",
    "Fp8Linear",
    "Fp8Stats",
    "Fp8Tensor",
    "GgufFile",
    "GgufTensor",
    "IntCodec",
    "LayerReport",
    "PackedTensor",
    "PowerCodec",
    "PowerTensor",
    "QTensor",
    "QuantEmbedding",
    "QuantLinear",
    "QuantReport",
    "compare",
    "fp8_round",
    "linear",
    "load_quantized_",
    "packed_from_gguf",
    "perplexity",
    "quantize_",
    "sample_texts",
    "save_quantized",
    "scheme_names",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "base": "Codec QTensor linear",
        "billm": "BiLLM BinaryTensor",
        "bipolar": "BipolarInt",
        "calibrate": "sample_texts",
        "dgq": "DGQ",
        "evaluate": "Divergence compare perplexity",
        "files": "load_quantized_ save_quantized",
        "finequant": "FineQuant",
        "fp8": "Fp8 Fp8Linear Fp8Stats Fp8Tensor fp8_round",
        "from_gguf": "packed_from_gguf",
        "gptq": "GPTQ",
        "integer": "IntCodec",
        "modules": "LayerReport QuantEmbedding QuantLinear QuantReport quantize_",
        "nupes": "PowerCodec PowerTensor",
        "packed": "PackedTensor",
        "schemes": "scheme_names",
    },
)


register(
    Row(
        name="IntCodec",
        family="quant",
        protocol="codec",
        factory="gramcore.quant:IntCodec",
        summary="round-to-nearest 2- to 8-bit codes, group scales and minima",
        paper="Krishnamoorthi 2018, arXiv:1806.08342",
        facts={"max_error": 0.12},
        test_kwargs={"bits": 4, "group_size": 32},
    ),
    Row(
        name="FineQuant",
        family="quant",
        protocol="codec",
        factory="gramcore.quant:FineQuant",
        summary="group size chosen per matrix, data-free",
        paper="Kim et al. 2023, arXiv:2308.09723",
        facts={"max_error": 0.13},
        test_kwargs={"bits": 4, "alpha": 0.02},
    ),
    Row(
        name="GPTQ",
        family="quant",
        protocol="codec",
        factory="gramcore.quant:GPTQ",
        summary="integer codes, errors made up for by later columns, calibrated",
        paper="Frantar et al. 2022, arXiv:2210.17323",
        facts={"max_error": 0.2},
        test_kwargs={"bits": 4, "group_size": 32},
    ),
    Row(
        name="DGQ",
        family="quant",
        protocol="codec",
        factory="gramcore.quant:DGQ",
        summary="4-bit groups inside one int8 scale per channel, calibrated",
        paper="Zhang et al. 2023, arXiv:2310.04836",
        facts={"max_error": 0.16},
        test_kwargs={"group_size": 64},
    ),
    Row(
        name="BipolarInt",
        family="quant",
        protocol="codec",
        factory="gramcore.quant:BipolarInt",
        summary="odd symmetric 1- to 8-bit values of -1/+1 bits",
        paper="Fang et al. 2024, arXiv:2409.17870",
        facts={"max_error": 0.25},
        test_kwargs={"bits": 3},
    ),
    Row(
        name="Fp8",
        family="quant",
        protocol="codec",
        factory="gramcore.quant:Fp8",
        summary="e4m3 / e5m2 weights, nearest or stochastic rounding",
        paper="Micikevicius et al. 2022, arXiv:2209.05433",
        facts={"max_error": 0.04},
        test_kwargs={"fmt": "e4m3", "stochastic": True},
    ),
    Row(
        name="NUPES",
        family="quant",
        protocol="codec",
        factory="gramcore.quant:PowerCodec",
        summary="power-exponent codes, exponent searched, scales refined",
        paper="Yvinec et al. 2023, arXiv:2308.05600",
        facts={"max_error": 0.12},
        test_kwargs={"bits": 4, "steps": 2},
    ),
    Row(
        name="BiLLM",
        family="quant",
        protocol="codec",
        factory="gramcore.quant:BiLLM",
        summary="two sign planes, salient columns by Hessian, two magnitudes; packed products",
        paper="Huang et al. 2024, arXiv:2402.04291",
        facts={"max_error": 0.6},
        test_kwargs={"block": 64, "salient": 32},
    ),
)
