"""Language models that rescore what heads guessed independently of each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gramcore._checks import check_int
from gramcore._hf import last_logits_argument
from gramcore.spec.base import FloatArray, IntArray

__all__ = ["ModelRescorer", "NgramRescorer", "Rescorer"]

Path = tuple[int, ...]


class Rescorer(ABC):
    """Scores continuations. State follows committed tokens only."""

    @abstractmethod
    def score(self, text: IntArray, paths: Sequence[Path], candidates: IntArray) -> FloatArray:
        """``(len(paths), len(candidates))`` log-probabilities of each candidate after the text and each path.

        Args:
            text: committed tokens.
            paths: drafted tokens behind it, all of the same length.
            candidates: ids.
        """

    @abstractmethod
    def fork(self) -> Rescorer:
        """The same settings and shared data, and an empty history."""

    def observe(self, accepted: IntArray) -> None:  # noqa: B027
        """Take note of committed tokens; default: nothing."""

    def rollback(self, n: int) -> None:  # noqa: B027
        """Forget the last ``n`` of them; default: nothing."""


class NgramRescorer(Rescorer):
    """An n-gram model of the request's own text, and of a corpus if given.

    Interpolated by Witten and Bell's rule, u a context and u' the context without its first token:
    ``P(x | u) = (c(u x) + d(u) P(x | u')) / (c(u) + d(u))``, c counts, d(u) the number of different tokens seen after
    u, ``P(x) = (c(x) + d / V) / (c + d)`` at the bottom. Cost per probability: O(order).

    Args:
        vocab_size: ``>= 1``; V.
        order: ``>= 1``; longest n-gram.
        corpus: sequences of ids counted once and shared by forks.

    Reference: Witten, Bell 1991, IEEE Transactions on Information Theory 37(4), method C.

    >>> NgramRescorer(vocab_size=4, order=1).score(np.int32([]), [()], np.int32([2])).round(2).tolist()
    [[-1.39]]
    """

    def __init__(
        self, *, vocab_size: int, order: int = 3, corpus: Sequence[Sequence[int] | npt.NDArray[np.integer]] = ()
    ) -> None:
        self.vocab_size = check_int("vocab_size", vocab_size, low=1)
        self.order = check_int("order", order, low=1)
        self._shared = _Counts()
        for sequence in corpus:
            ids = [int(t) for t in sequence]
            for i in range(len(ids)):
                self._shared.add(ids[max(0, i + 1 - self.order) : i + 1], 1)
        self._own = _Counts()
        self._text: list[int] = []

    def score(self, text: IntArray, paths: Sequence[Path], candidates: IntArray) -> FloatArray:
        known = [int(t) for t in text[max(0, len(text) + 1 - self.order) :]] if self.order > 1 else []
        out = np.empty((len(paths), len(candidates)))
        for row, path in enumerate(paths):
            context = [*known, *path]
            context = context[len(context) + 1 - self.order :] if len(context) >= self.order else context
            out[row] = np.log(self._after(tuple(context), candidates))
        return out

    def _after(self, context: Path, candidates: IntArray) -> FloatArray:
        law = np.full(len(candidates), 1.0 / self.vocab_size)
        for start in range(len(context), -1, -1):
            rows = [t.after.get(context[start:]) for t in (self._shared, self._own)]
            seen = [row for row in rows if row]
            if not seen:
                break  # longer contexts were not seen either
            total = sum(sum(row.values()) for row in seen)
            different = len(seen[0]) if len(seen) == 1 else len(seen[0].keys() | seen[1].keys())
            counts = [sum(row.get(int(c), 0) for row in seen) for c in candidates]
            law = (np.array(counts) + different * law) / (total + different)
        return law

    def observe(self, accepted: IntArray) -> None:
        for token in accepted:
            self._text.append(int(token))
            self._own.add(self._text[-self.order :], 1)

    def rollback(self, n: int) -> None:
        for _ in range(min(n, len(self._text))):
            self._own.add(self._text[-self.order :], -1)
            self._text.pop()

    def fork(self) -> NgramRescorer:
        made = NgramRescorer(vocab_size=self.vocab_size, order=self.order)
        made._shared = self._shared
        return made


class _Counts:
    """How often each token followed each context."""

    def __init__(self) -> None:
        self.after: dict[Path, dict[int, int]] = {}

    def add(self, gram: Sequence[int], times: int) -> None:
        """Count the last token behind all suffixes of what precedes it."""
        token = gram[-1]
        for start in range(len(gram)):
            context = tuple(gram[start:-1])
            row = self.after.setdefault(context, {})
            row[token] = row.get(token, 0) + times
            if row[token] <= 0:
                del row[token]
                if not row:
                    del self.after[context]


class ModelRescorer(Rescorer):
    """A small causal language model that sees the last tokens of the text and the path; one forward per head.

    Args:
        model: a transformers causal language model with the target's vocabulary, in evaluation mode.
        context: ``>= 1``; tokens of the text it sees.
    """

    def __init__(self, model: Any, *, context: int = 32) -> None:
        self.model = model
        self.context = check_int("context", context, low=1)
        self._extra = last_logits_argument(model)

    def score(self, text: IntArray, paths: Sequence[Path], candidates: IntArray) -> FloatArray:
        known = [int(t) for t in text[-self.context :]]
        ids = torch.tensor([[*known, *path] for path in paths])
        with torch.inference_mode():
            logits = self.model(input_ids=ids, use_cache=False, **self._extra).logits[:, -1].double()
        return torch.log_softmax(logits, -1)[:, torch.as_tensor(candidates).long()].numpy()

    def fork(self) -> ModelRescorer:
        return self
