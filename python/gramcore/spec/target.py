"""The target model behind the loop: one forward over a ragged batch of draft trees on a transformers model."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gramcore._core import spec as _native
from gramcore.spec.base import IntArray
from gramcore.spec.cache import SlotCache

__all__ = ["TargetModel", "TreeOutput"]


@dataclass
class TreeOutput:
    """Logits ``(B, R, V)`` and, if asked for, last hidden states ``(B, R, width)``; R = most rows of a sequence."""

    logits: torch.Tensor
    hidden: torch.Tensor | None


class TargetModel:
    """A causal language model of transformers with a :class:`SlotCache`.

    Raises:
        TypeError: not a causal language model.
        ValueError: training mode, or layers whose cache cannot hold trees (recurrent, or a window below ``capacity``).
    """

    def __init__(self, model: Any, batch: int, capacity: int, *, want_hidden: bool = False) -> None:
        check_model(model, capacity)
        self.model = model
        self.config = model.config.get_text_config()
        self.vocab_size = int(model.get_output_embeddings().weight.shape[0]) if _has_head(model) else 0
        self.vocab_size = self.vocab_size or int(self.config.vocab_size)
        self.cache = SlotCache(int(self.config.num_hidden_layers), batch, capacity)
        parameter = next(model.parameters())
        self.device = parameter.device
        self.dtype = parameter.dtype if parameter.is_floating_point() else torch.float32
        self.want_hidden = want_hidden
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    def prefill(self, prompts: Sequence[IntArray]) -> TreeOutput | None:
        """Fill the cache with ``prompts``; returns the output of all rows, or of the last for a single prompt."""
        rows = max(len(p) for p in prompts)
        if rows == 0:
            return None
        chains = [np.arange(-1, len(p) - 2, dtype=np.int32) for p in prompts]
        mask = None if len(prompts) == 1 else self._mask([c if len(c) else None for c in chains], rows)
        out = self._forward(prompts, [np.arange(len(p)) for p in prompts], rows, mask, last_only=len(prompts) == 1)
        self.cache.lengths = [len(p) for p in prompts]
        return out

    def forward(self, roots: Sequence[int], trees: Sequence[tuple[IntArray, IntArray]]) -> TreeOutput:
        """Rows for root and nodes of every sequence; ``trees`` are ``(tokens, parents)``."""
        rows = 1 + max(len(tokens) for tokens, _ in trees)
        mask = None if rows == 1 and len(roots) == 1 else self._mask([parents for _, parents in trees], rows)
        ids = [np.concatenate([[root], tokens]) for root, (tokens, _) in zip(roots, trees, strict=True)]
        positions = [
            length + _native.tree_depths(parents)
            for length, (_, parents) in zip(self.cache.lengths, trees, strict=True)
        ]
        return self._forward(ids, positions, rows, mask)

    def _mask(self, parents: Sequence[IntArray | None], rows: int) -> torch.Tensor:
        lengths = self.cache.lengths
        mask = torch.empty(len(parents), 1, rows, max(lengths) + rows, dtype=self.dtype)
        for b, tree in enumerate(parents):
            if tree is None:  # an empty prompt of a batch: the rows are padding, they only must not be all closed
                tree = np.empty(0, np.int32)
            _native.fill_tree_mask(tree, 0, lengths[b], mask[b, 0])
        return mask.to(self.device)

    def _forward(
        self,
        ids: Sequence[Any],
        positions: Sequence[Any],
        rows: int,
        mask: torch.Tensor | None,
        last_only: bool = False,
    ) -> TreeOutput:
        tokens = torch.zeros(len(ids), rows, dtype=torch.int64)
        places = torch.zeros(len(ids), rows, dtype=torch.int64)
        for b, (row, place) in enumerate(zip(ids, positions, strict=True)):
            tokens[b, : len(row)] = torch.as_tensor(np.asarray(row, np.int64))
            places[b, : len(row)] = torch.as_tensor(np.asarray(place, np.int64))
        extra: dict[str, Any] = {"logits_to_keep": 1} if last_only and self._keeps_logits else {}
        if self.want_hidden:
            extra["output_hidden_states"] = True
        out = self.model(
            input_ids=tokens.to(self.device),
            position_ids=places.to(self.device),
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            **extra,
        )
        return TreeOutput(out.logits, out.hidden_states[-1] if self.want_hidden else None)


def context_limit(model: Any) -> int | None:
    """Longest sequence the model was built for, or None when the configuration does not say."""
    _check_type(model)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None


def check_model(model: Any, capacity: int) -> None:
    """Raise unless ``model`` can decode trees over ``capacity`` slots."""
    _check_type(model)
    if getattr(model, "training", False):
        raise ValueError("model must be in evaluation mode, got training mode; call model.eval()")
    config = model.config.get_text_config()
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(f"model must be decoder-only, got the encoder-decoder {model.config.model_type}")
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if recurrent := kinds - {"full_attention", "sliding_attention"}:
        raise ValueError(
            f"model must have attention layers only, got {', '.join(sorted(recurrent))}; "
            "draft trees cannot be verified with a recurrent state, use model.generate"
        )
    window = getattr(config, "sliding_window", None)
    windowed = "sliding_attention" in kinds or getattr(config, "use_sliding_window", False)
    if windowed and window and window < capacity:
        raise ValueError(
            f"prompt and new tokens must fit the model's attention window of {window} tokens, got {capacity}; "
            "shorten them or use model.generate"
        )
    if not hasattr(config, "num_hidden_layers"):
        raise ValueError(f"model must declare num_hidden_layers, got config {type(config).__name__}")


def _check_type(model: Any) -> None:
    if not hasattr(model, "config") or not hasattr(model, "get_output_embeddings"):
        raise TypeError(f"model must be a transformers causal language model, got {type(model).__name__}")


def _has_head(model: Any) -> bool:
    head = model.get_output_embeddings()
    return head is not None and hasattr(getattr(head, "weight", None), "shape")
