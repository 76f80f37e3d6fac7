"""Drafting over the frequent part of a vocabulary: which ids, and trees built in that smaller space."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gramcore._checks import check_int
from gramcore.spec.base import CounterRng, DraftTree, FloatArray
from gramcore.spec.trees import Laws, TreeBuilder

__all__ = ["FrequencyVocabulary", "build_over", "vocabulary_ids"]

IdArray = npt.NDArray[np.int64]


class FrequencyVocabulary:
    """FR-Spec: the ids F that a draft may propose, usually the most frequent ones of a text.

    The draft's law is ``q(x) = exp(z_x) / sum_{y in F} exp(z_y)`` for x in F and 0 elsewhere; only the head's rows in
    F are computed, |F| / V of its cost. The target is untouched, so verification keeps its law; tokens outside F are
    simply never drafted.

    Args:
        ids: the members of F, any order.
        vocab_size: V; all ids are in [0, V).

    Raises:
        ValueError: no ids, or an id outside the vocabulary.

    Differs from paper: F may come from any counts; ties go to the lower id.
    Reference: Zhao et al. 2025, arXiv:2502.14856 (FR-Spec).

    >>> FrequencyVocabulary.from_counts([5, 0, 9, 1], 2, keep=[1]).ids.tolist()
    [1, 2]
    """

    def __init__(self, ids: Sequence[int] | npt.NDArray[np.integer], vocab_size: int) -> None:
        self.vocab_size = check_int("vocab_size", vocab_size, low=1)
        self.ids: IdArray = np.unique(np.asarray(ids, np.int64))
        if not len(self.ids) or self.ids[0] < 0 or self.ids[-1] >= self.vocab_size:
            raise ValueError(f"vocabulary must be ids in [0, {self.vocab_size}), got {ids!r}")

    @classmethod
    def from_counts(cls, counts: npt.ArrayLike, r: int, *, keep: Iterable[int] = ()) -> FrequencyVocabulary:
        """The ``keep`` ids and the most counted others, ``r`` in all.

        Args:
            counts: ``(V,)`` occurrences of every id, ``>= 0``.
            r: in [1, V]; size of F.
            keep: ids that belong to F whatever their count, for example the end of text; at most ``r``.
        """
        table = np.asarray(counts, np.float64)
        if table.ndim != 1 or not np.isfinite(table).all() or (table < 0).any():
            raise ValueError(f"counts must be one number >= 0 per id, got an array of shape {table.shape}")
        check_int("r", r, low=1, high=len(table))
        forced = cls(list(keep), len(table)).ids if (keep := list(keep)) else np.empty(0, np.int64)
        if len(forced) > r:
            raise ValueError(f"keep must be at most r = {r} ids, got {len(forced)}")
        table[forced] = np.inf
        return cls(np.argsort(-table, kind="stable")[:r], len(table))

    @classmethod
    def from_text(
        cls, texts: str | Iterable[str], tokenizer: Any, r: int, *, vocab_size: int, keep: Iterable[int] = ()
    ) -> FrequencyVocabulary:
        """The most frequent ids of texts under a transformers tokenizer; its end of text is kept.

        Args:
            texts: one text or many.
            tokenizer: called with a text, gives ``input_ids``.
            r: in [1, vocab_size].
            vocab_size: V of the model (may exceed the tokenizer's).
            keep: further ids that must belong.
        """
        counts = np.zeros(check_int("vocab_size", vocab_size, low=1), np.int64)
        for text in [texts] if isinstance(texts, str) else texts:
            counts += np.bincount(np.asarray(tokenizer(text)["input_ids"], np.int64), minlength=vocab_size)
        end = getattr(tokenizer, "eos_token_id", None)
        return cls.from_counts(counts, r, keep=[*keep, *([] if end is None else [end])])

    def __len__(self) -> int:
        return len(self.ids)

    def coverage(self, ids: npt.ArrayLike) -> float:
        """Share of these tokens that lie in F: no drafter over F can have a larger share accepted."""
        tokens = np.asarray(ids)
        return float(np.isin(tokens, self.ids).mean()) if tokens.size else 0.0

    def index(self, ids: npt.ArrayLike) -> IdArray:
        """Place of every id in ``ids``, -1 outside F."""
        tokens = np.asarray(ids, np.int64)
        place = np.minimum(np.searchsorted(self.ids, tokens), len(self.ids) - 1)
        return np.where(self.ids[place] == tokens, place, -1)


def vocabulary_ids(vocabulary: Any, vocab_size: int) -> FrequencyVocabulary | None:
    """None, a :class:`FrequencyVocabulary` of this size, or ids, as one of the first two."""
    if vocabulary is None:
        return None
    if isinstance(vocabulary, FrequencyVocabulary):
        if vocabulary.vocab_size != vocab_size:
            raise ValueError(f"vocabulary must be of a model with {vocab_size} ids, got {vocabulary.vocab_size}")
        return vocabulary
    return FrequencyVocabulary(list(vocabulary), vocab_size)


def build_over(
    vocabulary: FrequencyVocabulary | None, builder: TreeBuilder, laws: Laws, budget: int, rng: CounterRng
) -> DraftTree:
    """Grow a tree from laws over F (``(n + 1, |F|)``); ids and laws of the result are those of the whole vocabulary.

    ``laws`` is called with trees of real ids. With None it already speaks about all ids.
    """
    if vocabulary is None:
        return builder.build(laws, budget, rng)
    tree = builder.build(_Indexed(vocabulary.ids, laws), budget, rng)
    logq: FloatArray | None = None
    if tree.logq is not None:
        logq = np.full((len(tree) + 1, vocabulary.vocab_size), -np.inf)
        logq[:, vocabulary.ids] = tree.logq
    return DraftTree(vocabulary.ids[tree.tokens].astype(np.int32), tree.parents, logq, tree.scheme, tree.strength)


class _Indexed:
    """Laws asked with places in F instead of ids."""

    def __init__(self, ids: IdArray, laws: Laws) -> None:
        self._ids, self._laws = ids, laws

    def __call__(self, tree: DraftTree) -> FloatArray:
        return self._laws(DraftTree(self._ids[tree.tokens].astype(np.int32), tree.parents))

    @property
    def hidden(self) -> Any:
        return self._laws.hidden  # type: ignore[attr-defined]
