"""Matrices behind a stored basis, stepped a panel of channels at a time so that no array of their size is made.

With G' the gradient or its transpose, (channels, K), and P (K, rank): R = G' P is formed, turned into the rule's step
and lifted for some hundred channels before the next ones are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from gramcore import _core
from gramcore.optim.rows import Part, Rows

__all__ = ["PanelStep"]

#: Numbers in one panel; it holds a multiple of 256 channels, so blocks of codes begin with it.
_ELEMENTS = 1 << 17
_CHANNELS = 256


class PanelStep:
    """One step of one matrix.

    Args:
        part: the rows here of the matrix, changed on exit at the latest.  g: their gradient.
        state: holds ``basis``, the moments (channels, rank) and perhaps ``remainder``.
        along_rows: whether the channels are rows.
        group: the optimizer's numbers.  grad_scale: what multiplies g.  t: the step.

    When channels are columns and rows are spread over processes, every process has the whole of R and the moments of
    some channels.
    """

    def __init__(
        self,
        part: Part,
        g: torch.Tensor,
        state: dict[str, Any],
        along_rows: bool,
        group: Mapping[str, Any],
        grad_scale: float,
        t: int,
    ) -> None:
        self.p, self.g, self.state, self.along_rows, self.group = part.w, g, state, along_rows, group
        self.w = self.p.contiguous()
        self.remainder = state["remainder"].contiguous() if "remainder" in state else None
        self.grad_scale, self.index, self.t, self.rows = grad_scale, part.index, t, part.rows
        self.basis: torch.Tensor = state["basis"]
        self.rank = self.basis.shape[1]
        self.channels = g.shape[0] if along_rows else g.shape[1]
        self.summed = self.rows.split and not along_rows
        self.own = self.rows.of_columns(self.channels) if self.summed else Rows(self.channels)
        bias1, bias2 = (1 - b**t for b in group["betas"])
        self.eps = group["eps"] if group["eps_mode"] == "raw" else group["eps"] * math.sqrt(bias2)
        self.correction = math.sqrt(bias2) / bias1
        exact = self.p.dtype is torch.float32 or group["rounding"] == "nearest"
        #: Sum of squares of g, where projecting it gave that too.
        self.squares: float | None = None
        kind = _core.optim.best_product(self.basis) if g.dtype is self.basis.dtype is self.p.dtype else "library"
        #: Whether products are the engine's, and whether they round both sides to bf16; else they are torch's.
        self.packs, self.narrow = kind != "library", kind == "narrow"
        self._packed: dict[str, Any] = {}
        #: Whether W += a product can be left to torch's product, which rounds once.
        self.direct = exact and self.p.dtype is g.dtype and not self.packs
        #: Whether a panel's update is formed before W takes it.
        self.forms = not self.direct and not self.packs
        #: How R is stored.
        self.low_dtype = torch.float32 if self.packs else g.dtype
        self.resize(self.rank)

    def __enter__(self) -> PanelStep:
        return self

    def __exit__(self, *_: object) -> None:
        if self.w is not self.p:
            self.p.copy_(self.w)
        if self.remainder is not None and self.remainder is not self.state["remainder"]:
            self.state["remainder"].copy_(self.remainder)

    def resize(self, numbers: int) -> None:
        """Let a panel hold so many channels that ``numbers`` per channel are some hundred thousand."""
        elements = _ELEMENTS if self.packs else 4 * _ELEMENTS  # torch packs P again for every panel
        size = max(1, elements // numbers // _CHANNELS) * _CHANNELS
        self.size = self.channels if self.summed else min(self.channels, size)
        #: Whether R is one column, formed in fp32 in one pass that also gives `squares`.
        self.line = self.rank == 1 and self.size == self.channels and not self.rows.split and self.g.is_contiguous()
        self._r = torch.empty(self.size, self.rank, dtype=torch.float32 if self.line else self.low_dtype)

    def __iter__(self) -> Iterator[slice]:
        for begin in range(0, self.channels, self.size):
            yield slice(begin, min(begin + self.size, self.channels))

    def part(self, x: torch.Tensor, s: slice) -> torch.Tensor:
        """Channels ``s`` of a matrix of the shape of W."""
        return x[s] if self.along_rows else x[:, s]

    def project(self, s: slice, out: torch.Tensor | None = None) -> torch.Tensor:
        """R of channels ``s``, in a buffer that the next call takes again unless ``out`` is given."""
        r = self._r[: s.stop - s.start] if out is None else out
        if self.line and r.dtype is torch.float32:
            line = self.basis.flatten().float()
            self.squares = _core.optim.project_line(self.g, line, r, self.along_rows)
            return r if self.grad_scale == 1.0 else r.mul_(self.grad_scale)
        part = self.part(self.g, s)
        left = part if self.along_rows else part.T
        if self.packs:
            _core.optim.multiply(left, self._packed_basis("down"), r)
        else:
            torch.mm(left, self.basis, out=r)
        if self.summed:
            self.rows.sum(r)
        return r if self.grad_scale == 1.0 else r.mul_(self.grad_scale)

    def over_channels(self, value: float) -> float:
        """Sum over all channels of a number that is the sum over those in R."""
        return self.rows.total_of(value) if self.along_rows else value

    def over_basis(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over all rows of P of what is the sum over those here, in place."""
        return self.rows.sum(x) if self.summed else x

    def step_rule(self, r: torch.Tensor, s: slice, n: torch.Tensor | None = None, frozen: bool = False) -> torch.Tensor:
        """N = m / (√v + ε) of channels ``s`` after folding r into the moments.

        Args: n: where N goes, fp32; None for r itself.  frozen: leave the moments as they are.
        """
        # Adam without bias correction and with lr -1, on a parameter that decay makes zero.
        hyper = {"lr": -1.0, "weight_decay": -1.0, **self._numbers(frozen)}
        n = r if n is None else n[: len(r)].zero_()
        slots = [self._moment(name, s) for name in ("exp_avg", "exp_avg_sq")]
        _core.optim.step(
            "adam",
            {**hyper, "correct_bias": 0.0},
            [self.own.part(n)],
            [self.own.part(r)],
            [[codes] for codes, _ in slots],
            [self.t],
            [self._id(s)],
            scales=[[scales] for _, scales in slots if scales is not None],
            stochastic=self.group["rounding"] == "stochastic",
            seed=self.group["seed"],
            storage=self.group["state"],
        )
        if self.summed:
            n[: self.own.begin] = 0.0
            n[self.own.begin + self.own.count :] = 0.0
            self.rows.sum(n)
        return n

    def measure_rule(self, r: torch.Tensor, s: slice, before: torch.Tensor, after: torch.Tensor) -> bool:
        """Fold r into the moments of channels ``s``; norms by channel of r and of N, which is not formed.

        False and nothing done where some of the channels' moments are elsewhere.
        """
        if self.summed:
            return False
        slots = [self._moment(name, s) for name in ("exp_avg", "exp_avg_sq")]
        scales = [scales for _, scales in slots if scales is not None]
        _core.optim.rule_norms(
            self._numbers(),
            r,
            [values for values, _ in slots],
            before,
            after,
            scales=scales,
            storage=self.group["state"] if scales else "",
            noise=(self.group["seed"], self._id(s), self.t) if self.group["rounding"] == "stochastic" else None,
        )
        return True

    def _numbers(self, frozen: bool = False) -> dict[str, float]:
        beta1, beta2 = (1.0, 1.0) if frozen else self.group["betas"]
        return {"beta1": beta1, "beta2": beta2, "eps": self.eps}

    def _decay(self) -> tuple[float, float]:
        """What the parameter, times this, is changed by before and after the update."""
        shrink = -float(self.group["lr"]) * float(self.group["weight_decay"])
        return (0.0, shrink) if self.group.get("decay", "before") == "after" else (shrink, 0.0)

    def add(self, s: slice, low: torch.Tensor, factor: float, phi: torch.Tensor | None = None) -> None:
        """W ← decayed W − η factor (low Pᵀ + phi g) of channels ``s``; phi (channels of s,) is 0 if None.

        ``low`` is overwritten.
        """
        lr, decay = float(self.group["lr"]), self._decay()
        g, w = self.part(self.g, s), self.part(self.w, s)
        rest: dict[str, Any] = {
            "phi": None if phi is None else phi * self.grad_scale,
            "by_row": self.along_rows,
            "lr": lr * factor,
            "decay": decay,
            "remainder": None if self.remainder is None else self.part(self.remainder, s),
            "noise": (self.group["seed"], self.index, self.t) if self.group["rounding"] == "stochastic" else None,
            "place": (self.rows.begin + s.start, 0) if self.along_rows else (self.rows.begin, s.start),
        }
        rows = g if g.stride(1) == 1 else g.contiguous()
        if self.packs:
            _core.optim.step_product(w, rows, *self._packed_factors(low), **rest)
            return
        first, second = self._factors(low)
        if self.direct and (phi is None or w.dtype is torch.float32):
            amount = -lr * factor * (1.0 + decay[1])
            w.addmm_(first, second, beta=1.0 + sum(decay), alpha=amount)
            if phi is not None:
                w.addcmul_(g, phi.unsqueeze(1 if self.along_rows else 0) * self.grad_scale, value=amount)
            return
        _core.optim.step_lifted(w, rows, torch.mm(first, second), **rest)

    def _packed_basis(self, way: str) -> Any:
        """P (``"down"``) or its transpose (``"up"``) as the engine's products take it, made once per step."""
        if way not in self._packed:
            basis = self.basis if way == "down" else self.basis.T
            self._packed[way] = _core.optim.PackedFactor(basis, self.narrow)
        return self._packed[way]

    def _packed_factors(self, low: torch.Tensor) -> tuple[torch.Tensor, Any]:
        if self.along_rows:
            return low, self._packed_basis("up")
        return self.basis, _core.optim.PackedFactor(low.T, self.narrow)

    def _factors(self, low: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        low = low.to(self.basis.dtype)
        return (low, self.basis.T) if self.along_rows else (self.basis, low.T)

    def _id(self, s: slice) -> int:
        """Names the random bits of a panel: those of the parameter for the first, then others."""
        return (self.index + (s.start // self.size << 20)) % 2**32

    def _moment(self, name: str, s: slice) -> tuple[torch.Tensor, torch.Tensor | None]:
        values, scales = self.state[name], self.state.get(f"{name}_scale")
        if self.summed:
            s = slice(0, self.own.count)
        if scales is None:
            return values[s], None
        begin, end = s.start * self.rank, s.stop * self.rank
        per_byte, block = (1, 256) if self.group["state"] == "int8" else (2, 128)
        return values.flatten()[begin // per_byte : -(-end // per_byte)], scales.flatten()[
            begin // block : -(-end // block)
        ]
