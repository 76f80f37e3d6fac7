"""What trainable draft heads share: sizes, the target's frozen embedding and output rows, training rollouts.

A head of index i at position t reads the target's last hidden state ``h_t`` (after the final norm; it predicted
``x_{t+1}``) and, if it is regressive, the tokens ``x_{t+1} .. x_{t+1+i}``; it predicts ``x_{t+2+i}``. In decoding
``x_{t+1}`` is the root of the draft tree and the later ones are drafted tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from gramcore._checks import check_int
from gramcore.spec.base import Drafter
from gramcore.spec.restrict import head_weight, rows_of
from gramcore.spec.trees import TreeBuilder
from gramcore.spec.vocabulary import FrequencyVocabulary, vocabulary_ids

__all__ = ["Batch", "DraftHeads", "Rollout", "TrainableDraft"]

MAX_HEADS = 64
MAX_WIDTH = 1 << 17


@dataclass(frozen=True)
class Batch:
    """Text the frozen target has read: ``ids (B, T)`` int64, ``hidden (B, T, W)`` float32."""

    ids: torch.Tensor
    hidden: torch.Tensor


@dataclass(frozen=True)
class Rollout:
    """Teacher-forced predictions at P positions: ``logits[i] (B, P, R)`` for ``x_{t+2+i}``, states ``(B, P, W)``."""

    logits: list[torch.Tensor]
    states: list[torch.Tensor]


class TrainableDraft(nn.Module, ABC):
    """A trained part that drafts for one target model.

    ``hidden_size`` W, ``vocab_size`` V, ``num_heads`` n (longest draft), ``vocabulary`` F or None, R = |F| or V.
    The target's embedding and its output rows in F are frozen, not stored, and taken from the model by :meth:`attach`.
    """

    kind: ClassVar[str]

    def __init__(self, *, hidden_size: int, vocab_size: int, num_heads: int, vocabulary: Any = None) -> None:
        super().__init__()
        self.hidden_size = check_int("hidden_size", hidden_size, low=1, high=MAX_WIDTH)
        self.vocab_size = check_int("vocab_size", vocab_size, low=1, high=1 << 24)
        self.num_heads = check_int("num_heads", num_heads, low=1, high=MAX_HEADS)
        self.vocabulary: FrequencyVocabulary | None = vocabulary_ids(vocabulary, self.vocab_size)
        self.target_rows: torch.Tensor
        self.target_bias: torch.Tensor | None
        self.target_embedding: torch.Tensor
        for name in ("target_rows", "target_bias", "target_embedding"):
            self.register_buffer(name, None, persistent=False)

    @property
    def num_rows(self) -> int:
        """R, the number of ids that can be drafted."""
        return self.vocab_size if self.vocabulary is None else len(self.vocabulary)

    def attach(self, model: Any) -> None:
        """Take what is frozen from the target.

        Raises:
            ValueError: a model of another width or vocabulary.
        """
        weight, bias = head_weight(model)
        if tuple(weight.shape) != (self.vocab_size, self.hidden_size):
            raise ValueError(
                f"model must have an output layer of shape ({self.vocab_size}, {self.hidden_size}), got "
                f"{tuple(weight.shape)}; load the heads with the model they were made for"
            )
        embedding = model.get_input_embeddings()
        table = getattr(embedding, "weight", None)
        table = table if isinstance(table, torch.Tensor) else embedding(torch.arange(self.vocab_size))
        if self.vocabulary is not None:
            weight, bias = rows_of(weight, bias, self.vocabulary)
        self.target_rows = weight.float()
        self.target_bias = None if bias is None else bias.float()
        self.target_embedding = table.detach().float()

    def target_logits(self, states: torch.Tensor) -> torch.Tensor:
        """``(..., R)`` logits that the target's own output layer gives to hidden states."""
        return nn.functional.linear(states, self.target_rows, self.target_bias)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """The target's embedding of real ids."""
        return nn.functional.embedding(tokens, self.target_embedding)

    def places(self, tokens: torch.Tensor) -> torch.Tensor:
        """Column of every id in the logits, -1 for ids outside F."""
        if self.vocabulary is None:
            return tokens
        return torch.from_numpy(self.vocabulary.index(tokens.numpy()))

    def settings(self) -> dict[str, Any]:
        """Arguments that make an empty copy, as JSON."""
        return {
            "hidden_size": self.hidden_size,
            "vocab_size": self.vocab_size,
            "num_heads": self.num_heads,
            "vocabulary": None if self.vocabulary is None else self.vocabulary.ids.tolist(),
        }

    def target(self, model: Any) -> Any:
        """What ``generate`` takes in place of the model; default: the model itself."""
        return model

    @abstractmethod
    def drafter(self, *, builder: TreeBuilder | None = None) -> Drafter:
        """A drafter with this part; ``builder`` decides its trees."""

    @abstractmethod
    def rollout(self, batch: Batch, positions: torch.Tensor) -> Rollout:
        """Predictions at ``positions`` ``(P,)``, each in [0, T - 2 - n]."""


