"""Lifts: from the rule's step in the subspace to an update of the whole matrix."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from gramcore import _core
from gramcore.optim.coordinates import (
    ColumnSubspace,
    CoordinateSubspace,
    EntrySubspace,
    HaarSubspace,
    RowSampleSubspace,
    WholeSubspace,
)
from gramcore.optim.direction import Scaled, fold_matrix
from gramcore.optim.in_place import MatrixJob
from gramcore.optim.panels import PanelStep
from gramcore.optim.rows import Rows
from gramcore.optim.subspace import Basis, Subspace

__all__ = ["DetailLift", "DropResidual", "Lift", "RescaledGradient", "ScaledResidual", "SignResidual", "View"]

_TINY = 1e-8
#: Largest growth of a limited quantity's norm per step (Fira, APOLLO, GWT).
_GROWTH = 1.01


@dataclass
class View:
    """What a lift sees of one matrix at one step.

    Attributes:
        g: the rows here of the gradient (M, N).  r: its projection.  n: the rule's step on r, without bias correction.
        denominator: makes √v + ε of the rule, in the shape of r.  correction: factor √(1−β2ᵗ)/(1−β1ᵗ) of n.
        norm: limiter's norm at the last step, 0 before the first; the lift writes it.
        basis: for the rows here.  shape: (M, N).  rows: which rows are here.
    """

    g: torch.Tensor
    r: torch.Tensor
    n: torch.Tensor
    denominator: Callable[[], torch.Tensor]
    correction: float
    basis: Basis
    norm: torch.Tensor
    shape: torch.Size
    rows: Rows


class Lift:
    """Makes the update that lr multiplies; either kind below, or both."""

    #: Whether the state needs the limiter's norm.
    limited: bool = False


class ViewLift(Lift, ABC):
    """A lift that makes the update of the whole matrix at once."""

    @abstractmethod
    def update(self, subspace: Subspace, view: View) -> torch.Tensor | Scaled:
        """The update (M, N); W moves by -lr times it."""

    def step_in_place(self, subspace: Subspace, job: MatrixJob) -> bool:
        """Step the matrix without forming its update, where its layout and storage allow; whether that was done."""
        return False


def _growth(now: float, norm: torch.Tensor) -> float:
    """Divisor that keeps a norm from growing by more than 1 % over the last one; remembers the new norm."""
    before = float(norm)
    limit = max(now / (before + _TINY), _GROWTH) / _GROWTH if before > 0 else 1.0
    norm.fill_(now / limit)
    return limit


class PanelLift(Lift, ABC):
    """A lift that can step a matrix behind a stored basis panel by panel."""

    @abstractmethod
    def step_panels(self, panels: PanelStep, norm: torch.Tensor) -> Scaled | None:
        """Step the matrix, or return the update that is left to do; W moves by -lr times it."""


def _norms(x: torch.Tensor, dim: int = 1, rows: Rows | None = None) -> torch.Tensor:
    """Norms of rows (dim 1) or columns (dim 0); ``rows``: which rows x are."""
    size = rows.total if rows and dim == 0 else x.shape[dim]
    return (fold_matrix(x.contiguous(), rows=rows)[1 - dim] * size).sqrt_()


class DropResidual(PanelLift, ViewLift):
    """α times the lifted step; what the subspace does not see is dropped (GaLore, Grass)."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def update(self, subspace: Subspace, view: View) -> Scaled:
        return Scaled(subspace.up(view.basis, view.n, view.g.shape), factor=self.scale * view.correction)

    def step_in_place(self, subspace: Subspace, job: MatrixJob) -> bool:
        if not (job.floats and isinstance(subspace, RowSampleSubspace) and subspace.selection != "norm"):
            return False
        rows = job.state["index"]
        job.step_rows("adam", rows, self.scale)
        if job.group["weight_decay"]:
            job.step_rows("sign", job.other_rows(rows), 0.0)
        return True

    def step_panels(self, panels: PanelStep, norm: torch.Tensor) -> None:
        if panels.forms:
            panels.resize(panels.basis.shape[0])
        for s in panels:
            panels.add(s, panels.step_rule(panels.project(s), s), self.scale * panels.correction)


class ScaledResidual(PanelLift):
    """The lifted step plus the residual, scaled like the step channel by channel and limited in growth (Fira)."""

    limited = True

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def step_panels(self, panels: PanelStep, norm: torch.Tensor) -> None:
        # Where no update of a panel is formed, only the rule's step is, beside all of R.
        panels.resize(panels.basis.shape[0] if panels.forms else 4 * panels.rank)
        r = torch.empty(panels.channels, panels.rank, dtype=panels.low_dtype)
        kept = panels.state["exp_avg"].dtype is not torch.float32
        n = torch.empty(panels.channels if kept else panels.size, panels.rank)
        phi, inside = torch.empty(2, panels.channels)
        skew = _skew(panels)
        for s in panels:
            step = panels.step_rule(panels.project(s, r[s]), s, n[s] if kept else n)
            inner = _norms(r[s])
            torch.div(_norms(step), inner + _TINY, out=phi[s])
            inside[s] = inner.square() if skew is None else inner.square() - (r[s] * (r[s] @ skew)).float().sum(dim=1)
        outside = (_norms(panels.g, 1 if panels.along_rows else 0, panels.rows) * panels.grad_scale).square() - inside
        now = math.sqrt(panels.over_channels(float((phi.square() * outside.clamp_min_(0.0)).sum())))
        phi /= _growth(now, norm)
        # phi belongs to channels, so the scaled residual is phi g less the lift of phi r: one product in all.
        for s in panels:
            step = n[s] if kept else panels.step_rule(r[s], s, n, frozen=True)
            low = step.mul_(self.scale).addcmul_(r[s], phi[s, None], value=-1)
            panels.add(s, low, panels.correction, phi[s])


