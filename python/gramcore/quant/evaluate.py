"""How much a quantised language model lost: perplexity and divergence from the original on given text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from gramcore._checks import check_int

__all__ = ["Divergence", "compare", "perplexity"]


@dataclass(frozen=True)
class Divergence:
    """Result of :func:`compare`: natural-log perplexities, mean KL in nats, share of equal argmax tokens."""

    perplexity: float
    reference_perplexity: float
    kl: float
    agreement_frac: float
    num_tokens: int


def perplexity(model: Any, ids: torch.Tensor, *, window: int = 512) -> float:
    """``exp`` of the mean negative log-probability of each token given up to ``window - 1`` before it.

    Args:
        model: a causal language model whose call returns an object with ``logits``.
        ids: ``(T,)`` token ids, ``T >= 2``; read in windows that do not overlap.
        window: tokens per forward, ``>= 2``.
    """
    total, count = 0.0, 0
    for logits, targets in _windows(model, ids, window):
        total -= float(logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).sum())
        count += targets.numel()
    return math.exp(total / count)


def compare(model: Any, reference: Any, ids: torch.Tensor, *, window: int = 512) -> Divergence:
    """Perplexities of both models and ``KL(reference || model)`` per token on the same windows.

    Args:
        model: the quantised model.
        reference: the original.
        ids: ``(T,)`` token ids, ``T >= 2``.
        window: tokens per forward, ``>= 2``.
    """
    nll = ref_nll = kl = same = 0.0
    count = 0
    for (q, targets), (p, _) in zip(_windows(model, ids, window), _windows(reference, ids, window), strict=True):
        log_q, log_p = q.log_softmax(-1), p.log_softmax(-1)
        nll -= float(log_q.gather(-1, targets.unsqueeze(-1)).sum())
        ref_nll -= float(log_p.gather(-1, targets.unsqueeze(-1)).sum())
        kl += float((log_p.exp() * (log_p - log_q)).sum())
        same += float((q.argmax(-1) == p.argmax(-1)).sum())
        count += targets.numel()
    return Divergence(math.exp(nll / count), math.exp(ref_nll / count), kl / count, same / count, count)


def _windows(model: Any, ids: torch.Tensor, window: int) -> Any:
    check_int("window", window, low=2)
    if ids.dim() != 1 or ids.numel() < 2:
        raise ValueError(f"ids must be one sequence of at least two tokens, got shape {tuple(ids.shape)}")
    for start in range(0, ids.numel() - 1, window - 1):
        piece = ids[start : start + window].unsqueeze(0)
        if piece.shape[1] < 2:
            return
        with torch.no_grad():
            logits = model(piece).logits[0, :-1].float()
        yield logits, piece[0, 1:]
