"""Text that heads learn from: read once by the frozen target."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from gramcore._checks import check_int
from gramcore._hf import last_logits_argument
from gramcore.spec.generation import generate

__all__ = ["ReadText", "own_text", "read_text"]


@dataclass(frozen=True)
class ReadText:
    """Pieces of text with the target's last hidden states: ``ids (N, T)`` int64, ``hidden (N, T, W)`` float32."""

    ids: torch.Tensor
    hidden: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def split(self, held_out: int) -> tuple[ReadText, ReadText]:
        """All but the last ``held_out`` pieces, and those."""
        check_int("held_out", held_out, low=1, high=len(self) - 1)
        cut = len(self) - held_out
        return ReadText(self.ids[:cut], self.hidden[:cut]), ReadText(self.ids[cut:], self.hidden[cut:])

    def digest(self) -> str:
        """SHA-256 of the ids."""
        return hashlib.sha256(self.ids.numpy().tobytes()).hexdigest()


def read_text(
    model: Any,
    ids: Sequence[int] | Sequence[Sequence[int]],
    *,
    length: int = 128,
    batch: int = 8,
    progress: bool = True,
) -> ReadText:
    """Run the target over text once and keep its last hidden states (4 W bytes per token).

    Args:
        model: a transformers causal language model in evaluation mode.
        ids: one sequence of ids, or several; cut into pieces of ``length``, what remains is dropped.
        length: ``>= 4``; T.
        batch: ``>= 1``; pieces per forward.
        progress: show a progress bar (on a terminal).

    Raises:
        ValueError: no sequence is that long.
    """
    check_int("length", length, low=4)
    check_int("batch", batch, low=1)
    sequences = [ids] if len(ids) and np.isscalar(ids[0]) else list(ids)
    pieces = [
        np.asarray(s[i : i + length], np.int64)  # type: ignore[index]
        for s in sequences
        for i in range(0, len(s) - length + 1, length)  # type: ignore[arg-type]
    ]
    if not pieces:
        raise ValueError(f"ids must hold a sequence of at least length = {length} tokens, got none")
    tokens = torch.from_numpy(np.stack(pieces))
    extra = last_logits_argument(model)
    hidden: list[torch.Tensor] = []
    with torch.inference_mode(False), torch.no_grad():
        for i in tqdm(range(0, len(tokens), batch), desc="reading", disable=None if progress else True, leave=False):
            out = model(input_ids=tokens[i : i + batch], output_hidden_states=True, use_cache=False, **extra)
            hidden.append(out.hidden_states[-1].float())
    return ReadText(tokens, torch.cat(hidden))


def own_text(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch: int = 16,
    progress: bool = True,
) -> list[list[int]]:
    """The target's own continuations of prompts (prompt included): text for a second stage of training.

    Args:
        model: the target.
        prompts: ids.
        new_tokens: ``>= 1`` per prompt; the end of text does not stop them.
        temperature: ``>= 0``.
        seed: of the sampling.
        batch: ``>= 1``; prompts decoded together.
        progress: show a progress bar (on a terminal).
    """
    check_int("batch", batch, low=1)
    texts: list[list[int]] = []
    for i in tqdm(range(0, len(prompts), batch), desc="writing", disable=None if progress else True, leave=False):
        part = [list(p) for p in prompts[i : i + batch]]
        result = generate(
            model, part, max_new_tokens=new_tokens, temperature=temperature, seed=seed + i, eos_token_id=()
        )
        texts += [[*p, *new] for p, new in zip(part, result.sequences, strict=True)]
    return texts
