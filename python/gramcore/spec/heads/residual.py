"""Heads that do not see drafted tokens: blockwise parallel heads, and KOALA's deeper ones."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from gramcore._checks import check_int
from gramcore.spec.heads.base import DraftHeads
from gramcore.spec.heads.layers import ResidualBlocks

__all__ = ["BlockHeads", "Koala"]


class _ResidualHeads(DraftHeads):
    """``logits_i = H f_i(h)``: K residual blocks per head, the target's own output rows H, frozen, for all."""

    regressive: ClassVar[bool] = False

    def __init__(self, *, layers: int, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.layers = check_int("layers", layers, low=1, high=64)
        self.heads = nn.ModuleList(ResidualBlocks(self.hidden_size, layers) for _ in range(self.num_heads))

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "layers": self.layers}

    def step(
        self,
        index: int,
        state: torch.Tensor,
        tokens: torch.Tensor,
        past: Any = None,
        at: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return state, self.target_logits(self.heads[index](state))


class BlockHeads(_ResidualHeads):
    """Blockwise parallel heads: each predicts one later token from the same state, independently of the others.

    ``logits_i = H (h + SiLU(W_i h + b_i))`` with H the target's output rows (frozen) and W_i starting at 0.
    Parameters: ``n layers (W^2 + W)``. Cost per draft, whatever its tree: n products with H.

    Args:
        hidden_size, vocab_size: of the target; see :meth:`for_model`.
        num_heads: in [1, 64]; n.
        layers: in [1, 64]; residual blocks per head.
        vocabulary: ids that may be drafted; None: all.

    Differs from paper: SiLU blocks as in Medusa (arXiv:2401.10774) instead of ReLU ones; H stays the target's.
    Reference: Stern et al. 2018, arXiv:1811.03115, section 6.

    >>> BlockHeads(hidden_size=8, vocab_size=16, num_heads=2).settings()["layers"]
    1
    """

    kind = "block"

    def __init__(
        self, *, hidden_size: int, vocab_size: int, num_heads: int = 4, layers: int = 1, vocabulary: Any = None
    ) -> None:
        super().__init__(
            hidden_size=hidden_size, vocab_size=vocab_size, num_heads=num_heads, layers=layers, vocabulary=vocabulary
        )


class Koala(_ResidualHeads):
    """KOALA's draft heads: several layers per head; train them with :class:`AdversarialLoss`.

    ``logits_i = H f_i(h)``, ``f_i`` K residual blocks ``x + SiLU(W x + b)``.

    Args:
        hidden_size, vocab_size: of the target; see :meth:`for_model`.
        num_heads: in [1, 64].
        layers: in [1, 64]; K, 2 in the paper's experiments.
        vocabulary: ids that may be drafted; None: all.

    Differs from paper: the output rows stay the target's. Over EAGLE's decoder: :class:`Eagle` with ``layers=2``.
    Reference: Zhang et al. 2024, arXiv:2408.08146.

    >>> Koala(hidden_size=8, vocab_size=16, num_heads=2).layers
    2
    """

    kind = "koala"

    def __init__(
        self, *, hidden_size: int, vocab_size: int, num_heads: int = 4, layers: int = 2, vocabulary: Any = None
    ) -> None:
        super().__init__(
            hidden_size=hidden_size, vocab_size=vocab_size, num_heads=num_heads, layers=layers, vocabulary=vocabulary
        )
