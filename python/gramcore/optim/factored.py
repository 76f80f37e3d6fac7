"""Optimizers with row and column statistics in place of a full second moment: Adafactor, AdaLomo's rule, CAME."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from gramcore import _core
from gramcore._checks import check_real
from gramcore.optim.base import check_betas, moment_state
from gramcore.optim.direction import DirectionOptimizer, Scaled, fold_matrix
from gramcore.optim.layout import rms
from gramcore.optim.rows import Part, Rows, rows_of

__all__ = ["CAME", "Adafactor", "Factor4bit"]


class _Factored(DirectionOptimizer):
    """Row and column means over the last two axes; tensors of one axis keep the whole statistic."""

    #: Names of the factored statistics.
    statistics: tuple[str, ...] = ("second",)
    scales_gradients = True

    def check_hyper(self, group: Mapping[str, Any]) -> None:
        check_real("weight_decay", group["weight_decay"], low=0.0)
        check_real("clip", group["clip"], low=0.0, low_open=True)
        if not isinstance(group["eps"], (tuple, list)) or len(group["eps"]) != 2:
            raise ValueError(f"eps must hold 2 numbers, got {group['eps']!r}")
        for i, e in enumerate(group["eps"]):
            check_real(f"eps[{i}]", e, low=0.0)
        if group["state"] not in ("fp32",):
            raise ValueError(f"state must be fp32 for factored statistics, got {group['state']!r}; they are small")

    def hyper(self, group: Mapping[str, Any]) -> dict[str, float]:
        return {"lr": float(group["lr"])}

    def init_state(self, group: Mapping[str, Any], p: torch.Tensor) -> dict[str, torch.Tensor]:
        state, rows = super().init_state(group, p), rows_of(p)

        def zeros(*shape: int) -> torch.Tensor:
            return rows.spread(torch.zeros(rows.count, *shape, dtype=torch.float32, device=p.device))

        for name in self.statistics:
            if p.ndim >= 2:
                state[f"{name}_row"] = zeros(*p.shape[1:-1])
                matrix = torch.zeros(p.shape[1], dtype=torch.float32, device=p.device) if p.ndim == 2 else None
                state[f"{name}_col"] = zeros(*p.shape[1:-2], p.shape[-1]) if matrix is None else matrix
        if p.ndim < 2:
            state["second"] = torch.zeros_like(p, dtype=torch.float32, requires_grad=False)
        return state

    @staticmethod
    def fold(state: dict[str, Any], name: str, means: tuple[torch.Tensor, torch.Tensor], beta: float) -> None:
        """EMA of row and column means."""
        for axis, values in zip(("row", "col"), means, strict=True):
            state[f"{name}_{axis}"].lerp_(values, 1 - beta)

    @staticmethod
    def inverse_root(state: dict[str, Any], name: str, x: torch.Tensor, factor: float, rows: Rows) -> Scaled:
        """factor · x over the root of the rank-1 estimate row·col / mean(row)."""
        row = state[f"{name}_row"]
        mean = rows.mean(row) if x.ndim == 2 else row.mean(dim=-1, keepdim=True)
        return Scaled(x, (row / mean).rsqrt_(), state[f"{name}_col"].rsqrt(), factor)

    def normalised(
        self, group: dict[str, Any], part: Part, state: dict[str, Any], g: torch.Tensor, beta: float
    ) -> Scaled:
        """The gradient over the root of its second moment, its RMS clipped."""
        scale, rows = self.gradient_scale(group), part.rows
        if g.ndim >= 2:
            g = g.contiguous()
            self.fold(state, "second", fold_matrix(g, scale=scale, eps=group["eps"][0], rows=rows), beta)
            u = self.inverse_root(state, "second", g, scale, rows)
            size = float(rows.mean(fold_matrix(g, u, scale=scale)[0]).mean()) ** 0.5
        else:
            x = g.float() * scale
            state["second"].lerp_(x * x + group["eps"][0], 1 - beta)
            u = Scaled(x * state["second"].rsqrt())
            size = (rows.total_of(_core.optim.sum_squares([u.x])) / max(1, rows.total)) ** 0.5
        return replace(u, factor=u.factor / max(1.0, size / group["clip"]))

    def step_in_place(
        self, group: dict[str, Any], part: Part, state: dict[str, Any], g: torch.Tensor, t: int, **numbers: float
    ) -> bool:
        """The whole step in the engine, for matrices that lie row by row and whose rows are all here."""
        names = [f"{name}_{axis}" for name in self.statistics for axis in ("row", "col")]
        if "exp_avg" in state:
            names.insert(2, "exp_avg")
        tensors = [state[name] for name in names if name in state]
        if part.rows.split or g.ndim < 2 or not all(x.is_contiguous() for x in (part.w, g, *tensors)):
            return False
        _core.optim.factored_step(
            {
                "scale": self.gradient_scale(group),
                "clip": group["clip"],
                "eps": group["eps"][0],
                "weight_decay": group["weight_decay"],
                **numbers,
            },
            part.w,
            g,
            tensors,
            t,
            part.index,
            state.get("remainder"),
            group["rounding"] == "stochastic",
            group["seed"],
        )
        return True


class Adafactor(_Factored):
    """Adam's step from row and column means of the squared gradient: m + n numbers for an m × n matrix.

    β2ₜ = 1 − t^decay_rate;  R, C ← means of g² + ε₁ over rows and columns;  u = g / √(R Cᵀ / mean R);
    u ← u / max(1, RMS(u)/clip);  W ← W − ηₜ (u + λ W),  ηₜ = min(η, 1/√t) · max(ε₂, RMS(W))

    State: M + N fp32 numbers per matrix; tensors of one axis keep a full second moment.

    Args:
        params: parameters or groups; the last two axes are factored.
        lr: η >= 0.
        eps: (ε₁, ε₂), each >= 0.
        clip: RMS above which the update is scaled down, > 0.
        decay_rate: < 0.
        weight_decay: λ >= 0.
        scale_parameter: multiply by max(ε₂, RMS(W)).
        relative_step: bound lr by 1/√t.
        options: see :class:`~gramcore.optim.FusedOptimizer`.

    With ``relative_step=False`` this is the rule of AdaLomo (arXiv:2310.10195); run it inside
    :class:`~gramcore.optim.FusedBackward` for AdaLomo itself.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: no first moment; weight decay is multiplied by ηₜ.

    Reference: Shazeer and Stern 2018, arXiv:1804.04235, Alg. 4 and 5.

    Example:
        >>> import torch
        >>> from gramcore.optim import Adafactor
        >>> w = torch.nn.Parameter(torch.ones(2, 2))
        >>> optimizer = Adafactor([w], lr=0.1)
        >>> w.sum().backward(); optimizer.step()
        >>> [round(x, 4) for x in w.flatten().tolist()]
        [0.9, 0.9, 0.9, 0.9]
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: Any = 1e-2,
        eps: tuple[float, float] = (1e-30, 1e-3),
        clip: float = 1.0,
        decay_rate: float = -0.8,
        weight_decay: float = 0.0,
        scale_parameter: bool = True,
        relative_step: bool = True,
        **options: Any,
    ) -> None:
        numbers = {"lr": lr, "eps": eps, "clip": clip, "decay_rate": decay_rate, "weight_decay": weight_decay}
        flags = {"scale_parameter": bool(scale_parameter), "relative_step": bool(relative_step)}
        super().__init__(params, {**numbers, **flags}, options)

    def check_hyper(self, group: Mapping[str, Any]) -> None:
        super().check_hyper(group)
        check_real("decay_rate", group["decay_rate"], high=0.0, high_open=True)

    @staticmethod
    def _bound(group: dict[str, Any], t: int) -> float:
        lr = float(group["lr"])
        return min(lr, t**-0.5) / lr if group["relative_step"] and lr > 0 else 1.0

    def lr_factor(self, group: dict[str, Any], part: Part, t: int) -> float:
        return self._bound(group, t) * (max(group["eps"][1], rms(part.p)) if group["scale_parameter"] else 1.0)

    def direction(
        self, group: dict[str, Any], part: Part, state: dict[str, Any], g: torch.Tensor, t: int
    ) -> Scaled | None:
        beta = 1.0 - t ** group["decay_rate"]
        lr, least = float(group["lr"]) * self._bound(group, t), group["eps"][1] if group["scale_parameter"] else -1.0
        if self.step_in_place(group, part, state, g, t, lr=lr, weight2=1 - beta, least_rms=least):
            return None
        return self.normalised(group, part, state, g, beta)


