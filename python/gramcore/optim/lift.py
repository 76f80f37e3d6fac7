"""Lifts: from the rule's step in the subspace to an update of the whole matrix."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch

from gramcore.optim.direction import Scaled, fold_matrix
from gramcore.optim.subspace import Basis, HaarSubspace, Subspace

__all__ = ["DetailLift", "DropResidual", "Lift", "RescaledGradient", "ScaledResidual", "SignResidual", "View"]

_TINY = 1e-8
#: Largest growth of a limited quantity's norm per step (Fira, APOLLO, GWT).
_GROWTH = 1.01


@dataclass
class View:
    """What a lift sees of one matrix at one step.

    Attributes:
        g: gradient (M, N).  r: its projection.  n: the rule's step on r, without bias correction.
        denominator: √v + ε of the rule, in the shape of r.  correction: factor √(1−β2ᵗ)/(1−β1ᵗ) of n.
        norm: limiter's norm at the last step, 0 before the first; the lift writes it.
    """

    g: torch.Tensor
    r: torch.Tensor
    n: torch.Tensor
    denominator: torch.Tensor
    correction: float
    basis: Basis
    norm: torch.Tensor


class Lift(ABC):
    """Makes the update that lr multiplies."""

    #: Whether the state needs the limiter's norm.
    limited: bool = False

    @abstractmethod
    def update(self, subspace: Subspace, view: View) -> torch.Tensor | Scaled:
        """The update (M, N); W moves by -lr times it."""


def _growth(now: float, norm: torch.Tensor) -> float:
    """Divisor that keeps a norm from growing by more than 1 % over the last one; remembers the new norm."""
    before = float(norm)
    limit = max(now / (before + _TINY), _GROWTH) / _GROWTH if before > 0 else 1.0
    norm.fill_(now / limit)
    return limit


def _limit(x: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """x scaled so that its norm grows by at most 1 % over the last one; remembers the new norm."""
    now, before = x.norm().float(), norm.clone()
    limit = torch.where(before > 0, torch.clamp(now / (before + _TINY), min=_GROWTH) / _GROWTH, 1.0)
    norm.copy_(now / limit)
    return x / limit.to(x.dtype)


class DropResidual(Lift):
    """α times the lifted step; what the subspace does not see is dropped (GaLore, Grass)."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def update(self, subspace: Subspace, view: View) -> torch.Tensor:
        return subspace.up(view.basis, view.n * (self.scale * view.correction), view.g.shape)


class ScaledResidual(Lift):
    """The lifted step plus the residual, scaled like the step column by column and limited in growth (Fira)."""

    limited = True

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def update(self, subspace: Subspace, view: View) -> torch.Tensor:
        shape = view.g.shape
        dim = subspace.norm_dim(shape)
        phi = view.n.norm(dim=dim, keepdim=True) / (view.r.float().norm(dim=dim, keepdim=True) + _TINY)
        residual = view.g - subspace.up(view.basis, view.r, shape)
        residual = _limit(phi.to(residual.dtype) * residual, view.norm)
        return (subspace.up(view.basis, view.n * self.scale, shape) + residual) * view.correction


class RescaledGradient(Lift):
    """The raw gradient, scaled by how the rule scaled its projection: per channel or per tensor (APOLLO)."""

    limited = True

    def __init__(self, scale: float, granularity: str) -> None:
        self.scale, self.granularity = scale, granularity

    def update(self, subspace: Subspace, view: View) -> Scaled:
        if self.granularity == "channel":
            dim = subspace.norm_dim(view.g.shape)
            s = view.n.norm(dim=dim) / (view.r.float().norm(dim=dim) + _TINY)
            u = Scaled(view.g, s, None) if dim == 1 else Scaled(view.g, None, s)
        else:
            u = Scaled(view.g, factor=float(view.n.norm() / (view.r.float().norm() + _TINY)))
        now = math.sqrt(float(fold_matrix(view.g.contiguous(), u, scale=u.factor)[0].sum()) * view.g.shape[1])
        return replace(u, factor=u.factor * self.scale**0.5 * view.correction / _growth(now, view.norm))


class SignResidual(Lift):
    """The lifted step plus ``inactive`` times the sign of what the subspace does not see (FRUGAL)."""

    def __init__(self, scale: float, inactive: float) -> None:
        self.scale, self.inactive = scale, inactive

    def update(self, subspace: Subspace, view: View) -> torch.Tensor:
        shape = view.g.shape
        residual = view.g - subspace.up(view.basis, view.r, shape).to(view.g.dtype)
        step = subspace.up(view.basis, view.n * (self.scale * view.correction), shape)
        return step + residual.sign().mul_(self.scale * self.inactive)


class DetailLift(Lift):
    """Details divided by the denominators of the approximation below them, all through the inverse transform (GWT)."""

    limited = True

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def update(self, subspace: Subspace, view: View) -> torch.Tensor:
        assert isinstance(subspace, HaarSubspace)
        details = subspace.decompose(view.g.float())[1]
        before = view.n.norm()
        a = _limit(view.n, view.norm)
        limit = before / (view.norm + 1e-38)
        scaled, denominator = [], view.denominator
        for i, d in enumerate(details):
            if i:
                denominator = denominator.repeat_interleave(2, dim=1)
            scaled.append(d / denominator / torch.where(before > 0, limit, 1.0))
        return subspace.compose(a, scaled, view.g.shape[1]) * (self.scale * view.correction)
