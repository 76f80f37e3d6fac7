"""What queries return: plain records of numbers and arrays, with infini-gram's field names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Distribution", "DistributionBatch", "Found", "Probability", "Score"]


@dataclass(slots=True)
class Found:
    """Where an n-gram lies in the rank order of each shard."""

    cnt: int
    segment_by_shard: list[tuple[int, int]]


@dataclass(slots=True)
class Probability:
    """cont_cnt / prompt_cnt; ``prob`` is -1 when the prompt does not occur.

    ``suffix_len`` is the number of prompt tokens the counts are for: all of them, or those of the longest suffix that
    occurs.
    """

    prompt_cnt: int
    cont_cnt: int
    prob: float
    suffix_len: int


@dataclass(slots=True)
class Distribution:
    """Tokens that follow a prompt, exactly counted.

    ``token_ids`` ascend, or descend by count when ``top`` was given. Where the prompt is the end of a shard nothing
    follows, so counts may sum to less than ``prompt_cnt``.
    """

    prompt_cnt: int
    token_ids: npt.NDArray[np.uint32]
    cont_cnts: npt.NDArray[np.int64]
    suffix_len: int

    @property
    def probs(self) -> npt.NDArray[np.float64]:
        """cont_cnts / prompt_cnt."""
        return self.cont_cnts / max(self.prompt_cnt, 1)


@dataclass(slots=True)
class DistributionBatch:
    """Distributions of many prompts: that of prompt i is at [offsets[i], offsets[i + 1])."""

    prompt_cnts: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    token_ids: npt.NDArray[np.uint32]
    cont_cnts: npt.NDArray[np.int64]


@dataclass(slots=True)
class Score:
    """Infini-gram probabilities of the tokens of a passage, each after the longest suffix that occurs before it."""

    suffix_len: npt.NDArray[np.int64]
    prompt_cnt: npt.NDArray[np.int64]
    cont_cnt: npt.NDArray[np.int64]

    @property
    def prob(self) -> npt.NDArray[np.float64]:
        """cont_cnt / prompt_cnt of each token."""
        return self.cont_cnt / self.prompt_cnt

    @property
    def logprob(self) -> npt.NDArray[np.float64]:
        """Natural logarithm of ``prob``; -inf where the token never follows."""
        with np.errstate(divide="ignore"):
            return np.log(self.prob)
