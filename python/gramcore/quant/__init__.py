"""Low-bit weights: codecs, packed tensors and the matmuls that read them."""

from __future__ import annotations

from gramcore.quant.gguf import GgufFile, GgufTensor

__all__ = ["GgufFile", "GgufTensor"]
