"""Stop rules: asked inside drafting, before every further token, whether it is worth drawing.

A :class:`LengthPolicy` bounds a draft before it begins; a stop rule ends it where the draft itself looks doubtful. It
sees the law of the next token and the hidden state behind it, never the token: a decision that looked at a sampled
token would change the law of the tokens that are offered, and the output would no longer be the target's.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gramcore._checks import check_int, check_real
from gramcore.errors import FormatError
from gramcore.spec.base import FloatArray
from gramcore.spec.weights_file import read_weights, write_weights

__all__ = [
    "AcceptanceHead",
    "AcceptanceHeadStop",
    "Candidate",
    "DiscoClassifier",
    "DiscoStop",
    "MinProbStop",
    "StopRule",
    "law_features",
]

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Candidate:
    """What is known before a draft token is drawn.

    Attributes:
        index: its place in the draft; 0 begins a new draft.
        law: ``(V,)`` natural logarithms of the law it would be drawn from.
        hidden: ``(width,)`` last hidden state of the draft after the draft token before it (the root for index 0), for
            rules that need it, else None.
    """

    index: int
    law: FloatArray
    hidden: Any = None


class StopRule(ABC):
    """Decides inside drafting whether a further token is drawn; shared by the rows of a batch, one draft at a time."""

    #: Ask the drafter for ``Candidate.hidden``.
    needs_hidden: bool = False

    @abstractmethod
    def stop(self, candidate: Candidate) -> bool:
        """True ends the draft before this token. Called with indices 0, 1, 2 … of one draft."""


class MinProbStop(StopRule):
    """Stops where the most probable token is less probable than a threshold.

    ``stop = max_x q(x) < min_prob``.

    Args:
        min_prob: in ``[0, 1)``; 0.4 in transformers' assisted generation.

    Differs from paper: the threshold is fixed, not re-fitted while decoding.
    Reference: the confidence threshold of transformers' assisted generation.

    >>> import numpy as np
    >>> MinProbStop(0.5).stop(Candidate(0, np.log([0.4, 0.3, 0.3])))
    True
    """

    def __init__(self, min_prob: float = 0.4) -> None:
        self.min_prob = check_real("min_prob", min_prob, low=0, high=1, high_open=True)

    def stop(self, candidate: Candidate) -> bool:
        return bool(np.exp(candidate.law.max()) < self.min_prob)


def law_features(law: FloatArray, index: int, top_k: int) -> Float32Array:
    """``(top_k + 2,)``: the largest probabilities, falling, then the entropy in nats and the place in the draft."""
    k = min(top_k, len(law))
    features = np.zeros(top_k + 2, np.float32)
    features[:k] = np.exp(np.sort(np.partition(law, len(law) - k)[len(law) - k :])[::-1])
    finite = law[np.isfinite(law)]
    features[top_k] = -(np.exp(finite) * finite).sum()
    features[top_k + 1] = index
    return features


class DiscoClassifier:
    """Two-layer network from :func:`law_features` to the probability that the next draft token will be accepted.

    ``P = sigmoid(w2 . relu(W1 (x - mean) / scale + b1) + b2)``.

    Args:
        mean, scale: ``(top_k + 2,)``.  w1: ``(hidden, top_k + 2)``.  b1, w2: ``(hidden,)``.  b2: ``(1,)``.

    Reference: Mamou et al. 2024, arXiv:2405.04304.
    """

    _KIND = "disco"

    def __init__(self, *, mean: Any, scale: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> None:
        self.tensors = {
            name: np.ascontiguousarray(value, np.float32)
            for name, value in {"mean": mean, "scale": scale, "w1": w1, "b1": b1, "w2": w2, "b2": b2}.items()
        }
        shape = self.tensors["w1"].shape
        wide = shape[1] if len(shape) == 2 else 0
        expected = {"mean": (wide,), "scale": (wide,), "w1": shape, "b1": shape[:1], "w2": shape[:1], "b2": (1,)}
        got = {name: tensor.shape for name, tensor in self.tensors.items()}
        if wide < 3 or got != expected:
            raise ValueError(f"weights must have shapes (f,), (f,), (h, f), (h,), (h,), (1,), f >= 3, got {got}")
        self.top_k = wide - 2

    def __call__(self, features: Float32Array) -> Float32Array:
        """Probabilities of acceptance ``(...)`` for features ``(..., top_k + 2)``."""
        t = self.tensors
        inner = np.maximum((features - t["mean"]) / t["scale"] @ t["w1"].T + t["b1"], 0)
        out: Float32Array = 1 / (1 + np.exp(-(inner @ t["w2"] + t["b2"][0])))
        return out

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file."""
        write_weights(path, self._KIND, {"top_k": self.top_k}, self.tensors)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DiscoClassifier:
        """Read what :meth:`save` wrote.

        Raises:
            FormatError: another kind of file.
        """
        return _built(cls, path, read_weights(path, cls._KIND)[1])


