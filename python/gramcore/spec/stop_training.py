"""Training of stop rules: traces of real drafts, DISCO's classifier, SpecDec++'s acceptance head, thresholds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gramcore._checks import check_int, check_real
from gramcore.spec.base import Context, Drafter, DraftTree, FloatArray, IntArray, TargetRows
from gramcore.spec.generation import generate
from gramcore.spec.model_drafter import ModelDrafter
from gramcore.spec.policies import FixedLength
from gramcore.spec.stop_rules import AcceptanceHead, Candidate, DiscoClassifier, Float32Array, StopRule, law_features
from gramcore.spec.trees import ChainTree

__all__ = [
    "AcceptanceTraces",
    "acceptance_examples",
    "acceptance_loss",
    "collect_traces",
    "train_acceptance_head",
    "train_disco",
    "tune_threshold",
]


@dataclass(frozen=True)
class AcceptanceTraces:
    """Drafted tokens of many steps, in order.

    Attributes:
        features: ``(N, top_k + 2)``, see :func:`law_features`.
        accept: ``(N,)`` probability that the target accepts the token, given that those before it were.
        step: ``(N,)`` number of the draft it belongs to; ascending.
    """

    features: Float32Array
    accept: FloatArray
    step: npt.NDArray[np.int64]

    def chains(self) -> list[slice]:
        """The rows of every draft."""
        edges = [0, *(np.flatnonzero(np.diff(self.step)) + 1).tolist(), len(self.step)]
        return [slice(a, b) for a, b in itertools.pairwise(edges) if b > a]

    def reached(self) -> FloatArray:
        """``(N,)`` probability that verification comes to each token: the product of ``accept`` before it."""
        out = np.ones(len(self.accept))
        for rows in self.chains():
            out[rows] = np.cumprod(np.append(1.0, self.accept[rows][:-1]))
        return out


class _Recorder(StopRule):
    """Never stops; notes the features of the draft under way."""

    def __init__(self, top_k: int) -> None:
        self.top_k = top_k
        self.features: list[Float32Array] = []

    def stop(self, candidate: Candidate) -> bool:
        if candidate.index == 0:
            self.features = []
        self.features.append(law_features(candidate.law, candidate.index, self.top_k))
        return False


class _TracingDrafter(Drafter):
    """Passes on to a model drafter and notes what the target thinks of its drafts."""

    def __init__(self, inner: Drafter, recorder: _Recorder, out: list[tuple[list[Float32Array], list[float]]]) -> None:
        self.inner, self.recorder, self.out = inner, recorder, out

    def propose(self, ctx: Context, budget: int) -> DraftTree:
        return self.inner.propose(ctx, budget)

    def observe_target(self, tree: DraftTree, rows: TargetRows) -> None:
        accept: list[float] = []
        for row, token in enumerate(tree.tokens):  # a chain: node i follows row i
            p = rows.prob(row, int(token))
            accept.append(p if tree.logq is None else min(1.0, p / float(np.exp(tree.logq[row, token]))))
        self.out.append((self.recorder.features[: len(accept)], accept))

    def observe(self, accepted: IntArray) -> None:
        self.inner.observe(accepted)

    def rollback(self, n: int) -> None:
        self.inner.rollback(n)

    def fork(self) -> _TracingDrafter:
        return _TracingDrafter(self.inner.fork(), self.recorder, self.out)


def collect_traces(
    target: Any,
    draft: Any,
    prompts: Sequence[Sequence[int]],
    *,
    depth: int = 12,
    top_k: int = 10,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
) -> AcceptanceTraces:
    """Decode with chains of fixed length and note, for each drafted token, its features and chance of acceptance.

    The chance is ``min(1, p(x) / q(x))`` for sampled drafts and ``p(x)`` for greedy ones (0 or 1 at temperature 0).

    Args:
        target, draft: transformers models with one vocabulary.
        prompts: token ids.
        depth: ``>= 1``; drafted tokens per step.
        top_k: ``>= 1``; probabilities among the features.
        max_new_tokens, temperature, seed: as in :func:`generate`.
    """
    recorder = _Recorder(check_int("top_k", top_k, low=1))
    inner = ModelDrafter(draft, builder=ChainTree(depth=depth, sample=temperature > 0, stop=recorder))
    out: list[tuple[list[Float32Array], list[float]]] = []
    for i, prompt in enumerate(prompts):
        generate(
            target,
            list(prompt),
            drafter=_TracingDrafter(inner, recorder, out),
            policy=FixedLength(depth),
            temperature=temperature,
            seed=seed + i,
            max_new_tokens=max_new_tokens,
        )
    used = [item for item in out if item[1]]
    if not used:
        raise ValueError("prompts must lead to at least one draft, got none; raise max_new_tokens")
    return AcceptanceTraces(
        np.concatenate([np.stack(features) for features, _ in used]),
        np.concatenate([np.array(accept) for _, accept in used]),
        np.repeat(np.arange(len(used)), [len(accept) for _, accept in used]),
    )


def train_disco(
    traces: AcceptanceTraces, *, hidden: int = 32, epochs: int = 200, lr: float = 0.01, seed: int = 0
) -> DiscoClassifier:
    """Fit DISCO's classifier: cross-entropy against the chance of acceptance, weighted by how often a token is reached.

    Args:
        hidden: ``>= 1``; units.  epochs: ``>= 1``; full-batch Adam steps.  lr: ``> 0``.  seed: of the initial weights.

    Differs from paper: soft labels, since the target's law is at hand.
    Reference: Mamou et al. 2024, arXiv:2405.04304.
    """
    check_int("hidden", hidden, low=1)
    check_real("lr", lr, low=0, low_open=True)
    x = torch.from_numpy(traces.features)
    mean, scale = x.mean(0), x.std(0, unbiased=False).clamp_min(1e-6)
    weight = torch.from_numpy(traces.reached()).float()
    label = torch.from_numpy(traces.accept).float()
    numbers = torch.Generator().manual_seed(seed)
    wide = x.shape[1]
    parameters = [
        torch.randn(hidden, wide, generator=numbers) / wide**0.5,
        torch.zeros(hidden),
        torch.randn(hidden, generator=numbers) / hidden**0.5,
        torch.zeros(1),
    ]
    normal = (x - mean) / scale

    def loss() -> torch.Tensor:
        w1, b1, w2, b2 = parameters
        logits = torch.relu(normal @ w1.T + b1) @ w2 + b2
        each = torch.nn.functional.binary_cross_entropy_with_logits(logits, label, reduction="none")
        return (weight * each).sum() / weight.sum()

    _adam(parameters, loss, epochs, lr)
    w1, b1, w2, b2 = (p.detach().numpy() for p in parameters)
    return DiscoClassifier(mean=mean.numpy(), scale=scale.numpy(), w1=w1, b1=b1, w2=w2, b2=b2)


def tune_threshold(
    scores: npt.ArrayLike,
    traces: AcceptanceTraces,
    *,
    draft_cost: float,
    target_cost: Callable[[int], float] = lambda rows: 1.0,
    candidates: int = 200,
) -> tuple[float, float]:
    """The threshold ``t`` of "stop before the first token with score < t" that emits most tokens per unit of time.

    For a draft cut to n tokens: ``E = 1 + sum_{d <= n} prod_{j <= d} accept_j`` emitted tokens in
    ``C(n + 1) + draft_cost * passes`` time, ``passes`` counting the one whose law made it stop.

    Args:
        scores: ``(N,)`` one per traced token: DISCO's probabilities, or ``prod_{j < i} P_j`` for SpecDec++ (then
            ``AcceptanceHeadStop(threshold=1 - t)``).
        draft_cost: ``>= 0``; time of a draft pass in units of a target forward over one row.
        target_cost: C(rows); a target forward in the same unit.
        candidates: ``>= 1``; thresholds tried, at quantiles of the scores.

    Returns:
        The threshold (0: never stop) and its tokens per unit of time.
    """
    check_real("draft_cost", draft_cost, low=0)
    value = np.asarray(scores, np.float64)
    if value.shape != traces.accept.shape:
        raise ValueError(f"scores must have one entry per traced token, got {value.shape} for {traces.accept.shape}")
    tried = np.unique(
        np.quantile(value, np.linspace(0, 1, check_int("candidates", candidates, low=1)), method="higher")
    )
    tried = np.append(0.0, np.append(tried, np.nextafter(tried[-1], np.inf)))
    emitted, spent = np.zeros(len(tried)), np.zeros(len(tried))
    for rows in traces.chains():
        length = rows.stop - rows.start
        alive = np.cumsum(np.append(1.0, np.cumprod(traces.accept[rows])))
        below = value[rows][None] < tried[:, None]
        cut = np.where(below.any(1), below.argmax(1), length)
        emitted += alive[cut]
        costs = np.array([target_cost(n + 1) + draft_cost * min(n + 1, length) for n in range(length + 1)])
        spent += costs[cut]
    rate = emitted / spent
    best = int(np.argmax(rate))
    return float(min(tried[best], 1.0)), float(rate[best])


def acceptance_examples(
    target: Any,
    draft: Any,
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    mixing_ratio: float = 0.15,
    temperature: float = 1.0,
    seed: int = 0,
) -> tuple[Float32Array, Float32Array]:
    """SpecDec++'s data: the draft's hidden state after a drafted token, and the chance that the target accepts it.

    At every place of an answer X of the target a token Y is drawn from the draft's law given X before it, with
    ``soft = min(1, p(Y) / q(Y))``. The draft then reads a mixture of Y and, with probability ``mixing_ratio``, X; the
    states after tokens of Y are the examples.

    Args:
        texts: ``(prompt ids, answer ids)``, answers by the target.
        mixing_ratio: in ``[0, 1)``.  temperature: ``> 0``; of both laws.

    Returns:
        Hidden states ``(N, width)`` and soft labels ``(N,)``.

    Reference: Huang et al. 2024, arXiv:2405.19715, section 3.2.
    """
    check_real("mixing_ratio", mixing_ratio, low=0, high=1, high_open=True)
    check_real("temperature", temperature, low=0, low_open=True)
    numbers = torch.Generator().manual_seed(seed)
    hidden: list[Float32Array] = []
    soft: list[Float32Array] = []
    with torch.inference_mode():
        for prompt, answer in texts:
            ids = torch.tensor([[*prompt, *answer]])
            start = len(prompt)
            p = torch.softmax(target(ids).logits[0, start - 1 : -1].double() / temperature, -1)
            q = torch.softmax(draft(ids).logits[0, start - 1 : -1].double() / temperature, -1)
            drawn = torch.multinomial(q, 1, generator=numbers)
            label = (p.gather(1, drawn) / q.gather(1, drawn)).clamp_max(1)[:, 0]
            given = torch.rand(len(drawn), generator=numbers) < mixing_ratio
            ids[0, start:] = torch.where(given, ids[0, start:], drawn[:, 0])
            states = draft(ids, output_hidden_states=True).hidden_states[-1][0, start:]
            hidden.append(states[~given].float().numpy())
            soft.append(label[~given].float().numpy())
    if not sum(len(s) for s in soft):
        raise ValueError("texts must hold answers, got none")
    return np.concatenate(hidden), np.concatenate(soft)


def acceptance_loss(logits: torch.Tensor, soft: torch.Tensor, rejection_weight: float) -> torch.Tensor:
    """SpecDec++'s weighted cross entropy: ``-sum(w (1 - s) log P_0 + s log P_1) / sum(w (1 - s) + s)``.

    Args:
        logits: ``(N, 2)``; their softmax is ``(P_0, P_1)``, rejected and accepted.
        soft: ``(N,)`` in [0, 1]; s, the probability that the draft token is accepted.
        rejection_weight: w > 0.

    Reference: Huang et al. 2024, arXiv:2405.19715, section 3.2.
    """
    log_p = torch.log_softmax(logits, -1)
    rejected = rejection_weight * (1 - soft)
    return -(rejected * log_p[:, 0] + soft * log_p[:, 1]).sum() / (rejected + soft).sum()


def train_acceptance_head(
    hidden: npt.ArrayLike,
    soft: npt.ArrayLike,
    *,
    blocks: int = 3,
    rejection_weight: float = 6.0,
    epochs: int = 60,
    lr: float = 1e-3,
    seed: int = 0,
) -> AcceptanceHead:
    """Fit SpecDec++'s acceptance head on :func:`acceptance_examples` by :func:`acceptance_loss`.

    Args:
        hidden: ``(N, width)``.  soft: ``(N,)`` in ``[0, 1]``.
        blocks: ``>= 0``; D.  rejection_weight: ``> 0``; 6 in the paper, 1 for calibrated probabilities.
        epochs: ``>= 1``; passes of Adam over batches of 512.  lr: ``> 0``.  seed: of initial weights and order.

    Differs from paper: the D blocks have weights of their own.
    Reference: Huang et al. 2024, arXiv:2405.19715, section 3.2.
    """
    check_real("rejection_weight", rejection_weight, low=0, low_open=True)
    check_int("blocks", blocks, low=0)
    x, s = (torch.from_numpy(np.array(v, np.float32)) for v in (hidden, soft))
    if x.ndim != 2 or s.shape != x.shape[:1] or not len(s):
        raise ValueError(f"hidden must be (N, width) and soft (N,), N >= 1, got {tuple(x.shape)} and {tuple(s.shape)}")
    numbers = torch.Generator().manual_seed(seed)
    width = x.shape[1]
    square = [torch.randn(width, width, generator=numbers) / width**0.5 / 4 for _ in range(blocks)]
    parameters = [*square, *(torch.zeros(width) for _ in range(blocks)), torch.zeros(2, width), torch.zeros(2)]

    def loss() -> torch.Tensor:
        rows = torch.randint(0, len(s), (min(512, len(s)),), generator=numbers)
        state = x[rows]
        for weight, bias in zip(parameters[:blocks], parameters[blocks : 2 * blocks], strict=True):
            state = state + torch.nn.functional.silu(state @ weight.T + bias)
        return acceptance_loss(state @ parameters[-2].T + parameters[-1], s[rows], rejection_weight)

    _adam(parameters, loss, epochs * max(1, len(s) // 512), lr)
    found = [p.detach().numpy() for p in parameters]
    pairs = list(zip(found[:blocks], found[blocks : 2 * blocks], strict=True))
    return AcceptanceHead(blocks=pairs, weight=found[-2], bias=found[-1])


def _adam(parameters: list[torch.Tensor], loss: Callable[[], torch.Tensor], steps: int, lr: float) -> None:
    check_int("epochs", steps, low=1)
    with torch.inference_mode(False), torch.enable_grad():
        for parameter in parameters:
            parameter.requires_grad_()
        optimizer = torch.optim.Adam(parameters, lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            loss().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
