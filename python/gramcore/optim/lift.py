"""Lifts: from the rule's step in the subspace to an update of the whole matrix."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from gramcore.optim.direction import Scaled, fold_matrix
from gramcore.optim.subspace import Basis, ColumnSubspace, HaarSubspace, Subspace

__all__ = ["DetailLift", "DropResidual", "Lift", "RescaledGradient", "ScaledResidual", "SignResidual", "View"]

_TINY = 1e-8
#: Largest growth of a limited quantity's norm per step (Fira, APOLLO, GWT).
_GROWTH = 1.01


@dataclass
class View:
    """What a lift sees of one matrix at one step.

    Attributes:
        g: gradient (M, N).  r: its projection.  n: the rule's step on r, without bias correction.
        denominator: makes √v + ε of the rule, in the shape of r.  correction: factor √(1−β2ᵗ)/(1−β1ᵗ) of n.
        norm: limiter's norm at the last step, 0 before the first; the lift writes it.
    """

    g: torch.Tensor
    r: torch.Tensor
    n: torch.Tensor
    denominator: Callable[[], torch.Tensor]
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


def _norms(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Norms of rows (dim 1) or columns (dim 0)."""
    return (fold_matrix(x.contiguous())[1 - dim] * x.shape[dim]).sqrt_()


class DropResidual(Lift):
    """α times the lifted step; what the subspace does not see is dropped (GaLore, Grass)."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def update(self, subspace: Subspace, view: View) -> Scaled:
        return Scaled(subspace.up(view.basis, view.n, view.g.shape), factor=self.scale * view.correction)


class ScaledResidual(Lift):
    """The lifted step plus the residual, scaled like the step column by column and limited in growth (Fira)."""

    limited = True

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def update(self, subspace: Subspace, view: View) -> Scaled:
        shape = view.g.shape
        dim = subspace.norm_dim(shape)
        phi = _norms(view.n, dim) / (_norms(view.r, dim) + _TINY)
        outside = _norms(view.g, dim).square() - self._inside(subspace, view, dim)
        now = math.sqrt(float((phi.square() * outside.clamp_min_(0.0)).sum()))
        phi = (phi / _growth(now, view.norm)).unsqueeze(dim)
        # phi belongs to rows or columns, so the scaled residual is phi g less the lift of phi r: one product in all.
        u = subspace.up(view.basis, torch.addcmul(view.n * self.scale, view.r, phi, value=-1), shape).float()
        return Scaled(u.addcmul_(view.g, phi), factor=view.correction)

    @staticmethod
    def _inside(subspace: Subspace, view: View, dim: int) -> torch.Tensor:
        """‖g‖² − ‖g − up(r)‖² along one axis, also for a basis that rounding left short of orthonormal."""
        p = view.basis["basis"].float()
        gram = p.T @ p
        r = view.r.float()
        lifted = r @ gram if dim == 1 else gram @ r
        return (r * (2 * r - lifted)).sum(dim=dim)


class RescaledGradient(Lift):
    """The raw gradient, scaled by how the rule scaled its projection: per channel or per tensor (APOLLO)."""

    limited = True

    def __init__(self, scale: float, granularity: str) -> None:
        self.scale, self.granularity = scale, granularity

    def update(self, subspace: Subspace, view: View) -> Scaled:
        if self.granularity == "channel":
            dim = subspace.norm_dim(view.g.shape)
            s = _norms(view.n, dim) / (_norms(view.r, dim) + _TINY)
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
        step, outside = view.n * (self.scale * view.correction), self.scale * self.inactive
        if isinstance(subspace, ColumnSubspace):
            return subspace.replace(view.basis, view.g.float().sign().mul_(outside), step)
        residual = view.g - subspace.up(view.basis, view.r, shape).to(view.g.dtype)
        return subspace.up(view.basis, step, shape) + residual.sign().mul_(outside)


class DetailLift(Lift):
    """Details divided by the denominators of the approximation below them, all through the inverse transform (GWT).

    All details of a run of 2^level columns share one denominator, so the inverse transform of the scaled details is the
    gradient less its approximation, divided by it: U = w₁ g + w₀ with numbers w₁, w₀ per run.
    """

    limited = True

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def update(self, subspace: Subspace, view: View) -> torch.Tensor:
        assert isinstance(subspace, HaarSubspace)
        limit = _growth(float(view.n.norm()), view.norm)
        factor, width = self.scale * view.correction / limit, 2**subspace.level
        inverse = view.denominator().reciprocal_().mul_(factor)
        offset = (view.n * factor).addcmul_(view.r, inverse, value=-1).div_(width**0.5)
        runs = subspace.runs(view.g.float())
        return torch.addcmul(offset.unsqueeze(-1), runs, inverse.unsqueeze(-1)).flatten(1)[:, : view.g.shape[1]]
