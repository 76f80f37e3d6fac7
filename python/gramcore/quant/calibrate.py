"""Sample activations of linear layers, recorded while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["collect_inputs"]

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
