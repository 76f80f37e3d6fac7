"""Steps fused into the backward pass: LOMO, AdaLomo, and gradient release for any optimizer here."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any

import torch

from gramcore._checks import check_int, check_real
from gramcore.optim.base import FusedOptimizer, GradientError
from gramcore.optim.layout import global_norm

__all__ = ["FusedBackward"]


class FusedBackward:
    """Update each parameter as soon as its gradient exists, then free the gradient.

    With :class:`~gramcore.optim.SGD` this is LOMO; with :class:`~gramcore.optim.Adafactor` and
    ``relative_step=False`` it is AdaLomo; with any other optimizer it is gradient release.  At most one parameter's
    gradient is alive at a time.  The hooks exist only inside the ``with`` block.

    Args:
        optimizer: any :class:`~gramcore.optim.FusedOptimizer`.
        max_grad_norm: clip the global norm, > 0, or None.  Needs the norm before the first update, so
            :meth:`backward` then runs the backward pass twice.
        clip_value: clamp gradients to this magnitude, > 0, or None.
        loss_scale: > 0: multiply the loss by this in the backward pass and divide gradients by it, as fp16 needs.
            Doubles after ``growth_every`` good steps; halves, and the step is dropped, when a gradient overflows. Needs
            ``max_grad_norm``, which looks at the gradients before the first update.
        growth_every: good steps between doublings, >= 1.

    Raises:
        ValueError: a number outside its interval, or an ``on_nonfinite`` policy without ``max_grad_norm``.

    Differs from paper: none.

    Reference: Lv et al. 2023, arXiv:2306.09782, Alg. 1; Lv et al. 2023, arXiv:2310.10195, Alg. 1.

    Example:
        >>> import torch
        >>> from gramcore.optim import SGD, FusedBackward
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> with FusedBackward(SGD([w], lr=0.1)) as fused:
        ...     fused.backward(w.sum())
        >>> [round(x, 4) for x in w.tolist()], w.grad
        ([0.9, 0.9], None)
    """

    def __init__(
        self,
        optimizer: FusedOptimizer,
        *,
        max_grad_norm: float | None = None,
        clip_value: float | None = None,
        loss_scale: float | None = None,
        growth_every: int = 1000,
    ) -> None:
        numbers = {"max_grad_norm": max_grad_norm, "clip_value": clip_value, "loss_scale": loss_scale}
        for name, value in numbers.items():
            if value is not None:
                check_real(name, value, low=0.0, low_open=True)
        self.growth_every = check_int("growth_every", growth_every, low=1)
        if loss_scale is not None and max_grad_norm is None:
            raise ValueError("loss_scale must come with max_grad_norm, got None; overflow must be seen before a step")
        policies = {group["on_nonfinite"] for group in optimizer.param_groups}
        if max_grad_norm is None and policies != {"propagate"}:
            raise ValueError(
                f"on_nonfinite must be 'propagate' without max_grad_norm, got {sorted(policies)}; "
                "the first update happens before the last gradient is known"
            )
        self.optimizer, self.max_grad_norm, self.clip_value = optimizer, max_grad_norm, clip_value
        self.loss_scale = loss_scale
        self.grad_norm: float | None = None
        self._good_steps = 0
        self._handles: list[Any] = []
        self._measuring = False
        self._total = 0.0

    def __enter__(self) -> FusedBackward:
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                if p.requires_grad:
                    self._handles.append(p.register_post_accumulate_grad_hook(self._hook(group)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def backward(self, loss: torch.Tensor) -> None:
        """Run the backward pass of ``loss`` and every update in it."""
        if not self._handles:
            raise RuntimeError("backward must run inside the with block, got no hooks; use `with FusedBackward(...)`")
        unscale = 1.0 / (self.loss_scale or 1.0)
        if self.loss_scale is not None:
            loss = loss * self.loss_scale
        scale = self._measured_scale(loss, unscale) if self.max_grad_norm is not None else 1.0
        if scale is None:
            return
        self.optimizer._grad_scale = scale * unscale
        try:
            torch.autograd.backward(loss)
        finally:
            self.optimizer._grad_scale = 1.0
        self._adapt(overflow=False)
        self.optimizer.step()  # nothing is left to do; learning-rate schedulers see that a step was taken

    def _measured_scale(self, loss: torch.Tensor, unscale: float) -> float | None:
        """A backward pass for the norm alone: the factor that clips it, or None to drop this step."""
        assert self.max_grad_norm is not None
        self._measuring, self._total = True, 0.0
        try:
            torch.autograd.backward(loss, retain_graph=True)
        finally:
            self._measuring = False
        self.grad_norm = self._total**0.5 * unscale
        if math.isfinite(self.grad_norm):
            return min(1.0, self.max_grad_norm / (self.grad_norm + 1e-6))
        policies = {group["on_nonfinite"] for group in self.optimizer.param_groups}
        if self.loss_scale is None and policies == {"propagate"}:
            return self.grad_norm
        self.optimizer.num_skipped += 1
        self._adapt(overflow=True)
        if "raise" in policies:
            raise GradientError(f"gradients must be finite, got norm {self.grad_norm}; no parameter was changed")
        return None

    def _adapt(self, overflow: bool) -> None:
        if self.loss_scale is None:
            return
        self._good_steps = 0 if overflow else self._good_steps + 1
        if overflow:
            self.loss_scale /= 2
        elif self._good_steps % self.growth_every == 0:
            self.loss_scale *= 2

    def _hook(self, group: dict[str, Any]) -> Any:
        def run(p: torch.Tensor) -> None:
            assert p.grad is not None
            if p.numel() == 0:
                pass
            elif self._measuring:
                self._total += global_norm([p.grad]) ** 2
            else:
                with torch.no_grad():
                    if self.clip_value is not None:
                        bound = self.clip_value * (self.loss_scale or 1.0)
                        p.grad.clamp_(-bound, bound)
                    self.optimizer._step_group(group, [p])
            p.grad = None

        return run
