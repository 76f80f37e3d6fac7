"""Spectrum: choose the layers worth training by the signal-to-noise ratio of their weights."""

from __future__ import annotations

import re

import torch

from gramcore._checks import check_real

__all__ = ["signal_to_noise", "spectrum_freeze", "spectrum_select"]

_ALWAYS = re.compile(r"(lm_head|embed_tokens|embed_in|wte)\.weight$")


def signal_to_noise(weight: torch.Tensor) -> float:
    """Sum of the singular values above the noise threshold over the sum of those below, over the largest.

    The threshold is σ (1 + √β), σ = IQR(S) / 1.349, β = min(M, N) / max(M, N): the edge of a Marchenko-Pastur law
    as the published code scales it.

    Args: weight: at least one axis; more than two are flattened behind the first.

    Example:
        >>> import torch
        >>> from gramcore.optim import signal_to_noise
        >>> signal_to_noise(torch.eye(4))
        4.0
    """
    if weight.is_meta:
        raise ValueError("weight must hold values, got a meta tensor; load the model first")
    matrix = weight.detach().float()
    matrix = matrix.unsqueeze(0) if matrix.ndim < 2 else matrix.reshape(matrix.shape[0], -1)
    s = torch.linalg.svdvals(matrix)
    sigma = (torch.quantile(s, 0.75) - torch.quantile(s, 0.25)) / 1.349
    beta = min(matrix.shape) / max(matrix.shape)
    above = s > sigma * (1 + beta**0.5)
    signal, noise = s[above].sum(), s[~above].sum() if bool((~above).any()) else torch.tensor(1.0)
    return float("inf") if float(noise) == 0 else float(signal / noise / s.max())


def spectrum_select(model: torch.nn.Module, *, fraction: float = 0.25) -> list[str]:
    """Names of the weights to train: the best ``fraction`` of each module type, and embeddings and head.

    Args:
        model: weights of two or more axes are ranked within their type, the name without layer numbers.
        fraction: kept share of each type, in (0, 1].

    Reference: Hartford et al. 2024, arXiv:2406.06623.

    Example:
        >>> import torch
        >>> from gramcore.optim import spectrum_select
        >>> layers = torch.nn.Sequential(*[torch.nn.Linear(8, 8) for _ in range(4)])
        >>> len(spectrum_select(layers, fraction=0.5))
        2
    """
    check_real("fraction", fraction, low=0.0, high=1.0, low_open=True)
    chosen: list[str] = []
    kinds: dict[str, list[tuple[float, str]]] = {}
    for name, p in model.named_parameters():
        if _ALWAYS.search(name):
            chosen.append(name)
        elif p.ndim >= 2:
            kinds.setdefault(re.sub(r"\d+", "*", name), []).append((signal_to_noise(p), name))
    for ranked in kinds.values():
        ranked.sort(key=lambda item: (-item[0], item[1]))
        chosen += [name for _, name in ranked[: int(len(ranked) * fraction)]]
    return chosen


def spectrum_freeze(model: torch.nn.Module, *, fraction: float = 0.25) -> list[str]:
    """Freeze every parameter :func:`spectrum_select` does not choose; returns the chosen names.

    Args: model: changed: ``requires_grad``.  fraction: as there.
    """
    chosen = set(spectrum_select(model, fraction=fraction))
    for name, p in model.named_parameters():
        p.requires_grad_(name in chosen)
    return sorted(chosen)