class DiscoStop(StopRule):
    """DISCO: stops where a classifier gives the next draft token too small a chance of acceptance.

    ``stop = P(accepted | top-k probabilities, entropy, place) < threshold``. The bound SL_max is the length policy's.
    Cost: one pass over the law and a network of a few hundred weights per drafted token.

    Args:
        classifier: trained by :func:`gramcore.spec.train_disco`.
        threshold: in ``[0, 1]``; tuned by :func:`gramcore.spec.tune_threshold`.

    Differs from paper: asked before the token is drawn, so that sampled drafts keep their law.
    Reference: Mamou et al. 2024, arXiv:2405.04304, section 3.

    >>> import numpy as np
    >>> zero = np.zeros(12)
    >>> sure = DiscoClassifier(mean=zero, scale=zero + 1, w1=np.zeros((4, 12)), b1=zero[:4], w2=zero[:4], b2=[2.0])
    >>> DiscoStop(sure, threshold=0.9).stop(Candidate(0, np.log([0.5, 0.5])))
    True
    """

    def __init__(self, classifier: DiscoClassifier, *, threshold: float = 0.4) -> None:
        if not isinstance(classifier, DiscoClassifier):
            raise TypeError(
                f"classifier must be a DiscoClassifier, got {type(classifier).__name__}; train_disco makes one"
            )
        self.classifier = classifier
        self.threshold = check_real("threshold", threshold, low=0, high=1)

    def stop(self, candidate: Candidate) -> bool:
        features = law_features(candidate.law, candidate.index, self.classifier.top_k)
        return bool(self.classifier(features) < self.threshold)


