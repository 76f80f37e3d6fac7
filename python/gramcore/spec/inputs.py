"""Arguments of ``generate``: prompts, end tokens, seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from gramcore.spec.base import Drafter, IntArray, LengthPolicy, Verifier

__all__ = ["check_ids", "check_parts", "end_tokens", "one_seed", "prompt_rows"]


def check_parts(drafter: Any, verifier: Any, policy: Any, stops: Sequence[Any], streamer: Any) -> None:
    """Raise TypeError for an argument that is none of what its name says; None is always fine."""
    for name, value, kind in (
        ("drafter", drafter, Drafter),
        ("verifier", verifier, Verifier),
        ("policy", policy, LengthPolicy),
    ):
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{name} must be a {kind.__name__} or None, got {type(value).__name__}")
    for stop in stops:
        if stop is not None and not callable(stop):
            raise TypeError(f"stop must be functions of the new tokens, got {type(stop).__name__}; see StopStrings")
    if streamer is not None and not (hasattr(streamer, "put") and hasattr(streamer, "end")):
        raise TypeError(f"streamer must have put and end, got {type(streamer).__name__}")


def prompt_rows(input_ids: Any, attention_mask: Any) -> list[IntArray]:
    """One array per sequence, padding removed."""
    if isinstance(input_ids, (list, tuple)) and input_ids and not np.isscalar(input_ids[0]):
        rows = [np.asarray(row) for row in input_ids]
    else:
        array = np.asarray(input_ids.cpu() if isinstance(input_ids, torch.Tensor) else input_ids)
        if array.ndim not in (1, 2):
            raise ValueError(f"input_ids must be (T,) or (B, T), got shape {array.shape}")
        rows = list(np.atleast_2d(array))
    if attention_mask is not None:
        mask = np.atleast_2d(np.asarray(attention_mask.cpu() if hasattr(attention_mask, "cpu") else attention_mask))
        if len(mask) != len(rows) or any(len(m) != len(r) for m, r in zip(mask, rows, strict=True)):
            raise ValueError(f"attention_mask must have the shape of input_ids, got {mask.shape}")
        rows = [row[m.astype(bool)] for row, m in zip(rows, mask, strict=True)]
    for row in rows:
        if row.size == 0:
            raise ValueError("input_ids must hold at least one token per sequence, got an empty prompt")
        if row.ndim != 1 or row.dtype.kind not in "iu":
            raise TypeError(f"input_ids must be integers in one row per sequence, got {row.dtype} {row.shape}")
    if not rows:
        raise ValueError("input_ids must hold at least one sequence, got none")
    return [np.ascontiguousarray(row, np.int64).astype(np.int32) for row in rows]


def check_ids(prompts: list[IntArray], vocab_size: int) -> None:
    """Raise ValueError for an id outside the vocabulary."""
    for prompt in prompts:
        if prompt.min() < 0 or prompt.max() >= vocab_size:
            bad = prompt[(prompt < 0) | (prompt >= vocab_size)][0]
            raise ValueError(f"input_ids must be in [0, {vocab_size}), got {bad}; tokenizer and model must match")


def end_tokens(model: Any, given: int | Iterable[int] | None) -> frozenset[int]:
    """The ids given, else those the model declares."""
    if given is None:
        config = getattr(model, "generation_config", None)
        given = getattr(config, "eos_token_id", getattr(model, "eos_token_ids", None))
    if given is None:
        return frozenset()
    return frozenset([int(given)]) if isinstance(given, int) else frozenset(int(t) for t in given)


def one_seed(seed: int | None, generator: torch.Generator | None) -> int:
    """The seed given, else one drawn from the generator, else 0."""
    if seed is not None and generator is not None:
        raise ValueError("seed and generator must not both be given")
    if generator is not None:
        return int(torch.randint(0, 2**63 - 1, (1,), generator=generator))
    return 0 if seed is None else seed
