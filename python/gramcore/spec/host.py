"""What the loop needs from a target model: any decoder that keeps a cache and can verify trees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gramcore.spec.base import IntArray

__all__ = ["Host", "TreeOutput"]


@dataclass
class TreeOutput:
    """Per sequence logits ``(R, V)`` on the CPU and, if asked for, last hidden states ``(R, width)``.

    A sequence of tensors, or one tensor ``(B, R, ...)`` with any rows behind those that a sequence has. Row 0 of a tree
    forward is the root, row ``i + 1`` node ``i``.
    """

    logits: Any
    hidden: Any = None


class Host(ABC):
    """A target model with a cache. The loop calls ``open``, once ``prefill``, then ``forward`` and ``commit`` in turn.

    Attributes:
        vocab_size: width of the logits.
        context_limit: longest sequence, or None.
    """

    vocab_size: int
    context_limit: int | None

    @property
    def model_key(self) -> Any:
        """By which object :func:`row_costs` remembers what rows cost here; hashable by identity. Default: the host."""
        return self

    @abstractmethod
    def open(self, batch: int, capacity: int, *, want_hidden: bool = False) -> None:
        """Start a batch of empty sequences with room for ``capacity`` slots each, tree rows included.

        Raises:
            ValueError: the model cannot hold trees over that many slots.
        """

    @abstractmethod
    def prefill(self, prompts: Sequence[IntArray]) -> TreeOutput | None:
        """Read a prompt (possibly empty) per sequence.

        Returns:
            Per sequence logits whose last row follows the prompt (none for an empty one), and, if asked for, hidden
            states of all its tokens; None when every prompt is empty.
        """

    @abstractmethod
    def forward(self, roots: Sequence[int], trees: Sequence[tuple[IntArray, IntArray]]) -> TreeOutput:
        """Compute root and nodes of every sequence; ``trees`` are ``(tokens, parents)``."""

    def forward_embedded(
        self, roots: Sequence[int], trees: Sequence[tuple[IntArray, IntArray]], extra: Any, keep: Sequence[int]
    ) -> TreeOutput:
        """As :meth:`forward`; ids from ``vocab_size`` on name rows of ``extra``, a ``(E, width)`` float32 tensor.

        Logits are needed of the first ``keep[b]`` rows of sequence b, hidden states of all.

        Raises:
            TypeError: the host takes ids only (the default).
        """
        raise TypeError(f"model must take embedding rows for prompt tokens, got {type(self).__name__}, which takes ids")

    @abstractmethod
    def commit(self, sequence: int, path: IntArray) -> None:
        """Keep the root and the nodes of ``path`` from the last forward, drop its other rows."""

    @abstractmethod
    def select(self, sequences: Sequence[int]) -> None:
        """Go on with these sequences of the batch only, in this order."""
