"""The host for transformers models: one forward over a ragged batch of draft trees, with a preallocated cache."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gramcore._checks import check_choice
from gramcore._core import spec as _native
from gramcore._hf import cache_argument
from gramcore.spec.attention import TreeRows, ancestor_rows, supports, tree_rows
from gramcore.spec.base import IntArray
from gramcore.spec.cache import SlotCache
from gramcore.spec.host import Host, TreeOutput

__all__ = ["TransformersHost", "embed_with"]

_CACHE_NAMES = {"past_key_values", "cache"}  # transformers calls it either way


class TransformersHost(Host):
    """A causal language model of transformers with a :class:`SlotCache`.

    Trees go through the library's attention kernel where the architecture allows it (its result for a row does not
    depend on the number of rows), else through a 4-D mask and the model's own attention.

    Args:
        model: decoder-only, in evaluation mode.
        attention: ``"auto"``, ``"kernel"`` or ``"mask"``.

    Raises:
        TypeError: not a causal language model.
        ValueError: training mode; layers whose cache cannot hold trees; ``"kernel"`` for an architecture without it.
    """

    def __init__(self, model: Any, *, attention: str = "auto") -> None:
        check_model(model)
        check_choice("attention", attention, ("auto", "kernel", "mask"))
        if attention == "kernel" and not supports(model):
            raise ValueError(f"attention must be auto or mask for {model.config.model_type}, got 'kernel'")
        self.model = model
        self._kernel = attention != "mask" and supports(model)
        self.config = model.config.get_text_config()
        self.vocab_size = int(model.get_output_embeddings().weight.shape[0]) if _has_head(model) else 0
        self.vocab_size = self.vocab_size or int(self.config.vocab_size)
        limit = getattr(self.config, "max_position_embeddings", None)
        self.context_limit = int(limit) if limit else None
        self.cache: SlotCache
        parameter = next(model.parameters())
        self.device = parameter.device
        self.dtype = parameter.dtype if parameter.is_floating_point() else torch.float32
        self.want_hidden = False
        self._extra: torch.Tensor | None = None  # embedding rows of ids beyond the vocabulary, in this forward
        takes = inspect.signature(model.forward).parameters
        self._keeps_logits = "logits_to_keep" in takes
        self._cache_name = next(name for name in takes if name in _CACHE_NAMES)

    @property
    def model_key(self) -> Any:
        return self.model

    def open(self, batch: int, capacity: int, *, want_hidden: bool = False) -> None:
        check_window(self.model, capacity)
        self.cache = SlotCache(int(self.config.num_hidden_layers), batch, capacity)
        self.want_hidden = want_hidden

    def commit(self, sequence: int, path: IntArray) -> None:
        self.cache.commit(sequence, path)

    def select(self, sequences: Sequence[int]) -> None:
        self.cache.select(sequences)

    def prefill(self, prompts: Sequence[IntArray]) -> TreeOutput | None:
        if not any(map(len, prompts)):
            return None
        places = [np.arange(len(p), dtype=np.int32) for p in prompts]
        if self._kernel and len(prompts) > 1:
            out = self._packed(prompts, places, None, [np.arange(max(0, len(p) - 1), len(p)) for p in prompts])
        else:
            chains = [np.arange(-1, len(p) - 2, dtype=np.int32) if len(p) else None for p in prompts]
            mask = None if len(prompts) == 1 else self._mask(chains, max(map(len, prompts)))
            ends = torch.tensor([max(0, len(p) - 1) for p in prompts])
            wanted, at = torch.unique(ends, return_inverse=True)
            out = self._forward(prompts, places, mask, wanted)
            at = at if self._keeps_logits else ends
            out.logits = [out.logits[b, at[b] : at[b] + 1][: len(p)] for b, p in enumerate(prompts)]
        self.cache.lengths = [len(p) for p in prompts]
        return out

    def forward(self, roots: Sequence[int], trees: Sequence[tuple[IntArray, IntArray]]) -> TreeOutput:
        return self._run_trees(roots, trees)

    def forward_embedded(
        self, roots: Sequence[int], trees: Sequence[tuple[IntArray, IntArray]], extra: Any, keep: Sequence[int]
    ) -> TreeOutput:
        self._extra = extra
        try:
            return self._run_trees(roots, trees, keep)
        finally:
            self._extra = None

    def _run_trees(
        self,
        roots: Sequence[int],
        trees: Sequence[tuple[IntArray, IntArray]],
        keep: Sequence[int] | None = None,
    ) -> TreeOutput:
        """``keep``: of how many rows per sequence logits are wanted."""
        rows = 1 + max(len(tokens) for tokens, _ in trees)
        ids = [np.concatenate([[root], tokens]) for root, (tokens, _) in zip(roots, trees, strict=True)]
        positions = [
            length + _native.tree_depths(parents)
            for length, (_, parents) in zip(self.cache.lengths, trees, strict=True)
        ]
        parents = [p for _, p in trees]
        if self._kernel:
            return self._packed(ids, positions, parents, None if keep is None else [np.arange(k) for k in keep])
        mask = None if rows == 1 and len(roots) == 1 else self._mask(parents, rows)
        return self._forward(ids, positions, mask, None if keep is None else torch.arange(max(keep)))

    def _inputs(self, tokens: torch.Tensor) -> dict[str, Any]:
        """How the model is given its tokens."""
        if self._extra is None:
            return {"input_ids": tokens}
        embedded = embed_with(self._extra, tokens, self.model.get_input_embeddings(), self.vocab_size)
        return {"inputs_embeds": embedded.to(self.dtype)}

    def _mask(self, parents: Sequence[IntArray | None], rows: int) -> torch.Tensor:
        lengths = self.cache.lengths
        mask = torch.empty(len(parents), 1, rows, max(lengths) + rows, dtype=self.dtype)
        for b, tree in enumerate(parents):
            if tree is None:  # an empty prompt of a batch: the rows are padding, they only must not be all closed
                tree = np.empty(0, np.int32)
            _native.fill_tree_mask(tree, 0, lengths[b], mask[b, 0])
        return mask.to(self.device)

    def _packed(
        self,
        ids: Sequence[IntArray],
        positions: Sequence[IntArray],
        parents: Sequence[IntArray] | None,
        keep: Sequence[IntArray] | None,
    ) -> TreeOutput:
        """Rows of all sequences one behind the other, through the library's kernel; without parents they are chains.

        ``keep``: the rows of each sequence whose logits are wanted.
        """
        counts = [len(row) for row in ids]
        ends = np.cumsum(counts)
        seen = None if parents is None else ancestor_rows(parents)
        rows = TreeRows(torch.tensor(self.cache.lengths), torch.tensor(counts), seen)
        wanted = None
        if keep is not None and self._keeps_logits:
            wanted = torch.from_numpy(np.concatenate([s + k for s, k in zip(ends - counts, keep, strict=True)]))
        with tree_rows(self.model, rows), self.cache.packed(counts):
            out = self._forward([np.concatenate(ids)], [np.concatenate(positions)], None, wanted)
        given = counts if wanted is None else [len(k) for k in keep or ()]
        hidden = None if out.hidden is None else out.hidden[0].split(counts)
        return TreeOutput(out.logits[0].split(given), hidden)

    def _forward(
        self, ids: Sequence[Any], positions: Sequence[Any], mask: torch.Tensor | None, keep: Any = None
    ) -> TreeOutput:
        """``keep``: the rows whose logits are wanted, for models that can leave out the others."""
        rows = max(map(len, ids))
        tokens = torch.zeros(len(ids), rows, dtype=torch.int64)
        places = torch.zeros(len(ids), rows, dtype=torch.int64)
        for b, (row, place) in enumerate(zip(ids, positions, strict=True)):
            tokens[b, : len(row)] = torch.as_tensor(np.asarray(row, np.int64))
            places[b, : len(row)] = torch.as_tensor(np.asarray(place, np.int64))
        extra: dict[str, Any] = {} if keep is None or not self._keeps_logits else {"logits_to_keep": keep}
        if self.want_hidden:
            extra["output_hidden_states"] = True
        out = self.model(
            **self._inputs(tokens.to(self.device)),
            position_ids=places.to(self.device),
            attention_mask=mask,
            use_cache=True,
            **cache_argument(self.model, self.cache),
            **extra,
        )
        if not self.cache.used:
            raise ValueError(
                "model must write its keys and values to the cache it is given, got "
                f"{type(self.model).__name__}, which left it empty; use model.generate"
            )
        logits = out.logits if out.logits.device.type == "cpu" else out.logits.cpu()
        return TreeOutput(logits, out.hidden_states[-1] if self.want_hidden else None)


def embed_with(extra: torch.Tensor, tokens: torch.Tensor, embedding: Any, vocab_size: int) -> torch.Tensor:
    """Embeddings of ids; those from ``vocab_size`` on are rows of ``extra``."""
    beyond = tokens >= vocab_size
    embedded = embedding(tokens.masked_fill(beyond, 0)).detach()
    rows = extra.to(embedded)[(tokens - vocab_size).clamp_min(0)]
    return torch.where(beyond[..., None], rows, embedded)


def check_model(model: Any) -> None:
    """Raise unless ``model`` is a decoder whose cache can hold trees."""
    if not hasattr(model, "config") or not hasattr(model, "get_output_embeddings"):
        raise TypeError(f"model must be a transformers causal language model, got {type(model).__name__}")
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
    takes = set(inspect.signature(model.forward).parameters)
    if not takes & _CACHE_NAMES or "position_ids" not in takes:
        lacks = "position_ids" if takes & _CACHE_NAMES else "a cache"
        raise ValueError(
            f"model must take a cache and position_ids, got {type(model).__name__} without {lacks}; "
            "draft trees cannot be verified, use model.generate"
        )
    if not hasattr(config, "num_hidden_layers"):
        raise ValueError(f"model must declare num_hidden_layers, got config {type(config).__name__}")


def check_window(model: Any, capacity: int) -> None:
    """Raise unless every layer attends to all of ``capacity`` slots."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    windowed = (
        model.config.model_type == "mistral"
        or "sliding_attention" in kinds
        or getattr(config, "use_sliding_window", False)
    )
    if windowed and window and window < capacity:
        raise ValueError(
            f"prompt and new tokens must fit the model's attention window of {window} tokens, got {capacity}; "
            "shorten them or use model.generate"
        )


def _has_head(model: Any) -> bool:
    head = model.get_output_embeddings()
    return head is not None and hasattr(getattr(head, "weight", None), "shape")
