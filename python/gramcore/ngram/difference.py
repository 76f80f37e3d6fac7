"""Taking documents down, and adding some, without building an index again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gramcore._checks import check_int
from gramcore.errors import FormatError
from gramcore.ngram.build import BuildReport, build_index
from gramcore.ngram.files import Description, shard_numbers
from gramcore.ngram.index import Ids, Index, Queries
from gramcore.ngram.results import Distribution, Probability
from gramcore.ngram.search import Document, Span, attribute, window

__all__ = ["IndexDifference", "append_index"]

_STEMS = ("tokenized", "offset", "metadata", "metaoff", "accel", "table")


class IndexDifference:
    """An index without the documents of a second one: counts are differences.

    Build the second index from the documents to take down, with the same tokenizer and version. Where it holds
    documents that the first does not, counts would be negative: ValueError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as taken:
    ...     _ = build_index([[1, 2], [1, 3]], whole), build_index([[1, 3]], taken)
    ...     left = IndexDifference(Index(whole), Index(taken))
    >>> left.count([1]), left.ntd([1]).token_ids.tolist()
    (1, [2])
    """

    def __init__(self, index: Index, minus: Index) -> None:
        if (index.version, index.token_dtype) != (minus.version, minus.token_dtype):
            raise ValueError(
                f"both indexes must have one version and token type, got {index.version} {index.token_dtype} and "
                f"{minus.version} {minus.token_dtype}"
            )
        self.index, self.minus = index, minus

    def count(self, ids: Ids) -> int:
        """Occurrences of an n-gram that are left."""
        return int(self._left(np.array([self.index.count(ids)]), np.array([self.minus.count(ids)]))[0])

    def count_batch(self, queries: Queries) -> npt.NDArray[np.int64]:
        """(Q,) counts that are left."""
        return self._left(self.index.count_batch(queries), self.minus.count_batch(queries))

    def suffix_counts(self, ids: Ids, *, max_len: int | None = None) -> npt.NDArray[np.int64]:
        """Counts of the last 0, 1, 2, ... tokens that are left."""
        return self._left(
            self.index.suffix_counts(ids, max_len=max_len), self.minus.suffix_counts(ids, max_len=max_len)
        )

    def prob(self, prompt_ids: Ids, cont_id: int) -> Probability:
        """n-gram probability over what is left; -1 when the prompt no longer occurs."""
        before, after = self.count_batch([prompt_ids, [*prompt_ids, cont_id]]).tolist()
        return Probability(before, after, after / before if before else -1.0, len(prompt_ids))

    def infgram_prob(self, prompt_ids: Ids, cont_id: int) -> Probability:
        """Probability after the longest suffix of the prompt that is left."""
        length = self._suffix_len(prompt_ids)
        return self.prob(prompt_ids[len(prompt_ids) - length :], cont_id)

    def _suffix_len(self, prompt_ids: Ids) -> int:
        left = np.flatnonzero(self.suffix_counts(prompt_ids))
        if not len(left):
            raise ValueError("the difference must hold at least one token, got none")
        return int(left[-1])

    def ntd(self, prompt_ids: Ids) -> Distribution:
        """Exact distribution of the next token over what is left."""
        whole, taken = self.index.ntd(prompt_ids), self.minus.ntd(prompt_ids)
        if not np.isin(taken.token_ids, whole.token_ids).all():
            raise ValueError("minus must hold only documents of the index, got others")
        counts = whole.cont_cnts.copy()
        counts[np.searchsorted(whole.token_ids, taken.token_ids)] -= taken.cont_cnts
        counts = self._left(counts, np.zeros_like(counts))
        kept = counts > 0
        prompt = int(self._left(np.array([whole.prompt_cnt]), np.array([taken.prompt_cnt]))[0])
        return Distribution(prompt, whole.token_ids[kept], counts[kept], len(prompt_ids))

    def infgram_ntd(self, prompt_ids: Ids) -> Distribution:
        """Exact distribution after the longest suffix of the prompt that is left."""
        length = self._suffix_len(prompt_ids)
        return self.ntd(prompt_ids[len(prompt_ids) - length :])

    def creativity(self, ids: Ids) -> npt.NDArray[np.int64]:
        """(T,) end of the longest stretch that begins at each token and is left (the position itself if none)."""
        self.index._forward("creativity")
        return self.index._native.match_ends(ids, self.minus._native)

    def attribute(
        self,
        ids: Ids,
        *,
        delim_ids: Ids = (),
        min_len: int = 1,
        max_cnt: int = 1000,
        bow_ids: frozenset[int] | None = None,
    ) -> list[Span]:
        """The longest stretches of a passage that are left; arguments as for :meth:`Index.attribute`.

        Counts and places of a span are those of the whole index, as in infini-gram; :meth:`windows` says which places
        are taken down.
        """
        return attribute(
            self.index,
            ids,
            delim_ids=delim_ids,
            min_len=min_len,
            max_cnt=max_cnt,
            bow_ids=bow_ids,
            minus=self.minus,
        )

    def windows(
        self, ids: Ids, places: Sequence[tuple[int, int]], *, max_ctx_len: int, needle_len: int | None = None
    ) -> list[Document | None]:
        """The documents at places (shard, position) of an n-gram, ``max_ctx_len`` tokens around it.

        None where some occurrence of the n-gram in ``minus`` has the same tokens around it: that place is taken down,
        or cannot be told from one that is.
        Args: needle_len: tokens of the match to show; None for ``len(ids)``.
        """
        length = len(ids) if needle_len is None else needle_len
        return [None if taken else d for d, taken in self._windows(ids, places, length, max_ctx_len)]

    def _windows(
        self, ids: Ids, places: Sequence[tuple[int, int]], needle_len: int, max_ctx_len: int
    ) -> list[tuple[Document, bool]]:
        """Documents, and whether each is taken down."""
        before = check_int("max_ctx_len", max_ctx_len, low=0)
        after = before + check_int("needle_len", needle_len, low=0)
        taken = {
            window(self.minus, shard, int(position), before=before, after=after).token_ids.tobytes()
            for shard, (begin, end) in enumerate(self.minus.find(ids).segment_by_shard)
            for position in self.minus._native.positions(shard, begin, end)
        }
        shown = [window(self.index, s, p, before=before, after=after) for s, p in places]
        return [(d, d.token_ids.tobytes() in taken) for d in shown]

    @staticmethod
    def _left(whole: npt.NDArray[np.int64], taken: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        left = whole - taken
        if (left < 0).any():
            raise ValueError("minus must hold only documents of the index, got others")
        return left


def append_index(source: Any, path: str | os.PathLike[str], **options: Any) -> BuildReport:
    """Add documents to an index as new shards; the existing shards are not touched.

    The new shards are built beside the old ones and moved in when they are whole; the description, which says how many
    shards count, is replaced last. Open the index again to see them.

    Args: source, options: as for :func:`build_index`; token type and version are those of the index.
    Returns: what was added; ``path`` is the index.
    Raises: FormatError when ``path`` holds no index built here; ValueError when another tokenizer cut its texts;
        errors of :func:`build_index`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as out:
    ...     _ = build_index([[1, 2]], out)
    ...     _ = append_index([[1, 3]], out)
    ...     Index(out).count([1])
    2
    """
    directory = Path(path)
    described = Description.read(directory)
    if described is None:
        raise FormatError(f"{directory}: must hold an index with a description, got none; build it here first")
    first = len(shard_numbers(directory, described))
    staging = directory / "append"
    if (staging / "gramcore-index.json").exists():  # built in full by a call that was killed before the move
        shutil.rmtree(staging)
    report = build_index(source, staging, token_dtype=described.token_dtype, version=described.version, **options)
    added = Description.read(staging)
    assert added is not None  # written by the build
    try:
        described.check_tokenizer(directory, added.tokenizer_mark)
    except ValueError:
        shutil.rmtree(staging)
        raise
    for number in range(report.num_shards):
        for stem in _STEMS:
            file = staging / f"{stem}.{number}"
            if file.exists():
                file.replace(directory / f"{stem}.{first + number}")
    Description(
        described.token_dtype,
        described.version,
        first + report.num_shards,
        described.num_documents + report.num_documents,
        described.num_tokens + report.num_tokens,
        described.tokenizer or added.tokenizer,
        described.tokenizer_mark or added.tokenizer_mark,
    ).write(directory)
    shutil.rmtree(staging)
    return replace(report, path=directory)
