"""Low-bit weights: codecs, packed tensors and the matmuls that read them.

Reading GGUF files needs NumPy alone; everything else imports torch on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gramcore._lazy import attach
from gramcore.quant.gguf import GgufFile, GgufTensor

if TYPE_CHECKING:
    from gramcore.quant.base import Codec, QTensor, linear
    from gramcore.quant.billm import BiLLM, BinaryTensor
    from gramcore.quant.bipolar import BipolarInt, BipolarTensor
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
    from gramcore.quant.smooth import SmoothTensor
    from gramcore.quant.table import TableTensor

__all__ = [
    "DGQ",
    "GPTQ",
    "BiLLM",
    "BinaryTensor",
    "BipolarInt",
    "BipolarTensor",
    "Codec",
    "Divergence",
    "FineQuant",
    "Fp8",
    "Fp8Linear",
    "Fp8Stats",
    "Fp8Tensor",
    "GgufFile",
    "GgufTensor",
    "GramcoreConfig",
    "IntCodec",
    "LayerReport",
    "PackedTensor",
    "PowerCodec",
    "PowerTensor",
    "QTensor",
    "QuantEmbedding",
    "QuantLinear",
    "QuantReport",
    "SmoothTensor",
    "TableTensor",
    "compare",
    "fp8_round",
    "linear",
    "load_pretrained",
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
        "bipolar": "BipolarInt BipolarTensor",
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
        "pretrained": "GramcoreConfig load_pretrained",
        "schemes": "scheme_names",
        "smooth": "SmoothTensor",
        "table": "TableTensor",
    },
)
