"""Parameter shapes of a small Llama, and tensors of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

LLAMA_LAYER = [(768, 768)] * 4 + [(2048, 768), (2048, 768), (768, 2048)] + [(768,)] * 2


def llama_shapes(layers: int = 12, vocabulary: int = 8192) -> list[tuple[int, ...]]:
    """Shapes of a Llama of width 768; the vocabulary is small so that several contenders fit in memory."""
    return [(vocabulary, 768), *(LLAMA_LAYER * layers), (768,)]


def make_params(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype, seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter((0.02 * torch.randn(s, generator=generator)).to(dtype)) for s in shapes]


def share_grads(sources: Sequence[torch.Tensor], params: Sequence[torch.Tensor]) -> None:
    """The same gradient tensors for every contender."""
    for p, g in zip(params, sources, strict=True):
        p.grad = g
