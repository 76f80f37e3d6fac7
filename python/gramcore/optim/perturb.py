"""LoRA-GGPO: low-rank adapters trained under noise sized by weights and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from gramcore._checks import check_choice, check_real
from gramcore.optim.subspace import generator_for

__all__ = ["LoraLayer", "LoraPerturbation", "lora_layers"]


@dataclass(frozen=True)
class LoraLayer:
    """A linear layer with an adapter: y = (W + scale · B A) x.

    Attributes: module: whose forward pass is perturbed.  weight: W (M, N).  a: A (r, N).  b: B (M, r).
    """

    module: torch.nn.Module
    weight: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    scale: float = 1.0


def lora_layers(model: torch.nn.Module, adapter: str = "default") -> list[LoraLayer]:
    """The adapted linear layers of a peft model.  Args: adapter: its name there."""
    found = []
    for module in model.modules():
        parts: Any = module
        if hasattr(module, "lora_A") and hasattr(module, "base_layer") and adapter in parts.lora_A:
            a, b = parts.lora_A[adapter].weight, parts.lora_B[adapter].weight
            found.append(LoraLayer(module, parts.base_layer.weight, a, b, float(parts.scaling[adapter])))
    return found


class LoraPerturbation:
    """Add noise E to the merged weight of every adapted layer during training passes.

    y ← y + E x,  E_ij ~ N(0, τ_i²),  τ_i² = (σ² / N) (‖W'_i‖² + β ‖∇_i‖²) per output row i, W' = W + s B A,
    ∇ = s (B ∇A + ∇B A) from the previous backward pass (0 before the first).  No gradient flows through E, which is the
    same within a step: it is a function of (seed, layer, step).

    State: one number per output row.  Hooks exist only inside the ``with`` block.

    Args:
        layers: see :func:`lora_layers`.
        optimizer: whose steps are counted.
        sigma: σ >= 0.
        beta: β >= 0.
        form: ``"variance"`` as above; ``"deviation"``: τ_i = (σ ‖W'_i‖ + β ‖∇_i‖²) / √N, a common trainer's form.
        seed: of the noise, in [0, 2⁶³).

    Raises:
        ValueError: a number outside its interval, or no layer.

    Differs from paper: norms are exact, not estimated from sampled rows.

    Reference: Chang et al. 2025, arXiv:2502.14538, eq. 6 to 8.

    Example:
        >>> import torch
        >>> from gramcore.optim import SGD, LoraLayer, LoraPerturbation
        >>> layer = torch.nn.Linear(4, 4, bias=False)
        >>> a, b = torch.nn.Parameter(torch.ones(1, 4)), torch.nn.Parameter(torch.zeros(4, 1))
        >>> optimizer = SGD([a, b], lr=0.1)
        >>> x, clean = torch.ones(1, 4), layer(torch.ones(1, 4))
        >>> with LoraPerturbation([LoraLayer(layer, layer.weight, a, b)], optimizer):
        ...     noisy = layer(x)
        >>> bool((noisy != clean).all()), bool((layer(x) == clean).all())
        (True, True)
    """

    def __init__(
        self,
        layers: Iterable[LoraLayer],
        optimizer: torch.optim.Optimizer,
        *,
        sigma: float = 0.03,
        beta: float = 0.01,
        form: str = "variance",
        seed: int = 0,
    ) -> None:
        self.layers = list(layers)
        if not self.layers:
            raise ValueError("layers must hold an adapted layer, got none")
        self.optimizer = optimizer
        self.sigma = check_real("sigma", sigma, low=0.0)
        self.beta = check_real("beta", beta, low=0.0)
        self.form = check_choice("form", form, ("variance", "deviation"))
        self.seed = seed
        self.num_steps = 0
        self.grad_norms = [torch.zeros(layer.weight.shape[0]) for layer in self.layers]
        self._handles: list[Any] = []

    def __enter__(self) -> LoraPerturbation:
        for index, layer in enumerate(self.layers):
            self._handles.append(layer.module.register_forward_hook(self._forward_hook(index, layer)))
            for p in (layer.a, layer.b):
                hook = self._gradient_hook(index, layer)
                self._handles.append(p.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]
        self._handles.append(self.optimizer.register_step_post_hook(self._advance))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @torch.no_grad()
    def deviations(self, index: int) -> torch.Tensor:
        """τ (M) of one layer."""
        layer = self.layers[index]
        w, s = layer.weight.float(), layer.scale
        square = w.square().sum(dim=1) + 2 * s * ((w @ layer.a.float().T) * layer.b.float()).sum(dim=1)
        square = (square + s * s * _row_squares((layer.b, layer.a))).clamp_min_(0.0)
        gradient = self.grad_norms[index].square()
        if self.form == "variance":
            return (self.sigma**2 / w.shape[1] * (square + self.beta * gradient)).sqrt()
        return (self.sigma * square.sqrt() + self.beta * gradient) / w.shape[1] ** 0.5

    def state_dict(self) -> dict[str, Any]:
        """Step count and gradient norms."""
        return {"num_steps": self.num_steps, "grad_norms": list(self.grad_norms)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        if [tuple(x.shape) for x in state["grad_norms"]] != [tuple(x.shape) for x in self.grad_norms]:
            raise ValueError("state_dict must hold norms of these layers, got other shapes")
        self.num_steps, self.grad_norms = int(state["num_steps"]), list(state["grad_norms"])

    def _forward_hook(self, index: int, layer: LoraLayer) -> Callable[..., torch.Tensor]:
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            if not module.training:
                return output
            generator = generator_for(self.seed, index, self.num_steps)
            noise = torch.randn(layer.weight.shape, generator=generator).mul_(self.deviations(index)[:, None])
            added: torch.Tensor = torch.nn.functional.linear(inputs[0], noise.to(inputs[0].dtype))
            return output + added

        return hook

    def _gradient_hook(self, index: int, layer: LoraLayer) -> Callable[[torch.Tensor], None]:
        def hook(_: torch.Tensor) -> None:
            if layer.a.grad is not None and layer.b.grad is not None:
                squares = _row_squares((layer.b, layer.a.grad), (layer.b.grad, layer.a))
                self.grad_norms[index] = layer.scale * squares.clamp_min_(0.0).sqrt()

        return hook

    def _advance(self, *_: Any) -> None:
        self.num_steps += 1


@torch.no_grad()
def _row_squares(*products: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Squared row norms of the sum of products left (M, r) · right (r, N), without forming it."""
    left = torch.cat([a.float() for a, _ in products], dim=1)
    right = torch.cat([b.float() for _, b in products], dim=0)
    return ((left @ (right @ right.T)) * left).sum(dim=1)
