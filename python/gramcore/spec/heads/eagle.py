"""EAGLE's auto-regression on features, with KOALA's several layers."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from gramcore._checks import check_int
from gramcore.spec.heads.base import DraftHeads
from gramcore.spec.heads.layers import CausalBlocks, KeyValues

__all__ = ["Eagle"]


class Eagle(DraftHeads):
    """Decoder layers that guess the target's next hidden state from its last ones and the tokens behind them.

    ``f_{t+1} = D_K(A [e(x_{t+1}); f_t])`` with ``D_K`` K causal transformer layers over all positions so far,
    ``logits = H f_{t+1}``; ``f`` of committed positions are the target's hidden states, of drafted ones its own
    guesses, whose keys and values stay on their path of the draft tree. e and H are the target's, frozen. One layer is
    EAGLE, more are KOALA over EAGLE; train it with ``HiddenLoss() + 0.1 * DistillLoss()``, KOALA with
    :class:`AdversarialLoss` beside. Parameters: ``(2 + 10 K) W^2``. Cost per node: those, ``H``, and attention over
    the text.

    Args:
        hidden_size, vocab_size: of the target; see :meth:`for_model`.
        num_heads: in [1, 64]; n, steps of a draft (one decoder makes all of them).
        layers: in [1, 64]; K.
        attention_heads: divides ``hidden_size / 2``.
        vocabulary: ids that may be drafted; None: all.

    Differs from paper: layers of Clover's augmenting block (pre-norm, MLP twice as wide, zero output projections, so
        that untrained heads repeat the last state) instead of the target's architecture; training unrolls the drafted
        steps.
    Reference: Li et al. 2024, arXiv:2401.15077 (EAGLE); Zhang et al. 2024, arXiv:2408.08146 (KOALA).

    >>> Eagle(hidden_size=8, vocab_size=16, attention_heads=2, layers=2).mix.weight.shape
    torch.Size([8, 16])
    """

    kind = "eagle"
    uses_history: ClassVar[bool] = True
    uses_following: ClassVar[bool] = True

    def __init__(
        self,
        *,
        hidden_size: int,
        vocab_size: int,
        num_heads: int = 3,
        layers: int = 1,
        attention_heads: int = 8,
        vocabulary: Any = None,
    ) -> None:
        super().__init__(hidden_size=hidden_size, vocab_size=vocab_size, num_heads=num_heads, vocabulary=vocabulary)
        self.layers = check_int("layers", layers, low=1, high=64)
        self.attention_heads = check_int("attention_heads", attention_heads, low=1, high=hidden_size)
        self.mix = nn.Linear(2 * hidden_size, hidden_size, bias=False)
        with torch.no_grad():
            self.mix.weight.copy_(torch.cat([torch.zeros(hidden_size, hidden_size), torch.eye(hidden_size)], 1))
        self.decoder = CausalBlocks(hidden_size, attention_heads, layers)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "layers": self.layers, "attention_heads": self.attention_heads}

    def context(
        self, hidden: torch.Tensor, past: Any = None, *, following: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Any]:
        if following is None:
            raise ValueError("following must be the tokens behind the states for eagle heads, got None")
        return self.decoder(self._mixed(following, hidden), past)

    def step(
        self,
        index: int,
        state: torch.Tensor,
        tokens: torch.Tensor,
        past: Any = None,
        at: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if index == 0:  # the context has read the root already
            return state, self.target_logits(state)
        path = state[:, self.hidden_size :].reshape(len(state), -1, self.layers, 2, self.hidden_size)
        mixed = self._mixed(tokens, state[:, : self.hidden_size])
        guess, pair = self.decoder.step(mixed, past, path, _places(past, len(state)) if at is None else at)
        return torch.cat([guess, path.flatten(1), pair.flatten(1)], -1), self.target_logits(guess)

    def guess(self, state: torch.Tensor) -> torch.Tensor:
        return state[..., : self.hidden_size]

    def _mixed(self, tokens: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        return self.mix(torch.cat([self.embed(tokens), states], -1))


def _places(past: KeyValues, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Every state behind all positions of its own sequence, or of the only one."""
    batch = past.layers[0][0].shape[0]
    rows = torch.arange(count) if batch == count else torch.zeros(count, dtype=torch.int64)
    return rows, torch.full((count,), len(past))
