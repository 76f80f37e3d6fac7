"""Factors of the layer-wise Hessian ``H = X^T X`` that codecs with error compensation share."""

from __future__ import annotations

import torch

__all__ = ["inverse_factor"]


def inverse_factor(h: torch.Tensor, damping: float) -> torch.Tensor:
    """Upper Cholesky factor ``U`` of ``(H + damping mean(diag H) I)^-1 = U^T U``, in fp32.

    Row c, from the diagonal on, says how later columns make up for an error in column c: by
    ``-(error / U[c, c]) U[c, later]``.  A zero ``h`` counts as the identity.
    """
    h = h.double()
    mean = float(h.diagonal().mean())
    h = h + torch.eye(h.shape[0], dtype=torch.float64) * (damping * mean if mean > 0 else 1.0)
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True).float()
