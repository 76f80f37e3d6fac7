"""The optimizer shared by every rule: parameter groups and state in torch's form, the step in the native engine."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch

from gramcore import _core
from gramcore._checks import check_choice, check_int, check_real
from gramcore.optim.layout import Batch, blocks_like, flat_like, global_norm, local

__all__ = ["FusedOptimizer", "GradientError"]

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_STATE_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
#: Elements per scale of quantised moments, and the size below which a tensor keeps fp32 moments.
_BLOCK = {"int8": 256, "int4": 128, "int4-rank1": 128}
MIN_QUANTISED = 4096

_BLOCKS_HINT = (
    "; codes move to another number of processes only where every shard has whole blocks (256 elements of int8, 128 of "
    "int4, never int4-rank1): load on as many processes as saved"
)

#: Options every optimizer takes beside its rule's numbers.
_GROUP_OPTIONS: dict[str, Any] = {
    "state": "fp32",
    "rounding": "nearest",
    "seed": 0,
    "maximize": False,
    "on_nonfinite": "propagate",
}


class GradientError(ValueError):
    """A gradient is not finite and ``on_nonfinite="raise"``."""


def check_lr(lr: Any) -> float:
    """Return ``lr`` as float if it is finite and >= 0; a 0-dim tensor is accepted."""
    return check_real("lr", lr.item() if isinstance(lr, torch.Tensor) and lr.ndim == 0 else lr, low=0.0)


def check_betas(betas: Any, count: int = 2) -> tuple[float, ...]:
    """Return ``betas`` as floats in [0, 1)."""
    if not isinstance(betas, (tuple, list)) or len(betas) != count:
        raise ValueError(f"betas must hold {count} numbers, got {betas!r}")
    values = tuple(betas)
    return tuple(check_real(f"betas[{i}]", b, low=0.0, high=1.0, high_open=True) for i, b in enumerate(values))


class FusedOptimizer(torch.optim.Optimizer):
    """Multi-tensor optimizer; subclasses name a rule and its numbers.

    One native call per parameter group updates every tensor in one pass over memory.  State tensors are plain tensors
    under the names torch uses, so a ``state_dict`` can be saved with ``weights_only`` loading or safetensors, and a
    resumed run continues bit for bit.

    Args:
        params: parameters, groups or named parameters: fp32, bf16 or fp16 tensors on the CPU.
        numbers: the rule's own numbers.
        options: what every optimizer takes:

            * ``state``: storage of the moments. ``"fp32"``, ``"bf16"``, ``"int8"`` (dynamic map, one scale per 256
              elements) or ``"int4"`` (signed dynamic map for the first moment, linear zero-free map for the second,
              one scale per 128). Tensors of fewer than 4096 elements keep fp32 when quantised. AdamW and Grams also
              take ``"int4-rank1"``: as ``"int4"``, but the second moment of a matrix is divided by the smaller of its
              row's and its column's largest value instead of its block's.
            * ``rounding``: how bf16 is stored. ``"nearest"``; ``"stochastic"``, right on average, with random bits
              that are a function of (seed, step, parameter, element); ``"compensated"``, a second bf16 tensor keeps
              what rounding of the parameter lost.
            * ``seed``: of the stochastic rounding, in [0, 2⁶⁴).
            * ``maximize``: ascend instead of descend.
            * ``on_nonfinite``: what inf or NaN in a gradient does. ``"propagate"``; ``"skip"`` the step, counted in
              ``num_skipped``; ``"raise"`` :class:`GradientError`, nothing changed.
            * ``max_grad_norm``: clip the global norm of all gradients to this while stepping, or None. The gradients
              themselves stay as they are; the norm is then in ``grad_norm``.
            * ``zero_grads``: leave zeros in the gradients, in the same pass.

    Subclasses define :attr:`rule`, :attr:`slots`, :meth:`hyper` and :meth:`check_hyper`.
    """

    #: Name of the native rule.
    rule: str
    #: torch.amp.GradScaler then leaves unscaling to the step, which reads each gradient once.
    _step_supports_amp_scaling = True
    #: Names of the moments, in the order the rule reads them.
    slots: tuple[str, ...]
    #: What ``state`` may be.
    storages: tuple[str, ...] = ("fp32", "bf16", "int8", "int4")

    def __init__(self, params: Any, numbers: dict[str, Any], options: dict[str, Any]) -> None:
        if isinstance(params, torch.nn.Module):
            raise TypeError(
                f"params must be parameters or groups, got a module {type(params).__name__}; pass its parameters(), or "
                "use gramcore.optim.create(name, module)"
            )
        own = dict(options)
        self.max_grad_norm = own.pop("max_grad_norm", None)
        self.zero_grads = bool(own.pop("zero_grads", False))
        if self.max_grad_norm is not None:
            check_real("max_grad_norm", self.max_grad_norm, low=0.0, low_open=True)
        unknown = sorted(own.keys() - _GROUP_OPTIONS.keys())
        if unknown:
            known = ", ".join((*_GROUP_OPTIONS, "max_grad_norm", "zero_grads"))
            raise TypeError(
                f"{type(self).__name__} got an unexpected keyword argument {unknown[0]!r}; beside its own numbers it "
                f"takes the options {known}"
            )
        full = {**_GROUP_OPTIONS, **own, **numbers, "algorithm": self.algorithm()}
        self._check_group(full)
        super().__init__(params, full)
        self.num_skipped = 0
        self.grad_norm: float | None = None
        self._grad_scale = 1.0
        self._noise: Any = None

    # ------------------------------------------------------------------ to be defined by a rule

    @abstractmethod
    def hyper(self, group: Mapping[str, Any]) -> dict[str, float]:
        """The rule's numbers for one group, as the native engine names them."""

    @abstractmethod
    def check_hyper(self, group: Mapping[str, Any]) -> None:
        """Raise if a number of the group is out of range."""

    def algorithm(self) -> str:
        """What state belongs to: saved with it, and compared when it is loaded."""
        return type(self).__name__

    def lr_scales(self, group: Mapping[str, Any], params: list[torch.Tensor]) -> list[float]:
        """Multiples of lr per parameter (distributed ones whole), or an empty list for none."""
        return []

    # ------------------------------------------------------------------ torch's interface

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self._check_group({**self.defaults, **param_group})
        super().add_param_group(param_group)
        params = self.param_groups[-1]["params"]
        if len(set(params)) < len(params):
            self.param_groups.pop()
            raise ValueError(f"parameters must be given once, got {len(params)} of which {len(set(params))} differ")
        for p in params:
            if p.dtype not in _FLOATS:
                self.param_groups.pop()
                raise TypeError(
                    f"parameters must be float32, bfloat16 or float16, got {p.dtype} of shape {tuple(p.shape)}; "
                    "convert it, or leave it out of the optimizer"
                )
        self._number_params()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient and elements; returns the closure's loss.

        Raises:
            TypeError: a sparse or complex gradient.
            GradientError: a gradient is not finite and the group's ``on_nonfinite`` is ``"raise"``; nothing changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = [
            (group, [p for p in group["params"] if p.grad is not None and p.numel() > 0]) for group in self.param_groups
        ]
        work = [(group, params) for group, params in work if params]
        for group, params in work:
            self._check_group(group)
            for p in params:
                self.check_param(group, p)
        if self._may_step(work):
            for group, params in work:
                self._step_group(group, params)
        return loss

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` gave, keeping the dtype of every state tensor.

        Numbers that the groups do not hold stay as they are, so the state of torch's optimizer of the same rule can be
        taken over where the names are the same (AdamW, Adam, SGD with momentum).

        Raises:
            ValueError: another optimizer's state, or tensors of another shape; nothing is changed then.
        """
        if not {"param_groups", "state"} <= set(state_dict):
            raise ValueError(f"state_dict must hold param_groups and state, got {sorted(map(str, state_dict))[:5]}")
        groups, saved = state_dict["param_groups"], state_dict["state"]
        lengths = [len(g["params"]) for g in groups]
        if lengths != [len(g["params"]) for g in self.param_groups]:
            raise ValueError(
                f"state_dict must have parameter groups of sizes {[len(g['params']) for g in self.param_groups]}, "
                f"got {lengths}"
            )
        restored, merged = {}, []
        for mine, theirs in zip(self.param_groups, groups, strict=True):
            made_by = theirs.get("algorithm", mine["algorithm"])
            if made_by != mine["algorithm"]:
                raise ValueError(f"state_dict must be one of {mine['algorithm']}, got one of {made_by}")
            if theirs.get("state", mine["state"]) != mine["state"]:
                raise ValueError(
                    f"state_dict must hold moments stored as {mine['state']}, got {theirs['state']}; "
                    f"make the optimizer with state={theirs['state']!r}"
                )
            group = {**mine, **theirs}
            merged.append(group)
            self._check_group(group)
            for i, p in zip(theirs["params"], mine["params"], strict=True):
                if saved.get(i, {}) != {}:  # looking at the state of a parameter that has none leaves an empty one
                    restored[p] = self._restore(group, saved[i], p)
        super().load_state_dict({"state": {}, "param_groups": merged})
        for p, values in restored.items():
            self.state[p] = values

    # ------------------------------------------------------------------ state

    def init_state(self, group: Mapping[str, Any], p: torch.Tensor) -> dict[str, torch.Tensor]:
        """State of a parameter before its first step."""
        state = {"step": torch.zeros((), dtype=torch.float32)}
        for name in self.slots:
            state.update(moment_state(name, p, group["state"]))
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
                    + (_BLOCKS_HINT if wanted[name.removesuffix("_scale")].dtype is torch.uint8 else "")
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
        return sum(local(t).numel() * t.element_size() for t in tensors)

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
        steps = [next_step(s) for s in states]
        batch = Batch(params, drawn=self._noise is not None)
        numbers = {**self.hyper(group), "maximize": float(group["maximize"]), "grad_scale": self._grad_scale}
        scales = self.lr_scales(group, params)
        scale_name = f"{self.slots[0]}_scale" if self.slots else ""
        kinds = [("remainder" in s, scale_name in s) for s in states]
        for compensated, quantised in sorted(set(kinds)):
            where = [i for i, kind in enumerate(kinds) if kind == (compensated, quantised)]
            part = [states[i] for i in where]
            _core.optim.step(
                self.rule,
                numbers,
                [batch.params[i] for i in where],
                None if self._noise else [batch.grads[i] for i in where],
                [[local(s[name]) for s in part] for name in self.slots],
                [steps[i] for i in where],
                [self._index[params[i]] for i in where],
                scales=[[local(s[f"{name}_scale"]) for s in part] for name in self.slots] if quantised else [],
                remainders=[local(s["remainder"]) for s in part] if compensated else None,
                lr_scales=[scales[i] for i in where] if scales else [],
                stochastic=group["rounding"] == "stochastic",
                seed=group["seed"],
                zero_grad=self.zero_grads,
                noise=self._noise,
                storage=group["state"],
            )
        batch.write_back(self.zero_grads)

    def _may_step(self, work: list[tuple[dict[str, Any], list[torch.Tensor]]]) -> bool:
        """Measure the gradients if clipping or a group's policy asks for it; False: skip this step."""
        policies = {group["on_nonfinite"] for group, _ in work}
        # torch.amp.GradScaler sets these two for the duration of a step.
        loss_scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        if found_inf is not None and float(found_inf) > 0:
            self.num_skipped += 1
            return False
        self._grad_scale = unscale = 1.0 if loss_scale is None else 1.0 / float(loss_scale)
        if self.max_grad_norm is None and policies <= {"propagate"}:
            return True
        grads = [p.grad for _, params in work for p in params if p.grad is not None]
        norm = global_norm(grads) * unscale
        self.grad_norm = norm
        if math.isfinite(norm) or policies <= {"propagate"}:
            if self.max_grad_norm is not None:
                self._grad_scale *= min(1.0, self.max_grad_norm / (norm + 1e-6)) if math.isfinite(norm) else norm
            return True
        self.num_skipped += 1
        if "raise" in policies:
            bad = [tuple(g.shape) for g in grads if not bool(torch.isfinite(local(g)).all())]
            raise GradientError(
                f"gradients must be finite, got inf or NaN in {len(bad)} of {len(grads)} tensors (shapes {bad[:3]}); "
                "no parameter was changed"
            )
        return False

    # ------------------------------------------------------------------ checks

    def check_param(self, group: Mapping[str, Any], p: torch.Tensor) -> None:
        """Raise if this parameter or its gradient cannot be stepped; called before anything is changed."""
        _check_grad(p)

    def _check_group(self, group: Mapping[str, Any]) -> None:
        check_lr(group["lr"])
        check_choice("state", group["state"], self.storages)
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

    def __getstate__(self) -> dict[str, Any]:
        # torch keeps groups and state alone; what names start with is its own bookkeeping.
        own = {k: v for k, v in self.__dict__.items() if not k.startswith(("_optimizer", "_zero_grad", "_warned"))}
        return {**own, **super().__getstate__(), "_index": {}}  # type: ignore[no-untyped-call]

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


def next_step(state: dict[str, Any]) -> int:
    """Advance a parameter's step count and return it."""
    return int(state["step"].add_(1.0).item())


def moment_state(name: str, like: torch.Tensor, storage: str) -> dict[str, torch.Tensor]:
    """Zero moment of the shape of ``like``: one tensor, or codes and ``<name>_scale``."""
    # The size of the whole tensor decides, so that sharding does not change how a tensor is stored.
    if storage in _STATE_DTYPES or like.numel() < MIN_QUANTISED:
        return {name: torch.zeros_like(like, dtype=_STATE_DTYPES.get(storage, torch.float32), requires_grad=False)}
    wide, first = storage == "int8", name == "exp_avg"
    by_axes = storage == "int4-rank1" and not first and like.ndim == 2

    block, zero = _BLOCK[storage], (127 if wide else 0x77) if first else 0

    def codes(numel: int) -> int:
        return numel if wide else (numel + 1) // 2

    if by_axes:  # the largest values of columns are those of the shard
        return {
            name: flat_like(lambda s: codes(s.numel()), zero, torch.uint8, like),
            f"{name}_scale": flat_like(sum, 0, torch.float32, like),
        }
    return {
        name: blocks_like(codes, block, zero, torch.uint8, like),
        f"{name}_scale": blocks_like(lambda n: -(-n // block), block, 0, torch.float32, like),
    }
