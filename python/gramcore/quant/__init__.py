"""Low-bit weights: codecs, packed tensors and the matmuls that read them.

Reading GGUF files needs NumPy alone; everything else imports torch on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gramcore._registry import Row, register
from gramcore.quant.gguf import GgufFile, GgufTensor

if TYPE_CHECKING:
    from gramcore.quant.base import Codec, QTensor, linear
    from gramcore.quant.from_gguf import packed_from_gguf
    from gramcore.quant.integer import IntCodec
    from gramcore.quant.modules import LayerReport, QuantEmbedding, QuantLinear, QuantReport, quantize_
    from gramcore.quant.packed import PackedTensor
    from gramcore.quant.schemes import scheme_names

__all__ = [
    "Codec",
    "GgufFile",
    "GgufTensor",
    "IntCodec",
    "LayerReport",
    "PackedTensor",
    "QTensor",
    "QuantEmbedding",
    "QuantLinear",
    "QuantReport",
    "linear",
    "packed_from_gguf",
    "quantize_",
    "scheme_names",
]

_HOMES = {
    "Codec": "base",
    "IntCodec": "integer",
    "LayerReport": "modules",
    "PackedTensor": "packed",
    "QTensor": "base",
    "QuantEmbedding": "modules",
    "QuantLinear": "modules",
    "QuantReport": "modules",
    "linear": "base",
    "packed_from_gguf": "from_gguf",
    "quantize_": "modules",
    "scheme_names": "schemes",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"gramcore.quant.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'gramcore.quant' has no attribute {name!r}")


register(
    Row(
        name="IntCodec",
        family="quant",
        protocol="codec",
        factory="gramcore.quant:IntCodec",
        summary="round-to-nearest 8/4/3/2-bit codes, group scales and minima",
        paper="Krishnamoorthi 2018, arXiv:1806.08342",
        facts={"lossless_zero": True, "max_error": 0.12},
        test_kwargs={"bits": 4, "group_size": 32},
    ),
)
