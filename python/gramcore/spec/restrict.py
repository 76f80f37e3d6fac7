"""A language model whose head computes only some ids."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from gramcore.spec.vocabulary import FrequencyVocabulary

__all__ = ["head_weight", "restrict_head", "rows_of"]


def head_weight(model: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight ``(V, W)`` and bias of a model's output layer; a quantised weight is expanded."""
    head = model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    if not isinstance(weight, torch.Tensor):
        quantised = getattr(head, "qweight", None)
        if quantised is None:
            raise TypeError(f"model must have a linear output layer, got {type(head).__name__}")
        weight = quantised.dequantize()
    bias = getattr(head, "bias", None)
    return weight.detach(), None if bias is None else bias.detach()


def rows_of(
    weight: torch.Tensor, bias: torch.Tensor | None, vocabulary: FrequencyVocabulary
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A copy of an output layer's rows of the ids in F, in their order."""
    ids = torch.from_numpy(vocabulary.ids).to(weight.device)
    return weight.index_select(0, ids), None if bias is None else bias.index_select(0, ids)


def restrict_head(model: Any, vocabulary: FrequencyVocabulary) -> Any:
    """``model`` with logits ``(..., |F|)`` of the ids in F, in their order; all other weights are shared.

    The rows of the head are gathered once; a forward multiplies by |F| rows instead of V.

    Args:
        model: a transformers causal language model.
        vocabulary: of the model's size.
    """
    weight, bias = head_weight(model)
    if weight.shape[0] != vocabulary.vocab_size:
        raise ValueError(f"vocabulary must be of a model with {weight.shape[0]} ids, got {vocabulary.vocab_size}")
    weight, bias = rows_of(weight, bias, vocabulary)
    head = nn.Linear(weight.shape[1], len(vocabulary), bias=bias is not None, device="meta")
    head.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        head.bias = nn.Parameter(bias, requires_grad=False)
    full = model.get_output_embeddings()
    name = next(name for name, module in model.named_modules() if module is full)
    outer = copy.copy(model)
    if "." in name:
        raise ValueError(f"model must hold its output layer directly, got it at {name!r}")
    outer._modules = {**model._modules, name: head}
    return outer
