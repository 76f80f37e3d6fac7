"""The zeroth-order engine: directions drawn from a seed, estimates of the slope along them, any elementwise rule.

An algorithm is an :class:`Estimator` (how the slope along a direction is measured), a rule (any elementwise
:class:`~gramcore.optim.FusedOptimizer`, whose moments may be in any storage) and where directions live: all elements,
a random share of them, or one block of parameters at a time.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from gramcore import _core
from gramcore._checks import check_int, check_real
from gramcore.optim.base import FusedOptimizer, GradientError
from gramcore.optim.direction import DirectionOptimizer
from gramcore.optim.layout import dense

__all__ = ["Directions", "Estimator", "ForwardGradient", "OneSided", "TwoSided", "ZerothOrder"]

Closure = Callable[[], torch.Tensor]


class Directions:
    """Standard normal directions z that are drawn, never stored: element i of parameter k in draw d is a function of
    (seed, d, k, i).

    Args: params: numbered in this order.  seed: in [0, 2⁶⁴).  keep_frac: share of elements a direction moves.
    """

    def __init__(self, params: Sequence[torch.Tensor], seed: int, keep_frac: float) -> None:
        self.index = {p: i for i, p in enumerate(params)}
        self.seed, self.keep_frac = seed, keep_frac

    def noise(self, draws: Sequence[tuple[int, float]]) -> Any:
        """The sum over ``draws`` (d, amount) of amount · z, as the native engine takes it for a gradient."""
        return _core.optim.Noise(self.seed, list(draws), self.keep_frac)

    @torch.no_grad()
    def move(self, params: Sequence[torch.Tensor], draw: int, amount: float) -> None:
        """W ← W + amount · z."""
        values = [p.detach() for p in params]
        used = [dense(v) for v in values]
        ids = [self.index[p] for p in params]
        noise = self.noise([(draw, 1.0)])
        _core.optim.step("sgd", {"lr": -amount}, used, None, [], [1] * len(ids), ids, noise=noise)
        for value, own in zip(values, used, strict=True):
            if own is not value:
                value.copy_(own)

    @torch.no_grad()
    def vector(self, p: torch.Tensor, draw: int) -> torch.Tensor:
        """z of one parameter, as a tensor."""
        z = torch.zeros_like(p, requires_grad=False)
        _core.optim.step("sgd", {"lr": -1.0}, [z], None, [], [1], [self.index[p]], noise=self.noise([(draw, 1.0)]))
        return z

    @contextmanager
    def excursion(self, params: Sequence[torch.Tensor], draw: int) -> Iterator[Callable[[float], None]]:
        """Gives a function that moves the parameters to W + amount z; on exit, by an error too, they are at W again."""
        place = 0.0

        def go(amount: float) -> None:
            nonlocal place
            self.move(params, draw, amount - place)
            place = amount

        try:
            yield go
        finally:
            go(0.0)


class Estimator(ABC):
    """Measures the slope ∂L/∂z of the loss along one direction, leaving the parameters where they were."""

    #: Forward passes per direction.
    forwards: int

    @abstractmethod
    def slope(self, directions: Directions, params: Sequence[torch.Tensor], draw: int, closure: Closure) -> float:
        """The slope along direction ``draw`` of ``params``; ``self.loss`` is a loss met on the way."""

    loss: torch.Tensor


class TwoSided(Estimator):
    """(L(W + ε z) − L(W − ε z)) / 2ε: two forward passes, an error of order ε².

    Args: epsilon: ε > 0.
    Raises: ValueError: ε that is not above 0.  TypeError: not a number.
    Reference: Malladi et al. 2023, arXiv:2305.17333, Definition 1.
    """

    forwards = 2

    def __init__(self, epsilon: float) -> None:
        self.epsilon = check_real("epsilon", epsilon, low=0.0, low_open=True)

    def slope(self, directions: Directions, params: Sequence[torch.Tensor], draw: int, closure: Closure) -> float:
        with directions.excursion(params, draw) as go:
            go(self.epsilon)
            self.loss = closure()
            go(-self.epsilon)
            other = closure()
        return float(self.loss - other) / (2 * self.epsilon)


class OneSided(Estimator):
    """(L(W + ε z) − L(W)) / ε: two forward passes, an error of order ε.

    Args: epsilon: ε > 0.
    Raises: ValueError: ε that is not above 0.  TypeError: not a number.
    Reference: Zhang et al. 2024, arXiv:2402.11592, section 2.
    """

    forwards = 2

    def __init__(self, epsilon: float) -> None:
        self.epsilon = check_real("epsilon", epsilon, low=0.0, low_open=True)

    def slope(self, directions: Directions, params: Sequence[torch.Tensor], draw: int, closure: Closure) -> float:
        self.loss = closure()
        with directions.excursion(params, draw) as go:
            go(self.epsilon)
            other = closure()
        return float(other - self.loss) / self.epsilon


class ForwardGradient(Estimator):
    """∇L·z exactly, by forward-mode differentiation: one forward pass, which carries z beside the parameters.

    Args: model: whose parameters become dual numbers during the pass; tied parameters share one tangent.
    """

    forwards = 1

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model

    def slope(self, directions: Directions, params: Sequence[torch.Tensor], draw: int, closure: Closure) -> float:
        chosen = set(params)
        with warnings.catch_warnings():  # torch's own use of torch.jit, on the first pass
            warnings.simplefilter("ignore", DeprecationWarning)
            return self._tangent(directions, chosen, draw, closure)

    def _tangent(self, directions: Directions, chosen: set[torch.Tensor], draw: int, closure: Closure) -> float:
        with torch.autograd.forward_ad.dual_level(), self._duals(directions, chosen, draw):
            self.loss, tangent = torch.autograd.forward_ad.unpack_dual(closure())  # type: ignore[no-untyped-call]
        return 0.0 if tangent is None else float(tangent)

    @contextmanager
    def _duals(self, directions: Directions, chosen: set[torch.Tensor], draw: int) -> Iterator[None]:
        duals: dict[torch.Tensor, torch.Tensor] = {}
        replaced: list[tuple[torch.nn.Module, str, torch.nn.Parameter]] = []
        try:
            for module in self.model.modules():
                for name, p in module._parameters.items():
                    if p is None or p not in chosen:
                        continue
                    if p not in duals:
                        z = directions.vector(p, draw)
                        duals[p] = torch.autograd.forward_ad.make_dual(p.detach(), z)  # type: ignore[no-untyped-call]
                    replaced.append((module, name, p))
                    module._parameters[name] = duals[p]  # type: ignore[assignment]
            yield
        finally:
            for module, name, p in replaced:
                module._parameters[name] = p


class ZerothOrder:
    """Steps of a rule on gradients estimated from forward passes.

    For each of ``queries`` directions z_q:  p_q = slope along z_q;  g = Σ p_q z_q / queries;  W ← rule(W, g).
    Neither z nor g is stored: the native engine draws them block by block while it steps.

    State: that of ``base`` and one number, the step.

    Args:
        base: an elementwise optimizer (SGD, Lion, AdamW, …) over the parameters to train; learning-rate schedulers
            attach to it.
        estimator: measures slopes.
        queries: directions averaged per step, >= 1.
        keep_frac: share of elements that a direction moves, drawn anew each time, in (0, 1].
        blocks: lists of parameters perturbed and stepped in turn, each by its own slope, or None for all at once.
        sign: use the sign of each slope in its place.
        conservative: try one step forward and one backward and keep the best of the three weights: three more forward
            passes; ``base`` must be without state.
        seed: in [0, 2⁶⁴).

    Attributes:
        group: processes that hold replicas and get a part of each batch: slopes are averaged over them, so that
            replicas stay the same. None, as made: this process is alone.

    Raises:
        ValueError: a number outside its interval, or a base with state for ``conservative``.
        TypeError: a base that is not elementwise, or distributed parameters.

    Differs from paper: the random stream.  Directions of one level of instruction set differ from another's in the last
    bits of fp32.

    Reference: Malladi et al. 2023, arXiv:2305.17333, Alg. 1; Zhang et al. 2024, arXiv:2402.11592.

    Example:
        >>> import torch
        >>> from gramcore.optim import SGD, TwoSided, ZerothOrder
        >>> w = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = ZerothOrder(SGD([w], lr=0.05), TwoSided(1e-3))
        >>> losses = [optimizer.step(lambda: (w * w).sum()).item() for _ in range(60)]
        >>> losses[-1] < 0.1 * losses[0]
        True
    """

    def __init__(
        self,
        base: FusedOptimizer,
        estimator: Estimator,
        *,
        queries: int = 1,
        keep_frac: float = 1.0,
        blocks: Sequence[Sequence[torch.Tensor]] | None = None,
        sign: bool = False,
        conservative: bool = False,
        seed: int = 0,
    ) -> None:
        if not isinstance(base, FusedOptimizer) or isinstance(base, DirectionOptimizer):
            raise TypeError(
                f"base must be an elementwise gramcore optimizer, got {type(base).__name__}; use SGD or AdamW"
            )
        self.base, self.estimator = base, estimator
        self.queries = check_int("queries", queries, low=1)
        check_real("keep_frac", keep_frac, low=0.0, high=1.0, low_open=True)
        check_int("seed", seed, low=0, high=2**64 - 1)
        self.sign, self.conservative = bool(sign), bool(conservative)
        if self.conservative and base.slots:
            raise ValueError(
                f"base must be without state for conservative steps, got {type(base).__name__} with moments"
            )
        if self.conservative and any(g["weight_decay"] for g in base.param_groups):
            raise ValueError("weight_decay must be 0 for conservative steps, got another; steps must undo each other")
        params = [p for g in base.param_groups for p in g["params"]]
        if any(hasattr(p, "_local_tensor") for p in params):
            raise TypeError(
                "zeroth-order steps need whole parameters, got distributed ones; use replicas and the attribute group"
            )
        self.group: Any = None
        self.directions = Directions(params, seed, keep_frac)
        trained = [p for p in params if p.requires_grad]
        self.blocks = [[p for p in block if p.requires_grad] for block in blocks] if blocks else [trained]
        self.blocks = [block for block in self.blocks if block]
        unknown = [p for block in self.blocks for p in block if p not in self.directions.index]
        if unknown or not self.blocks:
            raise ValueError(f"blocks must hold trainable parameters of base, got {len(unknown)} others")
        self.num_steps = 0
        self.slopes: list[float] = []

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the base optimizer."""
        return self.base.param_groups

    @torch.no_grad()
    def step(self, closure: Closure) -> torch.Tensor:
        """One step; ``closure`` returns the loss without a backward pass.  Returns a loss met on the way.

        Raises:
            GradientError: a slope is not finite and a group's ``on_nonfinite`` is ``"raise"``; the block it belongs to
                is where it was, but for the rounding of going along the direction and back.
        """
        self.slopes = []
        draw = self.num_steps * self.queries  # blocks share draws: each parameter has its own values in a draw
        for block in self.blocks:
            draws = []
            for query in range(draw, draw + self.queries):
                slope = self._shared(self.estimator.slope(self.directions, block, query, closure))
                self.slopes.append(slope)
                amount = float(slope > 0) - float(slope < 0) if self.sign and not math.isnan(slope) else slope
                draws.append((query, amount / self.queries))
            if not self._may_step(block):
                continue
            self._apply(block, draws)
            if self.conservative:
                self._choose(block, draws, closure)
        self.num_steps += 1
        self.base.step()  # no gradient is left to do; learning-rate schedulers see that a step was taken
        return self.estimator.loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's state and the step count; everything else is given to the constructor."""
        return {"base": self.base.state_dict(), "num_steps": self.num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        num_steps = check_int("num_steps", state["num_steps"], low=0)
        self.base.load_state_dict(state["base"])
        self.num_steps = num_steps

    def _may_step(self, block: Sequence[torch.Tensor]) -> bool:
        """Whether the last slopes, those of this block, are finite, or its groups' policy lets others through."""
        slopes, chosen = self.slopes[-self.queries :], set(block)
        policies = {g["on_nonfinite"] for g in self.base.param_groups if chosen.intersection(g["params"])}
        if all(math.isfinite(slope) for slope in slopes) or policies <= {"propagate"}:
            return True
        self.base.num_skipped += 1
        if "raise" in policies:
            self.num_steps += 1  # the next step draws other directions
            raise GradientError(f"slopes must be finite, got {slopes}; the closure's loss is inf or NaN near here")
        return False

    def _apply(self, block: Sequence[torch.Tensor], draws: Sequence[tuple[int, float]]) -> None:
        """A step of the base optimizer on the parameters of one block."""
        chosen = set(block)
        self.base._noise = self.directions.noise(draws)
        try:
            for group in self.base.param_groups:
                params = [p for p in group["params"] if p in chosen]
                if params:
                    self.base._check_group(group)
                    self.base._step_group(group, params)
        finally:
            self.base._noise = None

    def _shared(self, value: float) -> float:
        """Mean of a number over the replicas."""
        if self.group is None:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        torch.distributed.all_reduce(total, group=self.group)
        return total.item() / torch.distributed.get_world_size(self.group)

    def _choose(self, block: Sequence[torch.Tensor], draws: Sequence[tuple[int, float]], closure: Closure) -> None:
        # We stand at W − step.  Go on to W and W + step, then back to the best of the three.
        def measured() -> float:
            loss = self._shared(float(closure()))
            return math.inf if math.isnan(loss) else loss

        losses = [measured()]
        for _ in range(2):
            self._apply(block, [(d, -a) for d, a in draws])
            losses.append(measured())
        for _ in range(2 - losses.index(min(losses))):
            self._apply(block, draws)
