"""Clover: regressive heads with an attention decoder and an augmenting block."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from gramcore._checks import check_int
from gramcore.spec.heads.base import DraftHeads
from gramcore.spec.heads.layers import CausalBlocks, ResidualBlocks, TokenAttention

__all__ = ["Clover"]


class Clover(DraftHeads):
    """Heads in a row: each state looks at the token before it, after a transformer layer over the text's states.

    ``u_{1..t} = Aug(h_{1..t})`` (causal transformer layers), ``s_0 = u_t``,
    ``s_i = s_{i-1} + cos(Q norm(s_{i-1}), K e_{i-1}) V e_{i-1}`` (attention decoder; e the target's embedding of the
    last token), ``logits_i = H (s_i + SiLU(M_i s_i))``; H and the embedding stay the target's.

    Args:
        hidden_size, vocab_size: of the target; see :meth:`for_model`.
        num_heads: in [1, 64]; n.
        blocks: in [0, 64]; layers of the augmenting block.
        attention_heads: divides ``hidden_size / 2``.
        vocabulary: ids that may be drafted; None: all.

    Differs from paper: the attention decoder is that of Clover-2's code (cosine with one key; K starts as the identity,
        V near 0), shared by the heads; the augmenting block and the M_i start as the identity.
    Reference: Xiao et al. 2024, arXiv:2405.00263 and arXiv:2408.00264 (Clover-2; train with :class:`HiddenLoss`).

    >>> Clover(hidden_size=8, vocab_size=16, num_heads=2, attention_heads=2).blocks
    1
    """

    kind = "clover"
    uses_history: ClassVar[bool] = True

    def __init__(
        self,
        *,
        hidden_size: int,
        vocab_size: int,
        num_heads: int = 3,
        blocks: int = 1,
        attention_heads: int = 8,
        vocabulary: Any = None,
    ) -> None:
        super().__init__(hidden_size=hidden_size, vocab_size=vocab_size, num_heads=num_heads, vocabulary=vocabulary)
        self.blocks = check_int("blocks", blocks, low=0, high=64)
        self.attention_heads = check_int("attention_heads", attention_heads, low=1, high=hidden_size)
        self.augment = CausalBlocks(hidden_size, attention_heads, blocks)
        self.decoder = TokenAttention(hidden_size, attention_heads)
        self.mixers = nn.ModuleList(ResidualBlocks(hidden_size, 1) for _ in range(self.num_heads))

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "blocks": self.blocks, "attention_heads": self.attention_heads}

    def context(
        self, hidden: torch.Tensor, past: Any = None, *, following: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Any]:
        return self.augment(hidden, past)

    def step(
        self,
        index: int,
        state: torch.Tensor,
        tokens: torch.Tensor,
        past: Any = None,
        at: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        state = self.decoder(state, self.embed(tokens))
        return state, self.target_logits(self.mixers[index](state))
