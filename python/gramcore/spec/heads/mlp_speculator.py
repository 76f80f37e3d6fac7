"""The combined token and embedding speculator."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from gramcore._checks import check_int
from gramcore.spec.heads.base import MAX_WIDTH, DraftHeads

__all__ = ["MLPSpeculator"]


class MLPSpeculator(DraftHeads):
    """A chain of small MLPs that mix a state with the embedding of the last token.

    ``s_i = GELU(LN_i(W_i s_{i-1} + (b / a) E_i[x_{i-1}]))``, ``logits_i = H_i s_i``, with ``s_0`` the target's hidden
    state, ``a = 0.5^(0.5/n)``, ``b = sqrt((1 - a^2) d / 2)``. Parameters: ``n (V d + R d + d^2)``, a third with tied
    weights. Cost per drafted token: ``d (d + R)`` multiplications.

    Args:
        hidden_size, vocab_size: of the target; see :meth:`for_model`.
        num_heads: in [1, 64]; n.
        inner_dim: d; 0: ``hidden_size``.
        tie_weights: share E, H, LN over heads and W over heads 2 .. n.
        scale_input: normalise ``s_0`` (no affine) and divide it by sqrt(2).
        vocabulary: ids that may be drafted; None: all.

    Differs from paper: where ``inner_dim == hidden_size``, E and H start as the target's rows, scaled to the paper's
        standard deviation ``d^-0.5``, instead of at random.
    Reference: Wertheimer et al. 2024, arXiv:2404.19124, section 3.

    >>> MLPSpeculator(hidden_size=8, vocab_size=16, num_heads=3).inner_dim
    8
    """

    kind = "mlp_speculator"

    def __init__(
        self,
        *,
        hidden_size: int,
        vocab_size: int,
        num_heads: int = 3,
        inner_dim: int = 0,
        tie_weights: bool = True,
        scale_input: bool = True,
        vocabulary: Any = None,
    ) -> None:
        super().__init__(hidden_size=hidden_size, vocab_size=vocab_size, num_heads=num_heads, vocabulary=vocabulary)
        self.inner_dim = check_int("inner_dim", inner_dim, low=0, high=MAX_WIDTH) or hidden_size
        self.tie_weights, self.scale_input = bool(tie_weights), bool(scale_input)
        d, n = self.inner_dim, self.num_heads
        kept = 1 if tie_weights else n
        self.embeddings = nn.ModuleList(nn.Embedding(vocab_size, d) for _ in range(kept))
        self.outputs = nn.ModuleList(nn.Linear(d, self.num_rows, bias=False) for _ in range(kept))
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(kept))
        inputs = [self.hidden_size] + [d] * (min(n - 1, 1) if tie_weights else n - 1)
        self.projections = nn.ModuleList(nn.Linear(width, d, bias=False) for width in inputs)
        for weight in (m.weight for part in (self.embeddings, self.outputs, self.projections) for m in part):
            nn.init.normal_(weight, std=d**-0.5)  # type: ignore[arg-type]
        a = 0.5 ** (0.5 / n)
        self.ratio = math.sqrt((1 - a * a) * d / 2) / a

    def settings(self) -> dict[str, Any]:
        own = {"inner_dim": self.inner_dim, "tie_weights": self.tie_weights, "scale_input": self.scale_input}
        return {**super().settings(), **own}

    def start(self) -> None:
        if self.inner_dim != self.hidden_size:
            return
        with torch.no_grad():
            for parts, rows in ((self.embeddings, self.target_embedding), (self.outputs, self.target_rows)):
                for part in parts:
                    part.weight.copy_(rows * (self.inner_dim**-0.5 / rows.std()))  # type: ignore[operator, union-attr]

    def context(
        self, hidden: torch.Tensor, past: Any = None, *, following: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Any]:
        if not self.scale_input:
            return hidden, past
        return nn.functional.layer_norm(hidden, hidden.shape[-1:]) / math.sqrt(2), past

    def step(
        self,
        index: int,
        state: torch.Tensor,
        tokens: torch.Tensor,
        past: Any = None,
        at: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kept = 0 if self.tie_weights else index
        projection = self.projections[min(index, 1) if self.tie_weights else index]
        mixed = projection(state) + self.ratio * self.embeddings[kept](tokens)
        state = nn.functional.gelu(self.norms[kept](mixed))
        return state, self.outputs[kept](state)
