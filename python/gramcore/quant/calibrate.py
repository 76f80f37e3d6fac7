"""Sample activations of linear layers, recorded while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from gramcore._checks import check_int, require

__all__ = ["collect_inputs", "sample_texts"]

#: rows kept per layer: a uniform reservoir would need randomness; evenly spaced rows of every batch need none
MAX_ROWS = 2048


def collect_inputs(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    calibration: Iterable[Any] | Callable[[nn.Module], None] | None,
    max_rows: int = MAX_ROWS,
) -> dict[str, torch.Tensor]:
    """fp32 inputs ``(T, K)`` of each layer, at most ``max_rows`` rows, the same tokens for all layers.

    Args:
        model: run in evaluation mode without gradients; its mode is restored.
        layers: name -> layer to observe.
        calibration: batches (tensors or dicts of keyword arguments) or a function that runs the model.
        max_rows: evenly spaced rows are kept when more were seen.

    Raises:
        ValueError: a layer saw no input.
    """
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in layers}

    def hook(name: str) -> Callable[..., None]:
        def record(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            seen[name].append(args[0].detach().reshape(-1, args[0].shape[-1]).float())

        return record

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            if callable(calibration):
                calibration(model)
            else:
                for batch in calibration or ():
                    model(**batch) if isinstance(batch, Mapping) else model(batch)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    empty = [name for name, rows in seen.items() if not rows]
    if empty:
        raise ValueError(f"calibration must reach every layer, got no input for {empty[0]}; pass at least one batch")
    return {name: _thin(torch.cat(rows), max_rows) for name, rows in seen.items()}


def _thin(rows: torch.Tensor, most: int) -> torch.Tensor:
    if rows.shape[0] <= most:
        return rows
    return rows[torch.linspace(0, rows.shape[0] - 1, most).round().long()]


def sample_texts(model: Any, *, sequences: int = 16, length: int = 256, seed: int = 0) -> list[torch.Tensor]:
    """Calibration text without data: sequences that a language model itself produces.

    Every sequence starts with a uniformly random token; each next one is drawn from the model's law (temperature 1)
    given those before it, ``y_t ~ softmax(logits(y_1 .. y_{t-1}))``.

    Cost: ``length - 1`` forwards of ``sequences`` rows with a key-value cache.

    Args:
        model: a causal language model of transformers, on the CPU.
        sequences: ``>= 1``.
        length: tokens per sequence, ``>= 2``.
        seed: of the draws, ``>= 0``.

    Returns:
        Batches of at most two sequences, token ids ``(<= 2, length)``, for :func:`gramcore.quant.quantize_`.

    Differs from paper: tokens are drawn from the start instead of greedily for the first few, and only serve
        calibration, not training.

    Reference: Liu et al. 2023, arXiv:2305.17888, section 3.1 (data-free calibration by the model's own generations).

    Example:
        >>> from gramcore.quant import sample_texts
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
        >>> model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4)).eval()
        >>> [tuple(batch.shape) for batch in sample_texts(model, sequences=3, length=8)]
        [(2, 8), (1, 8)]
    """
    from gramcore._hf import cache_argument

    check_int("sequences", sequences, low=1)
    check_int("length", length, low=2)
    draws = torch.Generator().manual_seed(check_int("seed", seed, low=0))
    cache = require("transformers", "hf").DynamicCache()
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(vocabulary, (sequences, 1), generator=draws)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            while ids.shape[1] < length:
                logits = model(ids[:, -1:], **cache_argument(model, cache)).logits[:, -1].float()
                ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1, generator=draws)], 1)
    finally:
        model.train(training)
    return [ids[i : i + 2] for i in range(0, sequences, 2)]