def _skew(panels: PanelStep) -> torch.Tensor | None:
    """E = PᵀP − 1 of a basis that rounding to a half left short of orthonormal: ‖g‖² − ‖g − up(r)‖² = r (1 − E) rᵀ."""
    p = panels.basis
    if p.dtype is torch.float32:
        return None
    wide = p.float()
    gram = panels.over_basis(wide.T @ wide)
    gram.diagonal().sub_(1.0)
    return gram.to(panels.low_dtype)


class RescaledGradient(PanelLift):
    """The raw gradient, scaled by how the rule scaled its projection: per channel or per tensor (APOLLO)."""

    limited = True

    def __init__(self, scale: float, granularity: str) -> None:
        self.scale, self.granularity = scale, granularity

    def step_panels(self, panels: PanelStep, norm: torch.Tensor) -> Scaled:
        g = panels.g
        u = self._by_channel(panels) if self.granularity == "channel" else self._by_tensor(panels)
        if panels.squares is None or self.granularity == "channel":
            square = _core.optim.scaled_squares(g.contiguous(), u.row, u.column, u.factor)
            now = math.sqrt(panels.rows.total_of(square))
        else:
            now = abs(u.factor) * panels.squares**0.5
        return replace(u, factor=u.factor * self.scale**0.5 * panels.correction / _growth(now, norm))

    @staticmethod
    def _step(panels: PanelStep, r: torch.Tensor, s: slice) -> torch.Tensor:
        """N in fp32."""
        return panels.step_rule(r, s, None if r.dtype is torch.float32 else torch.empty(r.shape))

    def _by_channel(self, panels: PanelStep) -> Scaled:
        before, after = torch.empty(2, panels.channels)
        for s in panels:
            r = panels.project(s)
            if not panels.measure_rule(r, s, before[s], after[s]):
                before[s] = _norms(r)
                after[s] = _norms(self._step(panels, r, s))
        scales = after.div_(before.add_(_TINY))
        row, column = (scales, None) if panels.along_rows else (None, scales)
        return Scaled(panels.g, row, column, panels.grad_scale)

    def _by_tensor(self, panels: PanelStep) -> Scaled:
        before = after = 0.0
        for s in panels:
            r = panels.project(s)
            before += _core.optim.sum_squares([r])
            after += _core.optim.sum_squares([self._step(panels, r, s)])
        before, after = panels.over_channels(before) ** 0.5, panels.over_channels(after) ** 0.5
        return Scaled(panels.g, factor=panels.grad_scale * after / (before + _TINY))


class SignResidual(ViewLift):
    """The lifted step plus ``inactive`` times the sign of what the subspace does not see (FRUGAL)."""

    def __init__(self, scale: float, inactive: float) -> None:
        self.scale, self.inactive = scale, inactive

    def step_in_place(self, subspace: Subspace, job: MatrixJob) -> bool:
        outside = self.scale * self.inactive
        if isinstance(subspace, WholeSubspace) and job.floats:
            active = float(job.state["active"]) > 0
            whole = torch.arange(job.w.shape[0])
            job.step_rows("adam" if active else "sign", whole, self.scale if active else outside)
        elif isinstance(subspace, ColumnSubspace) and subspace.axis == 0 and job.floats:
            job.step_rows("adam", job.state["index"], self.scale)
            job.step_rows("sign", job.other_rows(job.state["index"]), outside)
        elif isinstance(subspace, ColumnSubspace) and subspace.axis == 1 and job.plain:
            job.step_columns(job.state["index"], len(job.state["index"]), self.scale, outside)
        elif isinstance(subspace, EntrySubspace) and job.plain:
            job.step_columns(job.state["mask"], subspace.low_shape(job.w.shape)[1], self.scale, outside)
        else:
            return False
        return True

    def update(self, subspace: Subspace, view: View) -> torch.Tensor:
        shape = view.g.shape
        step, outside = view.n * (self.scale * view.correction), self.scale * self.inactive
        if isinstance(subspace, CoordinateSubspace):
            return subspace.replace(view.basis, view.g.float().sign().mul_(outside), step)
        residual = view.g - subspace.up(view.basis, view.r, shape).to(view.g.dtype)
        return subspace.up(view.basis, step, shape) + residual.sign().mul_(outside)


class DetailLift(ViewLift):
    """Details divided by the denominators of the approximation below them, all through the inverse transform (GWT).

    All details of a run of 2^level columns share one denominator, so the inverse transform of the scaled details is the
    gradient less its approximation, divided by it: U = w₁ g + w₀ with numbers w₁, w₀ per run.
    """

    limited = True

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def step_in_place(self, subspace: Subspace, job: MatrixJob) -> bool:
        if not (job.floats and isinstance(subspace, HaarSubspace)):
            return False
        limit = _growth(job.haar_norm(subspace.level), job.state["norm"])
        job.haar_step(subspace.level, self.scale * job.correction / limit)
        return True

    def update(self, subspace: Subspace, view: View) -> torch.Tensor:
        assert isinstance(subspace, HaarSubspace)
        limit = _growth(math.sqrt(view.rows.total_of(float(view.n.norm()) ** 2)), view.norm)
        factor, width = self.scale * view.correction / limit, 2**subspace.level
        inverse = view.denominator().reciprocal_().mul_(factor)
        offset = (view.n * factor).addcmul_(view.r, inverse, value=-1).div_(width**0.5)
        runs = subspace.runs(view.g.float())
        return torch.addcmul(offset.unsqueeze(-1), runs, inverse.unsqueeze(-1)).flatten(1)[:, : view.g.shape[1]]
