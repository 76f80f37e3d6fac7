"""Training losses of draft heads: small objects over one rollout, added with ``+`` and scaled with ``*``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn

from gramcore._checks import check_int, check_real
from gramcore.spec.heads.base import Batch, Rollout, TrainableDraft

__all__ = ["AdversarialLoss", "DistillLoss", "DraftLoss", "HiddenLoss", "NextTokenLoss", "PerHeadLoss"]


class DraftLoss(ABC):
    """A scalar from one rollout."""

    @property
    def name(self) -> str:
        """Kind and settings, to tell runs apart."""
        return type(self).__name__

    @abstractmethod
    def __call__(
        self, draft: TrainableDraft, batch: Batch, positions: torch.Tensor, rollout: Rollout
    ) -> torch.Tensor: ...

    def prepare(  # noqa: B027
        self, draft: TrainableDraft, batch: Batch, positions: torch.Tensor, rollout: Rollout
    ) -> None:
        """Called with a detached rollout before the heads' own step, for parts that learn too."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs of parts that learn too."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take over :meth:`state_dict`."""

    def __add__(self, other: DraftLoss) -> DraftLoss:
        return _Sum([(1.0, self), (1.0, other)])

    def __rmul__(self, weight: float) -> DraftLoss:
        return _Sum([(check_real("weight", weight), self)])


