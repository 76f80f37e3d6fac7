"""SEAL: retrieval by generating n-grams that occur in the corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gramcore._checks import check_int, check_real
from gramcore.ngram.fm import FMIndex, Rows
from gramcore.ngram.index import Ids

__all__ = ["Retrieved", "SealRetriever", "model_scorer"]

#: n-grams in, natural-log probabilities of the next token out, (B, V).
NextLogprobs: TypeAlias = Callable[[Sequence[Sequence[int]]], npt.NDArray[np.floating]]


@dataclass(slots=True)
class Retrieved:
    """A document, its score, and the n-grams that brought it up with their weights."""

    document: int
    score: float
    ngrams: list[tuple[tuple[int, ...], float]] = field(default_factory=list)


class SealRetriever:
    """Finds documents by constrained beam search over the n-grams they contain.

    1. Beam search for ``max_len`` tokens in which each n-gram may only go on with tokens that follow it in the corpus;
       every n-gram visited is kept with log P(n | query).
    2. Weight w(n) = max(0, log(P(n|q) (1 - F(n))) - log(F(n) (1 - P(n|q)))), F(n) = count / tokens of the corpus.
    3. Score(d) = sum over n in K(d) of w(n)^alpha (1 - beta + beta new(n) / |n|), where K(d) holds the n-grams of d by
       descending weight whose occurrence overlaps none taken before, and new(n) counts the tokens of n not yet covered.

    Args:
        documents: token ids of each document, without ``separator``; or their index, made by
            :meth:`FMIndex.from_documents` with this separator (or loaded from a file).
        separator: an id that no document holds.
        beams: >= 1, n-grams kept per step. max_len: >= 1, tokens per n-gram.
        alpha: >= 0. beta: in [0, 1], discount of repeated tokens.
        max_hits: occurrences looked at per n-gram.
    Raises: ValueError when a document holds the separator or there is none, or an index does not begin with one.
    Differs from paper: n-grams of all lengths visited by one beam, no separate title generation.
    Reference: Bevilacqua et al. 2022, arXiv:2204.10628, section 4.
    """

    def __init__(
        self,
        documents: Sequence[Ids] | FMIndex,
        *,
        separator: int,
        beams: int = 8,
        max_len: int = 6,
        alpha: float = 2.0,
        beta: float = 0.8,
        max_hits: int = 1000,
    ) -> None:
        self.beams = check_int("beams", beams, low=1)
        self.max_len = check_int("max_len", max_len, low=1)
        self.alpha = check_real("alpha", alpha, low=0)
        self.beta = check_real("beta", beta, low=0, high=1)
        self.max_hits = check_int("max_hits", max_hits, low=1)
        self.separator = separator
        self.index = documents if isinstance(documents, FMIndex) else _index_of(documents, separator)
        self._starts = self.index.locate([separator])
        if not len(self._starts) or self._starts[0] != 0:
            raise ValueError(
                f"documents must begin with the separator {separator} in their index, got an index that does not; "
                "make it with FMIndex.from_documents"
            )

    def ngrams(self, next_logprobs: NextLogprobs) -> dict[tuple[int, ...], float]:
        """Every n-gram the constrained beam visits, with its log-probability."""
        beam: list[tuple[tuple[int, ...], float, Rows]] = [((), 0.0, self.index.find([]))]
        visited: dict[tuple[int, ...], float] = {}
        for _ in range(self.max_len):
            logprobs = next_logprobs([ids for ids, _, _ in beam])
            grown: list[tuple[float, int, int]] = []
            for number, (_, score, rows) in enumerate(beam):
                tokens, _ = self.index.successors(rows)
                tokens = tokens[(tokens != self.separator) & (tokens < logprobs.shape[1])]
                scores = score + logprobs[number, tokens.astype(np.int64)]
                kept = np.argsort(-scores, kind="stable")[: self.beams]
                grown += [(float(scores[k]), number, int(tokens[k])) for k in kept if np.isfinite(scores[k])]
            grown.sort(key=lambda g: (-g[0], g[1], g[2]))
            beam = [
                ((*beam[n][0], token), score, self.index.extend(beam[n][2], token))
                for score, n, token in grown[: self.beams]
            ]
            if not beam:
                break
            visited |= {ids: score for ids, score, _ in beam}
        return visited

    def weight(self, ids: Sequence[int], logprob: float) -> float:
        """Odds of the n-gram given the query against its odds in the corpus, in natural log, at least 0."""
        p = min(float(np.exp(logprob)), 1 - 1e-12)
        f = min(self.index.count(ids) / max(len(self.index), 1), 1 - 1e-12)
        return max(0.0, float(np.log(p * (1 - f)) - np.log(f * (1 - p)))) if p > 0 and f > 0 else 0.0

    def retrieve(self, next_logprobs: NextLogprobs, *, top: int = 10) -> list[Retrieved]:
        """The best documents for a query, best first (lower number on ties).

        Args: next_logprobs: the model conditioned on the query, see :func:`model_scorer`.
        """
        check_int("top", top, low=1)
        weights = {ids: self.weight(ids, score) for ids, score in self.ngrams(next_logprobs).items()}
        ranked = sorted(((w, ids) for ids, w in weights.items() if w > 0), key=lambda p: (-p[0], p[1]))
        taken: dict[int, list[tuple[int, int]]] = {}
        covered: dict[int, set[int]] = {}
        found: dict[int, Retrieved] = {}
        for w, ids in ranked:
            used: set[int] = set()
            for position in self.index.locate(ids)[: self.max_hits].tolist():
                document = int(np.searchsorted(self._starts, position, side="right")) - 1
                span = (position, position + len(ids))
                overlaps = any(a < span[1] and span[0] < b for a, b in taken.get(document, ()))
                if document in used or overlaps:
                    continue
                used.add(document)
                seen = covered.setdefault(document, set())
                share = 1 - self.beta + self.beta * len(set(ids) - seen) / len(set(ids))
                result = found.setdefault(document, Retrieved(document, 0.0))
                result.score += w**self.alpha * share
                result.ngrams.append((ids, w))
                taken.setdefault(document, []).append(span)
                seen.update(ids)
        return sorted(found.values(), key=lambda r: (-r.score, r.document))[:top]


def _index_of(documents: Sequence[Ids], separator: int) -> FMIndex:
    if not len(documents):
        raise ValueError("documents must not be empty, got none")
    if any(separator in np.asarray(d) for d in documents):
        raise ValueError(f"separator must be in no document, got {separator}")
    return FMIndex.from_documents(documents, separator)


def model_scorer(model: Any, query_ids: Ids) -> NextLogprobs:
    """Next-token log-probabilities of a ``transformers`` model after a query.

    A causal model reads the query and then the n-gram; an encoder-decoder model encodes the query once and decodes the
    n-gram from its start token.
    """
    import torch

    query = torch.as_tensor(np.asarray(query_ids, np.int64), device=model.device)[None]
    encoded = model.get_encoder()(input_ids=query) if model.config.is_encoder_decoder else None

    def score(ngrams: Sequence[Sequence[int]]) -> npt.NDArray[np.floating]:
        rows = torch.tensor([list(n) for n in ngrams], dtype=torch.int64, device=model.device)
        rows = rows.reshape(len(ngrams), -1)
        with torch.inference_mode():
            if encoded is None:
                logits = model(input_ids=torch.cat([query.expand(len(rows), -1), rows], dim=1)).logits
            else:
                start = torch.full((len(rows), 1), model.config.decoder_start_token_id, device=model.device)
                states = encoded.last_hidden_state.expand(len(rows), -1, -1)
                decoder_ids = torch.cat([start, rows], dim=1)
                logits = model(encoder_outputs=(states,), decoder_input_ids=decoder_ids).logits
        found: npt.NDArray[np.floating] = torch.log_softmax(logits[:, -1].float(), dim=-1).cpu().numpy()
        return found

    return score