class AcceptanceHead:
    """D residual blocks and a linear layer from the draft's last hidden state to P(this draft token is accepted).

    ``x <- x + SiLU(W_d x + b_d)``, ``P = softmax(W x + b)[1]``; the state is the one after the draft token was read.

    Args:
        blocks: ``[(W_d (width, width), b_d (width,)), ...]``, possibly none.
        weight: ``(2, width)``.  bias: ``(2,)``.

    Reference: Huang et al. 2024, arXiv:2405.19715, section 3.2.
    """

    _KIND = "acceptance_head"

    def __init__(self, *, blocks: Any, weight: Any, bias: Any) -> None:
        self.blocks = [(np.asarray(w, np.float32), np.asarray(b, np.float32)) for w, b in blocks]
        self.weight, self.bias = np.asarray(weight, np.float32), np.asarray(bias, np.float32)
        self.width = self.weight.shape[-1]
        shapes = [(w.shape, b.shape) for w, b in self.blocks]
        square = all(w == (self.width, self.width) and b == (self.width,) for w, b in shapes)
        if self.weight.shape != (2, self.width) or self.bias.shape != (2,) or not square:
            raise ValueError(
                "weight must be (2, width), bias (2,) and blocks (width, width) with (width,), got "
                f"{self.weight.shape}, {self.bias.shape} and {shapes}"
            )

    def __call__(self, hidden: Any) -> Float32Array:
        """Probabilities of acceptance ``(...)`` for hidden states ``(..., width)``."""
        x: npt.NDArray[Any] = np.asarray(hidden, np.float32)
        if x.shape[-1] != self.width:
            raise ValueError(
                f"hidden states must have width {self.width}, got {x.shape[-1]}; train a head for this draft"
            )
        for weight, bias in self.blocks:
            inner: Float32Array = x @ weight.T + bias
            x = np.asarray(x + inner / (1 + np.exp(-inner)), np.float32)
        logits = x @ self.weight.T + self.bias
        out: Float32Array = np.asarray(1 / (1 + np.exp(logits[..., 0] - logits[..., 1])), np.float32)
        return out

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file."""
        tensors = {"weight": self.weight, "bias": self.bias}
        for i, (w, b) in enumerate(self.blocks):
            tensors |= {f"blocks.{i}.weight": w, f"blocks.{i}.bias": b}
        write_weights(path, self._KIND, {"num_blocks": len(self.blocks)}, tensors)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AcceptanceHead:
        """Read what :meth:`save` wrote.

        Raises:
            FormatError: another kind of file.
        """
        settings, tensors = read_weights(path, cls._KIND)
        count = settings.get("num_blocks")
        names = [(f"blocks.{i}.weight", f"blocks.{i}.bias") for i in range(count if isinstance(count, int) else 0)]
        if set(tensors) != {"weight", "bias", *(name for pair in names for name in pair)}:
            raise FormatError(f"{path}: tensors must match num_blocks {count!r}, got {', '.join(sorted(tensors))}")
        given = {"blocks": [(tensors[w], tensors[b]) for w, b in names]}
        return _built(cls, path, {**given, "weight": tensors["weight"], "bias": tensors["bias"]})


class AcceptanceHeadStop(StopRule):
    """SpecDec++: stops when a rejection has probably happened already.

    With ``P_i`` the head's probability for the i-th draft token, ``stop = 1 - prod_{j <= i} P_j > threshold`` after at
    least ``min_tokens`` and at the latest after ``max_tokens``. For known P this is the form of the optimal policy.
    Cost: D + 1 small matrix-vector products per drafted token.

    Args:
        head: trained by :func:`gramcore.spec.train_acceptance_head` for this draft model.
        threshold: in ``[0, 1]``; h.
        min_tokens, max_tokens: ``0 <= min_tokens <= max_tokens``; bounds of the length.

    Differs from paper: the D blocks have weights of their own (the released code repeats one).
    Reference: Huang et al. 2024, arXiv:2405.19715, Algorithm 1.

    >>> import numpy as np
    >>> half = AcceptanceHead(blocks=[], weight=np.zeros((2, 3)), bias=np.zeros(2))
    >>> rule = AcceptanceHeadStop(half, threshold=0.6, min_tokens=0)
    >>> [rule.stop(Candidate(i, np.zeros(1), np.zeros(3))) for i in range(4)]  # 1 - 0.5 ** i
    [False, False, True, True]
    """

    needs_hidden = True

    def __init__(
        self, head: AcceptanceHead, *, threshold: float = 0.3, min_tokens: int = 2, max_tokens: int = 20
    ) -> None:
        if not isinstance(head, AcceptanceHead):
            raise TypeError(
                f"head must be an AcceptanceHead, got {type(head).__name__}; train_acceptance_head makes one"
            )
        self.head = head
        self.threshold = check_real("threshold", threshold, low=0, high=1)
        self.min_tokens = check_int("min_tokens", min_tokens, low=0)
        self.max_tokens = check_int("max_tokens", max_tokens, low=min_tokens)
        self._survival = 1.0

    def stop(self, candidate: Candidate) -> bool:
        if candidate.index == 0:
            self._survival = 1.0
        else:
            self._survival *= float(self.head(candidate.hidden))
        if candidate.index < self.min_tokens:
            return False
        return candidate.index >= self.max_tokens or 1 - self._survival > self.threshold


def _built(cls: Any, path: Any, tensors: dict[str, Any]) -> Any:
    try:
        return cls(**tensors)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{path}: {error}") from error
