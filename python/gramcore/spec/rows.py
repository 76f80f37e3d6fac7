"""The target's law at rows of a forward, and the numbers that draw from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gramcore._checks import check_int, check_real
from gramcore._core import spec as _native

__all__ = ["CounterRng", "Dice", "FloatArray", "IntArray", "Sampling", "TargetRows"]

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sampling:
    """The law of plain decoding: softmax of ``logits / temperature`` after top-k, top-p and min-p, in this order.

    Args:
        temperature: ``>= 0``; 0 is greedy.
        top_k: ``>= 0``; 0 keeps all tokens; ties with the k-th largest logit stay.
        top_p: in ``(0, 1]``; the smallest set, by probability then id, of mass ``>= top_p``.
        min_p: in ``[0, 1]``; keeps ``p >= min_p * max(p)``.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        check_real("temperature", self.temperature, low=0)
        check_int("top_k", self.top_k, low=0)
        check_real("top_p", self.top_p, low=0, high=1, low_open=True)
        check_real("min_p", self.min_p, low=0, high=1)


class CounterRng:
    """Random numbers that are named, not consumed: a pure function of seed, stream, output position and draw.

    Args:
        seed: any 64-bit integer.
        stream: ``>= 0``; the row of a batch.
    """

    def __init__(self, seed: int, stream: int = 0) -> None:
        self.seed = check_int("seed", seed) & (2**64 - 1)
        self.stream = check_int("stream", stream, low=0, high=2**31 - 1)
        #: Output position of the first token of this step; set by the loop.
        self.position = 0

    def uniform(self, offset: int = 0, draw: int = 0) -> float:
        """The number in ``[0, 1)`` for the token ``offset`` places after ``position``; ``draw`` tells several apart."""
        return _native.uniform(self.seed, self.position + offset, self.stream << 32 | draw)


class Dice:
    """The random decisions of one verification: rules say *what* is decided, this says how it falls.

    Args:
        rng: numbers by output position.
    """

    def __init__(self, rng: CounterRng) -> None:
        self._rng = rng
        self._offset = 0
        self._draws: dict[int, int] = {}

    def at(self, offset: int) -> Dice:
        """Decisions that follow concern the token ``offset`` places after the root.

        Numbers of an offset may be used only if the token there is emitted: the next step meets them again otherwise.
        """
        self._offset = offset
        return self

    def flip(self, probability: float) -> bool:
        """True with this probability; strictly: never when it is 0."""
        return self._uniform() < probability

    def pick(self, weights: FloatArray) -> int:
        """An index with probability proportional to ``weights``."""
        return _native.sample_weights(weights, self._uniform())

    def pick_row(self, rows: TargetRows, row: int) -> int:
        """A token of the target's law after ``row``."""
        return rows.draw(row, self._uniform())

    def _uniform(self) -> float:
        draw = self._draws.get(self._offset, 0)
        self._draws[self._offset] = draw + 1
        return self._rng.uniform(self._offset, draw)


class TargetRows:
    """The target's law at the root and at every node, with everything plain decoding would apply, computed on demand.

    Args:
        logits: ``(n + 1, V)`` float32, bfloat16 or float16 tensor or array.
        sampling: temperature and truncation.
        edit: ``edit(row_index, row) -> row``: processors and grammar, applied when a row is first looked at.
    """

    def __init__(
        self, logits: Any, sampling: Sampling | None = None, edit: Callable[[int, Any], Any] | None = None
    ) -> None:
        self._logits = logits
        self.sampling = sampling or Sampling()
        self._edit = edit
        self._rows: dict[int, Any] = {}

    @classmethod
    def from_probs(cls, probs: FloatArray) -> TargetRows:
        """Rows given as probabilities ``(n + 1, V)`` float64."""
        return _ProbRows(np.ascontiguousarray(probs, np.float64))

    def __len__(self) -> int:
        return int(self._logits.shape[0])

    def row(self, index: int) -> Any:
        """Logits of row ``index`` after processors and grammar, before temperature."""
        if index not in self._rows:
            raw = self._logits[index]
            self._rows[index] = raw if self._edit is None else self._edit(index, raw)
        return self._rows[index]

    def raw(self, index: int) -> Any:
        """Logits of row ``index`` as the model gave them."""
        return self._logits[index]

    def argmax(self, index: int) -> int:
        """The greedy token after row ``index``."""
        return _native.argmax_row(self.row(index))

    def draw(self, index: int, u: float) -> int:
        """The token at quantile ``u`` of the law after row ``index``."""
        s = self.sampling
        return _native.sample_row(self.row(index), s.temperature, s.top_k, s.top_p, s.min_p, u)

    def prob(self, index: int, token: int) -> float:
        """The probability of one token after row ``index``; one pass over the row, no array."""
        s = self.sampling
        return _native.prob_row(self.row(index), s.temperature, s.top_k, s.top_p, s.min_p, token)

    def probs(self, index: int) -> FloatArray:
        """The law after row ``index``, ``(V,)`` float64."""
        s = self.sampling
        return _native.probs_row(self.row(index), s.temperature, s.top_k, s.top_p, s.min_p)


class _ProbRows(TargetRows):
    """Rows that are probabilities already."""

    def argmax(self, index: int) -> int:
        return int(np.argmax(self._logits[index]))

    def draw(self, index: int, u: float) -> int:
        return _native.sample_weights(self._logits[index], u)

    def prob(self, index: int, token: int) -> float:
        return float(self._logits[index, token])

    def probs(self, index: int) -> FloatArray:
        return self._logits[index]