class DraftHeads(TrainableDraft):
    """Heads on the target's hidden state: features of the text, then one state per drafted token."""

    #: Whether features depend on earlier hidden states too (:meth:`context` then keeps a past).
    uses_history: ClassVar[bool] = False
    #: Whether features depend on the token that follows each state.
    uses_following: ClassVar[bool] = False
    #: Whether head i + 1 depends on the token chosen for head i.
    regressive: ClassVar[bool] = True

    @classmethod
    def for_model(cls, model: Any, *, seed: int = 0, **settings: Any) -> DraftHeads:
        """Untrained heads for a transformers model.

        Args:
            model: the target.
            seed: of the initial weights.
            settings: the constructor's, without the sizes of the model.
        """
        weight, _ = head_weight(model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            heads = cls(hidden_size=weight.shape[1], vocab_size=weight.shape[0], **settings)
        heads.attach(model)
        heads.start()
        return heads.eval()

    def drafter(self, *, builder: TreeBuilder | None = None) -> Drafter:
        from gramcore.spec.heads.drafter import HeadDrafter

        return HeadDrafter(self, builder=builder)

    def start(self) -> None:
        """Take initial values from the attached target; default: none."""

    def context(
        self, hidden: torch.Tensor, past: Any = None, *, following: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Any]:
        """Features ``(B, T, W)`` of new hidden states after ``past``, and the longer past.

        ``following`` are the tokens ``(B, T)`` behind the states; heads without ``uses_following`` do not look at them.
        """
        return hidden, past

    @abstractmethod
    def step(
        self,
        index: int,
        state: torch.Tensor,
        tokens: torch.Tensor,
        past: Any = None,
        at: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One head: states ``(N, W')`` and the last tokens ``(N,)`` to new states and logits ``(N, R)``.

        For ``index`` 0 the state is the feature of the row that predicted the root, and the token the root. ``past`` is
        what :meth:`context` kept of the text; ``at``, for heads that look back at it, are each state's sequence in it
        and how many of its positions it sees (default: all of its own sequence, or of the only one).
        """

    def rollout(self, batch: Batch, positions: torch.Tensor) -> Rollout:
        following = torch.cat([batch.ids[:, 1:], batch.ids[:, -1:]], 1)  # that of the last position is not used
        features, past = self.context(batch.hidden, following=following)
        count, shape = len(batch.ids), (len(batch.ids), len(positions), -1)
        at = torch.arange(count).repeat_interleave(len(positions)), (positions + 1).repeat(count)
        state = features[:, positions].flatten(0, 1)
        out = Rollout([], [])
        for i in range(self.num_heads):
            state, logits = self.step(i, state, batch.ids[:, positions + 1 + i].flatten(), past, at)
            out.logits.append(logits.view(shape))
            out.states.append(self.guess(state).view(shape))
        return out

    def guess(self, state: torch.Tensor) -> torch.Tensor:
        """The part of states that losses on hidden states look at; default: all of it."""
        return state