class _Sum(DraftLoss):
    def __init__(self, terms: list[tuple[float, DraftLoss]]) -> None:
        self.terms = terms

    @property
    def name(self) -> str:
        return " + ".join(f"{weight:g} * ({loss.name})" for weight, loss in self.terms)

    def __call__(self, *args: Any) -> torch.Tensor:
        return torch.stack([weight * loss(*args) for weight, loss in self.terms]).sum()

    def prepare(self, *args: Any) -> None:
        for _, loss in self.terms:
            loss.prepare(*args)

    def state_dict(self) -> dict[str, Any]:
        return {str(i): loss.state_dict() for i, (_, loss) in enumerate(self.terms)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for i, (_, loss) in enumerate(self.terms):
            loss.load_state_dict(state[str(i)])


class PerHeadLoss(DraftLoss):
    """``sum_i decay^i term_i`` over the heads."""

    def __init__(self, *, decay: float = 1.0) -> None:
        self.decay = check_real("decay", decay, low=0, high=1, low_open=True)

    @property
    def name(self) -> str:
        return f"{type(self).__name__}(decay={self.decay:g})"

    def __call__(self, draft: TrainableDraft, batch: Batch, positions: torch.Tensor, rollout: Rollout) -> torch.Tensor:
        terms = [
            self.decay**i * self._term(draft, batch, positions, i, logits.flatten(0, 1))
            for i, logits in enumerate(rollout.logits)
        ]
        return torch.stack(terms).sum()

    @abstractmethod
    def _term(
        self, draft: TrainableDraft, batch: Batch, positions: torch.Tensor, index: int, logits: torch.Tensor
    ) -> torch.Tensor: ...


class NextTokenLoss(PerHeadLoss):
    """``sum_i decay^i CE(logits_i, x_{t+2+i})``, a mean over the tokens that can be drafted.

    Args:
        decay: in (0, 1]; weight of a head over that of the one before (0.8 in Medusa, 1 elsewhere).

    >>> NextTokenLoss().decay
    1.0
    """

    def _term(
        self, draft: TrainableDraft, batch: Batch, positions: torch.Tensor, index: int, logits: torch.Tensor
    ) -> torch.Tensor:
        wanted = draft.places(batch.ids[:, positions + 2 + index]).flatten()
        total = nn.functional.cross_entropy(logits, wanted, ignore_index=-1, reduction="sum")
        return total / max(1, int((wanted >= 0).sum()))


class DistillLoss(PerHeadLoss):
    """``sum_i decay^i KL(p_{t+1+i} || softmax(logits_i))``, p the target's own law there, restricted to F.

    Args:
        decay: in (0, 1].

    >>> DistillLoss(decay=0.8).decay
    0.8
    """

    def _term(
        self, draft: TrainableDraft, batch: Batch, positions: torch.Tensor, index: int, logits: torch.Tensor
    ) -> torch.Tensor:
        law = target_law(draft, batch, positions, index).flatten(0, 1)
        return nn.functional.kl_div(torch.log_softmax(logits, -1), law, reduction="batchmean", log_target=True)


class HiddenLoss(DraftLoss):
    """``sum_i smooth-L1(s_i, h_{t+1+i})``: states of regressive heads follow the target's hidden states.

    Raises (when called):
        ValueError: states that no head changes, or of another width.

    Reference: Li et al. 2024, arXiv:2401.15077 (EAGLE); Clover-2, arXiv:2408.00264.
    """

    def __call__(self, draft: TrainableDraft, batch: Batch, positions: torch.Tensor, rollout: Rollout) -> torch.Tensor:
        if not getattr(draft, "regressive", False) or rollout.states[0].shape[-1] != batch.hidden.shape[-1]:
            rule = "draft must be regressive heads as wide as the target for HiddenLoss"
            raise ValueError(f"{rule}, got {draft.kind}; use DistillLoss")
        terms = [
            nn.functional.smooth_l1_loss(state, batch.hidden[:, positions + 1 + i])
            for i, state in enumerate(rollout.states)
        ]
        return torch.stack(terms).sum()


class AdversarialLoss(DraftLoss):
    """``-mean log D(q)``: the heads' laws shall pass for the target's; D learns in turn with them.

    D is a small network on laws; before each step of the heads it takes one step on
    ``-mean log D(p) - mean log(1 - D(q))`` with p the target's laws and q the heads' at the same places. Use as
    ``NextTokenLoss() + 0.1 * AdversarialLoss(heads)``.

    Args:
        draft: the heads to be trained (their number of rows).
        hidden: ``>= 1``; width of D.
        lr: ``> 0``; of D.
        seed: of D's weights.

    Differs from paper: D sees laws only; the paper's network and weights are not published.
    Reference: Zhang et al. 2024, arXiv:2408.08146 (KOALA).
    """

    def __init__(self, draft: TrainableDraft, *, hidden: int = 64, lr: float = 1e-3, seed: int = 0) -> None:
        check_int("hidden", hidden, low=1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.discriminator = nn.Sequential(
                nn.Linear(draft.num_rows, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1)
            )
        self._optimizer = torch.optim.Adam(
            self.discriminator.parameters(), lr=check_real("lr", lr, low=0, low_open=True)
        )

    def prepare(self, draft: TrainableDraft, batch: Batch, positions: torch.Tensor, rollout: Rollout) -> None:
        real = torch.cat([target_law(draft, batch, positions, i).exp() for i in range(len(rollout.logits))])
        fake = torch.cat([torch.softmax(logits, -1) for logits in rollout.logits])
        self._optimizer.zero_grad()
        loss = nn.functional.softplus(-self.discriminator(real)) + nn.functional.softplus(self.discriminator(fake))
        loss.mean().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {"discriminator": self.discriminator.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.discriminator.load_state_dict(state["discriminator"])
        self._optimizer.load_state_dict(state["optimizer"])

    def __call__(self, draft: TrainableDraft, batch: Batch, positions: torch.Tensor, rollout: Rollout) -> torch.Tensor:
        terms = [
            nn.functional.softplus(-self.discriminator(torch.softmax(logits, -1))).mean() for logits in rollout.logits
        ]
        return torch.stack(terms).mean()


def target_law(draft: TrainableDraft, batch: Batch, positions: torch.Tensor, index: int) -> torch.Tensor:
    """``(B, P, R)`` log-probabilities the target gives to what head ``index`` predicts."""
    with torch.no_grad():
        return torch.log_softmax(draft.target_logits(batch.hidden[:, positions + 1 + index]), -1)
