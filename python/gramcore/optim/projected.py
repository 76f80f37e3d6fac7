"""Optimizers that keep their moments in a subspace of each matrix: Subspace x Adam x Lift x storage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from gramcore import _core
from gramcore._checks import check_real
from gramcore.optim.adamw import adam_hyper, check_adam
from gramcore.optim.base import moment_state
from gramcore.optim.direction import DirectionOptimizer, Scaled
from gramcore.optim.in_place import MatrixJob
from gramcore.optim.layout import local
from gramcore.optim.lift import Lift, PanelLift, View, ViewLift
from gramcore.optim.panels import PanelStep
from gramcore.optim.rows import Part, rows_of
from gramcore.optim.subspace import ByShape, DenseSubspace, Subspace, generator_for

__all__ = ["ProjectedOptimizer"]


class ProjectedOptimizer(DirectionOptimizer):
    """Adam on the projection of each matrix; the engine of GaLore, Fira, APOLLO, FRUGAL, GWT and Grass.

    R = down(G);  m, v ← moments of R;  N = m / (√v + ε);  W ← (1−ηλ) W − η lift(G, R, N)

    Tensors to which the subspace does not apply (other than two axes, or too small) and groups with
    ``"project": False`` get plain AdamW with the same numbers.

    Args:
        params: parameters or groups.
        numbers: lr, betas, eps, weight_decay, eps_mode, decay as AdamW.
        options: see :class:`~gramcore.optim.FusedOptimizer`.
        subspace: where moments live.  lift: how a step comes back.
        refresh_every: steps between refreshes; steps 1, 1 + refresh_every, … refresh.
    """

    rule = "adam"
    slots = ("exp_avg", "exp_avg_sq")
    scales_gradients = True

    def __init__(
        self,
        params: Any,
        numbers: dict[str, Any],
        options: dict[str, Any],
        *,
        subspace: Subspace | ByShape,
        lift: Lift,
        refresh_every: int,
    ) -> None:
        self.subspace, self.lift, self.refresh_every = subspace, lift, refresh_every
        super().__init__(params, {"project": True, **numbers}, options)

    def hyper(self, group: Mapping[str, Any]) -> dict[str, float]:
        return adam_hyper(group)

    def check_hyper(self, group: Mapping[str, Any]) -> None:
        check_adam(group)

    def algorithm(self) -> str:
        return "/".join((type(self).__name__, self.subspace.kind, type(self.lift).__name__))

    def works_on_matrices(self, group: Mapping[str, Any], p: torch.Tensor) -> bool:
        return self.projects(group, p)

    def projects(self, group: Mapping[str, Any], p: torch.Tensor) -> bool:
        """Whether this parameter's moments live in the subspace."""
        return bool(group["project"]) and self.subspace.of(p.shape).applies(p.shape)

    def init_state(self, group: Mapping[str, Any], p: torch.Tensor) -> dict[str, torch.Tensor]:
        if not self.projects(group, p):
            return super().init_state(group, p)
        state, rows, subspace = {"step": torch.zeros((), dtype=torch.float32)}, rows_of(p), self.subspace.of(p.shape)
        low, columns = subspace.low_shape(p.shape), rows.of_columns(p.shape[1])
        if subspace.keeps_rows(p.shape):
            like = rows.spread(local(p).new_empty(rows.count, low[1]))
        else:  # every process has the whole of R; each keeps the moments of some columns of G
            axis = subspace.columns_at
            like = columns.spread(columns.part(local(p).new_empty(low), axis), axis)
        for name in self.slots:
            state.update(moment_state(name, like, group["state"]))
        for name, value in subspace.empty(p.shape, p.dtype).items():
            state[name] = rows.spread(rows.part(value)) if subspace.splits(name, p.shape) else value
        if self.lift.limited:
            state["norm"] = torch.zeros((), dtype=torch.float32)
        if self._compensated(group, p):
            state["remainder"] = torch.zeros_like(p, requires_grad=False)
        return state

    def direction(
        self, group: dict[str, Any], part: Part, state: dict[str, Any], g: torch.Tensor, t: int
    ) -> torch.Tensor | Scaled | None:
        scale, subspace = self.gradient_scale(group), self.subspace.of(part.p.shape)
        if isinstance(subspace, DenseSubspace) and isinstance(self.lift, PanelLift):
            self._refresh(group, part, state, g, t)
            along_rows = subspace.along_rows(part.p.shape)
            with PanelStep(part, g, state, along_rows, group, scale, t) as panels:
                return self.lift.step_panels(panels, state.get("norm", g))
        assert isinstance(self.lift, ViewLift)
        self._refresh(group, part, state, g, t)
        if not part.rows.split:
            since, eps, correction = self._numbers(group, subspace, t)
            job = MatrixJob(part.w, g, state, group, scale, part.index, t, since, eps, correction)
            if self.lift.step_in_place(subspace, job):
                return None
        return self._whole(group, part, state, g if scale == 1.0 else g * scale, t)

    def _numbers(self, group: dict[str, Any], subspace: Subspace, t: int) -> tuple[int, float, float]:
        """Step since the last reset, ε beside √v, and the factor of the bias corrections."""
        since = (t - 1) % self.refresh_every + 1 if subspace.resets else t
        bias1, bias2 = (1 - b**since for b in group["betas"])
        eps = group["eps"] if group["eps_mode"] == "raw" else group["eps"] * math.sqrt(bias2)
        return since, eps, math.sqrt(bias2) / bias1

    def _whole(
        self, group: dict[str, Any], part: Part, state: dict[str, Any], g: torch.Tensor, t: int
    ) -> torch.Tensor | Scaled:
        """The update of all rows here at once, for a gradient that is scaled."""
        assert isinstance(self.lift, ViewLift)
        shape, rows, subspace = part.p.shape, part.rows, self.subspace.of(part.p.shape)
        _, eps, factor = self._numbers(group, subspace, t)
        basis = subspace.here(state, rows) if rows.split else state
        r = subspace.down(basis, g).contiguous()
        if subspace.keeps_rows(shape) or not rows.split:
            n = self._rule_step(group, state, r, eps, part.index, t)
        else:
            columns, axis = rows.of_columns(shape[1]), subspace.columns_at
            n = self._rule_step(group, state, columns.part(rows.sum(r), axis).contiguous(), eps, part.index, t)
            n = columns.whole(n, axis)
        view = View(g, r, n, lambda: self._denominator(state, eps), factor, basis, state.get("norm", g), shape, rows)
        return self.lift.update(subspace, view)

    def _refresh(self, group: dict[str, Any], part: Part, state: dict[str, Any], g: torch.Tensor, t: int) -> None:
        count, since = divmod(t - 1, self.refresh_every)
        if since or part.rows.total_of(0.0 if bool(torch.isfinite(g).all()) else 1.0):
            return  # not due; or keep the old basis, and the step itself lets the values through
        shape, subspace = part.p.shape, self.subspace.of(part.p.shape)
        whole = part.rows.whole(g) if subspace.reads_gradients else g.new_empty(()).expand(shape)
        for name, value in subspace.refresh(whole, generator_for(group["seed"], part.index, count)).items():
            state[name].copy_(part.rows.part(value) if subspace.splits(name, shape) else value)
        if subspace.resets and count:
            fresh = self.init_state(group, part.p)
            for key, value in state.items():
                if key.startswith("exp_avg"):
                    value.copy_(local(fresh[key]))

    def _rule_step(
        self, group: dict[str, Any], state: dict[str, Any], r: torch.Tensor, eps: float, index: int, t: int
    ) -> torch.Tensor:
        """N, through the engine: Adam without bias correction on a parameter of zeros, with lr -1."""
        n = torch.zeros(r.shape, dtype=torch.float32)
        quantised = "exp_avg_scale" in state
        hyper = {"lr": -1.0, "beta1": group["betas"][0], "beta2": group["betas"][1], "eps": eps, "correct_bias": 0.0}
        _core.optim.step(
            self.rule,
            hyper,
            [n],
            [r],
            [[state[name]] for name in self.slots],
            [t],
            [index],
            scales=[[state[f"{name}_scale"]] for name in self.slots] if quantised else [],
            stochastic=group["rounding"] == "stochastic",
            seed=group["seed"],
            storage=group["state"],
        )
        return n

    def _denominator(self, state: dict[str, Any], eps: float) -> torch.Tensor:
        v = state["exp_avg_sq"]
        return v if v.dtype is torch.uint8 else v.float().sqrt().add_(eps)


def adam_numbers(
    lr: Any, betas: tuple[float, float], eps: float, weight_decay: float, eps_mode: str, decay: str
) -> dict[str, Any]:
    """The numbers every projected optimizer shares, checked."""
    check_real("eps", eps, low=0.0)
    return {
        "lr": lr,
        "betas": betas,
        "eps": eps,
        "weight_decay": weight_decay,
        "eps_mode": eps_mode,
        "decay": decay,
    }
