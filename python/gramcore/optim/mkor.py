"""MKOR: Kronecker-factored preconditioning with rank-1 updates of the inverse factors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from gramcore._checks import check_choice, check_int, check_real
from gramcore.optim.layout import local
from gramcore.optim.rows import rows_of

__all__ = ["MKOR"]


class MKOR:
    """Precondition the gradients of linear layers by inverse Kronecker factors, then step any optimizer.

    With a the mean input and g the summed output gradient of a layer (one vector each):
    L ← γ L + (1−γ) g gᵀ,  R ← γ R + (1−γ) a aᵀ, kept as inverses by rank-1 updates;
    G' = L⁻¹ G R⁻¹ · ‖G‖ / ‖L⁻¹ G R⁻¹‖, the bias being one more column of G and one more input of 1.

    State: M² + N² fp32 numbers per layer, beside the base optimizer's.  Cost: O(M² + N²) per factor update and two
    products of a matrix with G per step.

    Args:
        model: its ``torch.nn.Linear`` modules are preconditioned, unless named in ``exclude``.
        base: the optimizer that takes the step.
        decay: γ in (0, 1).
        update_every: steps between factor updates, >= 1.
        update: ``"exact"``, the inverse of the averaged factor (Sherman and Morrison); ``"paper"``, the printed form
            L⁻¹ ← γ L⁻¹ + (1−γ) L⁻¹ g gᵀ L⁻¹ / (γ² (1 + γ (1−γ) gᵀ L⁻¹ g)), positive definite in any precision.
        max_entry: a factor whose largest magnitude exceeds this, > 0, is drawn towards the identity.
        damping: ζ in [0, 1]: then L⁻¹ ← ζ L⁻¹ + (1−ζ) I.
        exclude: names of modules left alone, for example ``("lm_head",)``.
        group: processes over which statistics are averaged; found by itself when ``model`` is a DistributedDataParallel
            or went through ``fully_shard``.

    Raises:
        ValueError: a number outside its interval, or no linear layer.

    Differs from paper: ``"exact"`` by default; the statistics are fp32; one stabiliser per factor.

    Reference: Mozaffari et al. 2023, "MKOR: Momentum-Enabled Kronecker-Factor-Based Optimizer Using Rank-1 Updates",
    arXiv:2306.01685, Alg. 1.

    Example:
        >>> import torch
        >>> from gramcore.optim import MKOR, SGD
        >>> layer = torch.nn.Linear(4, 2)
        >>> optimizer = MKOR(layer, SGD(layer.parameters(), lr=0.1), update_every=1)
        >>> with optimizer.collecting():
        ...     layer(torch.ones(3, 4)).square().sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        model: torch.nn.Module,
        base: torch.optim.Optimizer,
        *,
        decay: float = 0.9,
        update_every: int = 10,
        update: str = "exact",
        max_entry: float = 100.0,
        damping: float = 0.1,
        exclude: tuple[str, ...] = (),
        group: Any = None,
    ) -> None:
        self.base = base
        self.decay = check_real("decay", decay, low=0.0, high=1.0, low_open=True, high_open=True)
        self.update_every = check_int("update_every", update_every, low=1)
        self.update = check_choice("update", update, ("exact", "paper"))
        self.max_entry = check_real("max_entry", max_entry, low=0.0, low_open=True)
        self.damping = check_real("damping", damping, low=0.0, high=1.0)
        self.layers = {
            name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and name not in exclude
        }
        if not self.layers:
            raise ValueError("model must have a torch.nn.Linear to precondition, got none outside exclude")
        self.group = _group_of(model, self.layers) if group is None else group
        self.num_steps = 0
        self.factors = {name: (torch.eye(m.out_features), torch.eye(_inputs(m))) for name, m in self.layers.items()}
        self._sums: dict[str, tuple[torch.Tensor, torch.Tensor, int]] = {}

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Collect the statistics of the forward and backward passes inside, when a factor update is due; no hook is
        left on exit."""
        self._sums = {}
        due = self.num_steps % self.update_every == 0
        handles = [m.register_forward_hook(self._hook(name)) for name, m in self.layers.items()] if due else []
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def step(self) -> None:
        """Update the factors from what was collected, and step the base optimizer on preconditioned gradients."""
        for name, (a, g, count) in self._sums.items():
            left, right = self.factors[name]
            if self.group is not None:
                for x in (a, g):
                    torch.distributed.all_reduce(x, group=self.group)
                count *= torch.distributed.get_world_size(self.group)
            self._fold(left, g / count)
            self._fold(right, a / count)
        self._sums = {}
        kept = [(p, p.grad) for m in self.layers.values() for p in m.parameters(recurse=False)]
        try:
            for name, module in self.layers.items():
                if module.weight.grad is not None:
                    self._precondition(name, module)
            self.base.step()
        finally:
            for p, grad in kept:
                p.grad = grad
        self.num_steps += 1

    def state_dict(self) -> dict[str, Any]:
        """State of the base optimizer, factors by layer name, step count."""
        return {"base": self.base.state_dict(), "factors": dict(self.factors), "num_steps": self.num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        shapes = {name: tuple(tuple(f.shape) for f in pair) for name, pair in state["factors"].items()}
        wanted = {name: tuple(tuple(f.shape) for f in pair) for name, pair in self.factors.items()}
        if shapes != wanted:
            raise ValueError(f"state_dict must hold factors of {sorted(wanted)}, got {sorted(shapes)} or other shapes")
        self.base.load_state_dict(state["base"])
        self.factors = {name: (left.clone(), right.clone()) for name, (left, right) in state["factors"].items()}
        self.num_steps = check_int("num_steps", state["num_steps"], low=0)

    def _hook(self, name: str) -> Callable[..., None]:
        def forward(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if not output.requires_grad:
                return
            x = inputs[0].detach().float().reshape(-1, inputs[0].shape[-1])
            a = torch.cat([x.mean(dim=0), x.new_ones(1)]) if module.bias is not None else x.mean(dim=0)
            output.register_hook(lambda grad: self._add(name, a, grad))  # type: ignore[no-untyped-call]

        return forward

    def _add(self, name: str, a: torch.Tensor, grad: torch.Tensor) -> None:
        g = grad.detach().float().reshape(-1, grad.shape[-1]).sum(dim=0)
        zero = (torch.zeros_like(a), torch.zeros_like(g), 0)
        sum_a, sum_g, count = self._sums.get(name, zero)
        self._sums[name] = (sum_a + a, sum_g + g, count + 1)

    def _fold(self, inverse: torch.Tensor, x: torch.Tensor) -> None:
        """Rank-1 update of an inverse factor in place; statistics that are not finite are left out."""
        if not bool(torch.isfinite(x).all()):
            return
        if float(inverse.abs().max()) > self.max_entry:
            inverse.mul_(self.damping).diagonal().add_(1 - self.damping)
        gamma, y = self.decay, inverse @ x
        q = float(x @ y)
        if self.update == "exact":
            inverse.addr_(y, y, alpha=-(1 - gamma) / (gamma + (1 - gamma) * q)).div_(gamma)
        else:
            inverse.mul_(gamma).addr_(y, y, alpha=(1 - gamma) / (gamma**2 * (1 + gamma * (1 - gamma) * q)))

    def _precondition(self, name: str, module: torch.nn.Linear) -> None:
        left, right = self.factors[name]
        assert module.weight.grad is not None
        rows = rows_of(module.weight)
        g = rows.whole(local(module.weight.grad).float())
        bias_grad = module.bias.grad if module.bias is not None else None
        if bias_grad is not None:
            g = torch.cat([g, rows.whole(local(bias_grad).float())[:, None]], dim=1)
        columns = right if g.shape[1] == right.shape[0] else right[: g.shape[1], : g.shape[1]]
        u = rows.part(left) @ g @ columns
        u *= float(g.norm()) / max(math.sqrt(rows.total_of(float(u.norm()) ** 2)), 1e-30)
        module.weight.grad = rows.spread(u[:, : module.in_features].to(module.weight.dtype))
        if bias_grad is not None:
            module.bias.grad = rows.spread(u[:, -1].to(module.bias.dtype))


def _group_of(model: torch.nn.Module, layers: dict[str, torch.nn.Linear]) -> Any:
    """The processes that train ``model`` together, or None."""
    if isinstance(model, torch.nn.parallel.DistributedDataParallel):
        return model.process_group
    meshes = [m.weight.device_mesh for m in layers.values() if hasattr(m.weight, "device_mesh")]
    if not meshes:
        return None
    return meshes[0].get_group() if meshes[0].ndim == 1 else meshes[0]._flatten().get_group()


def _inputs(module: torch.nn.Linear) -> int:
    return module.in_features + int(module.bias is not None)