class CAME(_Factored):
    """Adafactor with momentum whose entries count less where they are unstable.

    û as Adafactor with constant β2;  m ← β1 m + (1−β1) û;  U = (û − m)² + ε₂, factored with β3;
    W ← (1−ηλ) W − η m / √U

    State: M·N + 2(M + N) fp32 numbers per matrix; tensors of one axis keep m and a full second moment, without the
    instability term.

    Args:
        params: parameters or groups.
        lr: η >= 0, 0.5 to 0.9 times AdamW's.
        betas: (β1, β2, β3), each in [0, 1).
        eps: (ε₁, ε₂), each >= 0.
        clip: RMS above which û is scaled down, > 0.
        weight_decay: λ >= 0.
        options: see :class:`~gramcore.optim.FusedOptimizer`.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: ε₂ and the rule for tensors of one axis, absent from the pseudo-code, follow the published code.
    A constant gradient makes U vanish and the step large: ε₂ bounds it. Without bias correction the first steps are
    large too: warm up.

    Reference: Luo et al. 2023, arXiv:2307.02047, Alg. 2.

    Example:
        >>> import torch
        >>> from gramcore.optim import CAME
        >>> w = torch.nn.Parameter(torch.ones(2, 2))
        >>> optimizer = CAME([w], lr=0.01)
        >>> w.sum().backward(); optimizer.step()
        >>> [round(x, 4) for x in w.flatten().tolist()]
        [0.8889, 0.8889, 0.8889, 0.8889]
    """

    statistics = ("second", "instability")

    def __init__(
        self,
        params: Any,
        *,
        lr: Any = 2e-4,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        eps: tuple[float, float] = (1e-30, 1e-16),
        clip: float = 1.0,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        numbers = {"lr": lr, "betas": betas, "eps": eps, "clip": clip, "weight_decay": weight_decay}
        super().__init__(params, numbers, options)

    def check_hyper(self, group: Mapping[str, Any]) -> None:
        super().check_hyper(group)
        check_betas(group["betas"], 3)

    def init_state(self, group: Mapping[str, Any], p: torch.Tensor) -> dict[str, torch.Tensor]:
        moment = torch.zeros_like(p, dtype=torch.float32, requires_grad=False)
        return {**super().init_state(group, p), "exp_avg": moment}

    def direction(
        self, group: dict[str, Any], part: Part, state: dict[str, Any], g: torch.Tensor, t: int
    ) -> torch.Tensor | Scaled | None:
        beta1, beta2, beta3 = group["betas"]
        numbers = {"weight1": 1 - beta1, "weight2": 1 - beta2, "weight3": 1 - beta3, "eps2": group["eps"][1]}
        if self.step_in_place(group, part, state, g, t, lr=float(group["lr"]), **numbers):
            return None
        u = self.normalised(group, part, state, g, beta2)
        m: torch.Tensor = state["exp_avg"]
        if g.ndim < 2:
            return m.lerp_(u.dense(), 1 - beta1)
        moment = m if m.is_contiguous() else m.contiguous()
        eps = group["eps"][1]
        means = fold_matrix(
            u.x, u, scale=u.factor, moment=moment, weight=1 - beta1, eps=eps, residual=True, rows=part.rows
        )
        if moment is not m:
            m.copy_(moment)
        self.fold(state, "instability", means, beta3)
        return self.inverse_root(state, "instability", moment, 1.0, part.rows)


class Factor4bit(_Factored):
    """AdamW with a first moment of 4 bits over row and column means in place of the second.

    m as AdamW, stored as signed 4-bit codes;  R, C ← EMA(β2) of row and column means of g² + ε²;  v = R Cᵀ / mean(R);
    W ← (1−ηλ) W − η (m / (1−β1ᵗ)) / √(v / (1−β2ᵗ))

    State: half a byte per element, a scale per 128 elements and M + N numbers per matrix; tensors of one axis keep a
    full second moment.  During a step one tensor of the matrix's shape.

    Args:
        params: parameters or groups.
        lr: η >= 0.
        betas: (β1, β2), each in [0, 1).
        eps: ε >= 0.
        weight_decay: λ >= 0.
        options: see :class:`~gramcore.optim.FusedOptimizer`; ``state`` stores m: ``"int4"`` unless given.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: ε² is added to g², not ε to √v.

    Reference: Li et al. 2023, arXiv:2309.01507, section 4.3.

    Example:
        >>> import torch
        >>> from gramcore.optim import Factor4bit
        >>> w = torch.nn.Parameter(torch.ones(2, 2))
        >>> optimizer = Factor4bit([w], lr=0.1, weight_decay=0.0)
        >>> w.sum().backward(); optimizer.step()
        >>> [round(x, 4) for x in w.flatten().tolist()]
        [0.9, 0.9, 0.9, 0.9]
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        **options: Any,
    ) -> None:
        numbers = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, numbers, {"state": "int4", **options})

    def check_hyper(self, group: Mapping[str, Any]) -> None:
        check_betas(group["betas"])
        check_real("eps", group["eps"], low=0.0)
        check_real("weight_decay", group["weight_decay"], low=0.0)

    def init_state(self, group: Mapping[str, Any], p: torch.Tensor) -> dict[str, torch.Tensor]:
        return {**super().init_state(group, p), **moment_state("exp_avg", p, group["state"])}

    def direction(
        self, group: dict[str, Any], part: Part, state: dict[str, Any], g: torch.Tensor, t: int
    ) -> torch.Tensor | Scaled:
        beta1, beta2 = group["betas"]
        scale, tiny = self.gradient_scale(group), group["eps"] ** 2
        factor = math.sqrt(1 - beta2**t) / (1 - beta1**t)
        m = self._momentum(group, state, g, beta1, t, part.index)
        if g.ndim < 2:
            state["second"].lerp_((g.float() * scale).square_().add_(tiny), 1 - beta2)
            return m * state["second"].rsqrt() * factor
        self.fold(state, "second", fold_matrix(g.contiguous(), scale=scale, eps=tiny, rows=part.rows), beta2)
        return self.inverse_root(state, "second", m.contiguous(), factor, part.rows)

    def _momentum(
        self, group: dict[str, Any], state: dict[str, Any], g: torch.Tensor, beta: float, t: int, index: int
    ) -> torch.Tensor:
        """The new first moment, through the engine: momentum with dampening β1 on a parameter of zeros, with lr -1."""
        m = torch.zeros_like(g, dtype=torch.float32)
        _core.optim.step(
            "sgd_momentum",
            {"lr": -1.0, "beta1": beta, "extra0": beta, "grad_scale": self.gradient_scale(group)},
            [m],
            [g],
            [[state["exp_avg"]]],
            [t + 1],  # the rule's first step would not dampen
            [index],
            scales=[[state["exp_avg_scale"]]] if "exp_avg_scale" in state else [],
            stochastic=group["rounding"] == "stochastic",
            seed=group["seed"],
            storage=group["state"],
        )
        return m
