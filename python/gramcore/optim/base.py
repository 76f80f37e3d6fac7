"""The optimizer shared by every rule: parameter groups and state in torch's form, the step in the native engine."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from gramcore import _core
from gramcore._checks import check_choice, check_int, check_real

__all__ = ["FusedOptimizer", "GradientError"]

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_STATE_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class GradientError(ValueError):
    """A gradient is not finite and ``on_nonfinite="raise"``."""


def check_lr(lr: Any) -> float:
    """Return ``lr`` as float if it is finite and >= 0; a 0-dim tensor is accepted."""
    return check_real("lr", lr.item() if isinstance(lr, torch.Tensor) and lr.ndim == 0 else lr, low=0.0)


def check_betas(betas: Any, count: int = 2) -> tuple[float, ...]:
    """Return ``betas`` as floats in [0, 1)."""
    values = tuple(betas)
    if len(values) != count:
        raise ValueError(f"betas must hold {count} numbers, got {len(values)}")
    return tuple(check_real(f"betas[{i}]", b, low=0.0, high=1.0, high_open=True) for i, b in enumerate(values))


class FusedOptimizer(torch.optim.Optimizer):
    """Multi-tensor optimizer; subclasses name a rule and its numbers.

    One native call per parameter group updates every tensor in one pass over memory.  State tensors are plain tensors
    under the names torch uses, so a ``state_dict`` can be saved with ``weights_only`` loading or safetensors, and a
    resumed run continues bit for bit.

    Subclasses define :attr:`rule`, :attr:`slots` and :meth:`hyper`.
    """

    #: Name of the native rule.
    rule: str
    #: Names of the moments, in the order the rule reads them.
    slots: tuple[str, ...]

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        options = {"state": "fp32", "rounding": "nearest", "seed": 0, "maximize": False, "on_nonfinite": "propagate"}
        full = {**options, **defaults}
        self._check_group(full)
        super().__init__(params, full)
        self.num_skipped = 0
        self._grad_scale = 1.0

    # ------------------------------------------------------------------ to be defined by a rule

    @abstractmethod
    def hyper(self, group: Mapping[str, Any]) -> dict[str, float]:
        """The rule's numbers for one group, as the native engine names them."""

    @abstractmethod
    def check_hyper(self, group: Mapping[str, Any]) -> None:
        """Raise if a number of the group is out of range."""

    # ------------------------------------------------------------------ torch's interface

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self._check_group({**self.defaults, **param_group})
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if p.dtype not in _FLOATS:
                self.param_groups.pop()
                raise TypeError(
                    f"parameters must be float32, bfloat16 or float16, got {p.dtype} of shape {tuple(p.shape)}; "
                    "exclude it from the optimizer"
                )
        self._number_params()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns the closure's loss.

        Raises:
            TypeError: a sparse or complex gradient.
            GradientError: a gradient is not finite and the group's ``on_nonfinite`` is ``"raise"``; nothing changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = [(group, [p for p in group["params"] if p.grad is not None]) for group in self.param_groups]
        work = [(group, params) for group, params in work if params]
        for _, params in work:
            for p in params:
                _check_grad(p)
        for group, _ in work:
            self._check_group(group)
        if self._may_step(work):
            for group, params in work:
                self._step_group(group, params)
        return loss

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` gave, keeping the dtype of every state tensor.

        Raises:
            ValueError: another optimizer's state, or tensors of another shape; nothing is changed then.
        """
        groups, saved = state_dict["param_groups"], state_dict["state"]
        lengths = [len(g["params"]) for g in groups]
        if lengths != [len(g["params"]) for g in self.param_groups]:
            raise ValueError(
                f"state_dict must have parameter groups of sizes {[len(g['params']) for g in self.param_groups]}, "
                f"got {lengths}"
            )
        restored = {}
        for mine, theirs in zip(self.param_groups, groups, strict=True):
            group = {**self.defaults, **theirs}
            self._check_group(group)
            for i, p in zip(theirs["params"], mine["params"], strict=True):
                if i in saved:
                    restored[p] = self._restore(group, saved[i], p)
        super().load_state_dict({"state": {}, "param_groups": [dict(g) for g in groups]})
        for p, values in restored.items():
            self.state[p] = values

    # ------------------------------------------------------------------ state

    def init_state(self, group: Mapping[str, Any], p: torch.Tensor) -> dict[str, torch.Tensor]:
        """State of a parameter before its first step."""
        dtype = _STATE_DTYPES[group["state"]]
        state = {"step": torch.zeros((), dtype=torch.float32)}
        for name in self.slots:
            state[name] = torch.zeros_like(p, dtype=dtype, requires_grad=False)
        if self._compensated(group, p):
            state["remainder"] = torch.zeros_like(p, requires_grad=False)
        return state

    def _restore(self, group: Mapping[str, Any], saved: Any, p: torch.Tensor) -> dict[str, torch.Tensor]:
        wanted = self.init_state(group, p)
        if not isinstance(saved, Mapping) or not set(self.slots) <= set(saved):
            found = sorted(saved) if isinstance(saved, Mapping) else type(saved).__name__
            raise ValueError(f"state_dict must hold {sorted(wanted)} for each parameter, got {found}; wrong optimizer?")
        out = {}
        for name, value in saved.items():
            if name in wanted and tuple(value.shape) != tuple(wanted[name].shape):
                raise ValueError(
                    f"state_dict's {name} must have shape {tuple(wanted[name].shape)}, got {tuple(value.shape)}"
                )
            if name not in wanted:
                raise ValueError(f"state_dict must hold {sorted(wanted)} for each parameter, got also {name!r}")
            like = torch.empty_like(wanted[name], dtype=value.dtype)
            out[name] = like.copy_(value)
        for name in wanted.keys() - out.keys():
            out[name] = wanted[name]
        return out

    def state_bytes(self) -> int:
        """Bytes of optimizer state held now."""
        tensors = (t for values in self.state.values() for t in values.values() if isinstance(t, torch.Tensor))
        return sum(_local(t).numel() * t.element_size() for t in tensors)

    # ------------------------------------------------------------------ the step

    def _step_group(self, group: dict[str, Any], params: list[torch.Tensor]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p].update(self.init_state(group, p))
        self.update(group, params)
        torch.autograd.graph.increment_version(params)

    def update(self, group: dict[str, Any], params: list[torch.Tensor]) -> None:
        """Step parameters of one group that have gradients and state."""
        states = [self.state[p] for p in params]
        steps = [int(s["step"].add_(1.0).item()) for s in states]
        batch = _Batch(params, states, self.slots)
        remainders = [s.get("remainder") for s in states]
        for part in batch.split(remainders):
            _core.optim.step(
                self.rule,
                {**self.hyper(group), "maximize": float(group["maximize"]), "grad_scale": self._grad_scale},
                part.pick(batch.params),
                part.pick(batch.grads),
                [part.pick([_local(s[name]) for s in states]) for name in self.slots],
                part.pick(steps),
                [self._index[p] for p in part.pick(params)],
                remainders=[_local(t) for t in part.pick(remainders)] if part.compensated else None,
                stochastic=group["rounding"] == "stochastic",
                seed=group["seed"],
            )
        batch.write_back()

    def _may_step(self, work: list[tuple[dict[str, Any], list[torch.Tensor]]]) -> bool:
        """Apply the groups' policy for gradients that are not finite."""
        watched = [p.grad for group, params in work if group["on_nonfinite"] != "propagate" for p in params]
        if not watched:
            return True
        total = _core.optim.sum_squares([_dense(_local(g)) for g in watched if g is not None])
        if math.isfinite(total):
            return True
        self.num_skipped += 1
        if any(group["on_nonfinite"] == "raise" for group, _ in work):
            bad = [tuple(g.shape) for g in watched if g is not None and not bool(torch.isfinite(_local(g)).all())]
            raise GradientError(
                f"gradients must be finite, got inf or NaN in {len(bad)} of {len(watched)} tensors (shapes {bad[:3]}); "
                "no parameter was changed"
            )
        return False

    # ------------------------------------------------------------------ checks

    def _check_group(self, group: Mapping[str, Any]) -> None:
        check_lr(group["lr"])
        check_choice("state", group["state"], tuple(_STATE_DTYPES))
        check_choice("rounding", group["rounding"], ("nearest", "stochastic", "compensated"))
        check_choice("on_nonfinite", group["on_nonfinite"], ("propagate", "skip", "raise"))
        check_int("seed", group["seed"], low=0, high=2**64 - 1)
        self.check_hyper(group)

    def _compensated(self, group: Mapping[str, Any], p: torch.Tensor) -> bool:
        return group["rounding"] == "compensated" and p.dtype == torch.bfloat16

    def _number_params(self) -> None:
        # Position in the optimizer names a parameter's random bits.
        params = [p for g in self.param_groups for p in g["params"]]
        self._index = {p: i for i, p in enumerate(params)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._number_params()


def _check_grad(p: torch.Tensor) -> None:
    grad = p.grad
    assert grad is not None
    if grad.is_sparse or grad.layout is not torch.strided:
        raise TypeError(f"gradients must be dense, got a sparse gradient of shape {tuple(grad.shape)}; use SparseAdam")
    if grad.is_complex() or p.is_complex():
        raise TypeError(f"gradients must be real, got {grad.dtype} of shape {tuple(grad.shape)}; use view_as_real")
    if grad.device.type != "cpu":
        raise TypeError(f"parameters must be on the CPU, got {grad.device} (shape {tuple(grad.shape)})")


def _local(t: torch.Tensor) -> torch.Tensor:
    """The part of a distributed tensor this process holds; other tensors as they are."""
    return t._local_tensor if hasattr(t, "_local_tensor") else t


def _is_dense(t: torch.Tensor) -> bool:
    if t.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted((st, n) for st, n in zip(t.stride(), t.shape, strict=True) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def _dense(t: torch.Tensor) -> torch.Tensor:
    return t if _is_dense(t) else t.contiguous()


class _Part:
    """Some positions of a batch, sharing whether parameters carry a remainder."""

    def __init__(self, where: list[int], compensated: bool) -> None:
        self.where, self.compensated = where, compensated

    def pick(self, values: Iterable[Any]) -> list[Any]:
        items = list(values)
        return [items[i] for i in self.where]


class _Batch:
    """Local parameters and gradients of one call, with copies where a layout does not suit the engine."""

    def __init__(self, params: list[torch.Tensor], states: list[dict[str, Any]], slots: tuple[str, ...]) -> None:
        self.originals = [_local(p.detach()) for p in params]
        self.params = [_dense(p) for p in self.originals]
        self.grads = []
        for p, copy in zip(params, self.params, strict=True):
            assert p.grad is not None
            grad = _local(p.grad)
            same = grad.stride() == copy.stride() or (grad.is_contiguous() and copy.is_contiguous())
            self.grads.append(grad if same else torch.empty_like(copy, dtype=grad.dtype).copy_(grad))

    def split(self, remainders: list[Any]) -> list[_Part]:
        parts = [
            _Part([i for i, r in enumerate(remainders) if (r is not None) == flag], flag) for flag in (False, True)
        ]
        return [p for p in parts if p.where]

    def write_back(self) -> None:
        for original, used in zip(self.originals, self.params, strict=True):
            if original is not used:
                original.copy_(used)
