"""Infini-gram probabilities mixed into a neural language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gramcore._checks import check_int, check_real
from gramcore.ngram.index import Ids, Index

if TYPE_CHECKING:
    import torch

__all__ = ["InfinigramLogitsProcessor", "Weights", "interpolate", "tune_weights"]


@dataclass(frozen=True)
class Weights:
    """Share of the infini-gram estimate in [0, 1]: ``sparse`` where one token has all its mass, ``dense`` elsewhere."""

    sparse: float
    dense: float

    def __post_init__(self) -> None:
        check_real("sparse", self.sparse, low=0, high=1)
        check_real("dense", self.dense, low=0, high=1)


def interpolate(
    infgram: npt.NDArray[np.float64],
    neural: npt.NDArray[np.float64],
    sparse: npt.NDArray[np.bool_],
    weights: Weights,
) -> npt.NDArray[np.float64]:
    """lambda P_infgram + (1 - lambda) P_neural, lambda = ``weights.sparse`` where ``sparse``, else ``weights.dense``.

    Args: infgram, neural: probabilities of the same shape; sparse: of that shape, or of it without the last axis.
    Reference: Liu et al. 2024, arXiv:2401.17377, section 5.

    >>> interpolate(np.array([1.0, 0.5]), np.array([0.5, 0.5]), np.array([True, False]), Weights(0.5, 0.1)).tolist()
    [0.75, 0.5]
    """
    share = np.where(sparse, weights.sparse, weights.dense)
    if share.ndim == infgram.ndim - 1:
        share = share[..., None]
    return share * infgram + (1 - share) * neural


def tune_weights(
    infgram: npt.NDArray[np.float64], neural: npt.NDArray[np.float64], sparse: npt.NDArray[np.bool_]
) -> Weights:
    """Weights that minimise the log-loss of held-out tokens.

    The loss is a sum over sparse and dense tokens apart, and convex in each weight: golden-section search to 1e-6.

    Args: infgram, neural: (T,) probability of each held-out token under either model, neural > 0; sparse: (T,).

    >>> tune_weights(np.array([1.0, 0.0]), np.array([0.5, 0.5]), np.array([False, True]))
    Weights(sparse=0.0, dense=1.0)
    """
    if not (neural > 0).all():
        raise ValueError(f"neural must be > 0 everywhere, got {neural.min()}; check the model's probabilities")

    def best(mask: npt.NDArray[np.bool_]) -> float:
        p, q = infgram[mask], neural[mask]
        if not len(p):
            return 0.0

        def loss(weight: float) -> float:
            mixed = weight * p + (1 - weight) * q
            return float(-np.log(mixed).sum()) if (mixed > 0).all() else float("inf")

        low, high, golden = 0.0, 1.0, (5**0.5 - 1) / 2
        while high - low > 1e-6:
            left, right = high - golden * (high - low), low + golden * (high - low)
            if loss(left) <= loss(right):
                high = right
            else:
                low = left
        candidates = [0.0, (low + high) / 2, 1.0]
        return min(candidates, key=loss)

    return Weights(best(sparse), best(~sparse))


class InfinigramLogitsProcessor:
    """Mixes an index's infini-gram distribution into the next-token scores of ``transformers.generate``.

    For each sequence, P = lambda P_infgram + (1 - lambda) softmax(scores); the result is log P. P_infgram is the exact
    distribution after the longest suffix (at most ``max_context`` tokens) that occurs in the index; separators are
    counted for ``eos_token_id``. Where that suffix is shorter than ``min_suffix``, the scores are only normalised.

    Args: index: forward (version 4), built with the model's own tokenizer. weights: see :func:`tune_weights`.
    Shapes: input_ids (B, T) int64, scores (B, V) -> (B, V) float32.
    Raises: IndexError when the index holds ids beyond the model's vocabulary.
    Reference: Liu et al. 2024, arXiv:2401.17377, section 5.
    """

    def __init__(
        self,
        index: Index,
        weights: Weights,
        *,
        eos_token_id: int | None = None,
        max_context: int = 64,
        min_suffix: int = 1,
    ) -> None:
        self.index = index
        self.weights = weights
        self.eos_token_id = eos_token_id
        self.max_context = check_int("max_context", max_context, low=1)
        self.min_suffix = check_int("min_suffix", min_suffix, low=0)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities of the mixture."""
        import torch

        logprobs = torch.log_softmax(scores.float(), dim=-1)
        for row, ids in enumerate(input_ids[:, -self.max_context :].tolist()):
            found = self.distribution(ids, scores.shape[-1])
            if found is None:
                continue
            probs, sparse = found
            share = self.weights.sparse if sparse else self.weights.dense
            mixed = share * torch.from_numpy(probs).to(logprobs.device) + (1 - share) * logprobs[row].exp()
            logprobs[row] = mixed.log()
        return logprobs

    def distribution(self, ids: Ids, vocab_size: int) -> tuple[npt.NDArray[np.float32], bool] | None:
        """(V,) infini-gram probabilities after ``ids`` and whether they are sparse; None below ``min_suffix``."""
        found = self.index.infgram_ntd(ids)
        tokens, counts = found.token_ids.astype(np.int64), found.cont_cnts
        ends = tokens == self.index.separator
        if self.eos_token_id is not None:
            tokens = np.where(ends, self.eos_token_id, tokens)
        else:
            tokens, counts = tokens[~ends], counts[~ends]
        if found.suffix_len < self.min_suffix or not len(tokens):
            return None
        if int(tokens.max()) >= vocab_size:
            raise IndexError(
                f"index ids must be < the model's {vocab_size} logits, got {int(tokens.max())}; "
                "build the index with the model's tokenizer"
            )
        probs = np.zeros(vocab_size, np.float32)
        np.add.at(probs, tokens, counts / counts.sum())
        return probs, bool(np.count_nonzero(probs) == 1)


def held_out_probabilities(
    index: Index, passages: Sequence[Ids]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Infini-gram probability of every token of held-out passages, and where the estimate is sparse."""
    probs: list[npt.NDArray[np.float64]] = []
    sparse: list[npt.NDArray[Any]] = []
    for ids in passages:
        probs.append(index.score(ids).prob)
        sparse.append(np.array([len(index.infgram_ntd(ids[:i], top=2).token_ids) == 1 for i in range(len(ids))]))
    return np.concatenate(probs), np.concatenate(sparse)
