"""Sparse pre-training, dense fine-tuning: fixed random masks on the weights of linear layers."""

from __future__ import annotations

from typing import Any

import torch

from gramcore._checks import check_int, check_real
from gramcore.optim.layout import local
from gramcore.optim.subspace import generator_for

__all__ = ["SparseMask"]


class SparseMask:
    """Keep a fixed random part of every linear weight at zero while training, until :meth:`densify`.

    Phase 1: W ← W ⊙ mask; masked gradients are zeroed before each step and masked weights after it, so moments, decay
    and steps never move them.  Phase 2: the mask is dropped; what was masked starts from 0.

    State: one byte per masked weight.

    Args:
        model: weights of its ``torch.nn.Linear`` modules are masked; embeddings, norms and biases stay dense.
        optimizer: the optimizer that trains them; its step is hooked until :meth:`densify`.
        sparsity_frac: share removed, in [0, 1).
        seed: of the masks, in [0, 2⁶³).
        exclude: names of modules left dense, for example ``("lm_head",)``.

    Raises:
        ValueError: a number outside its interval, or no linear weight to mask.

    Differs from paper: none.

    Reference: Thangarasa et al. 2023, arXiv:2303.10464, section 2.

    Example:
        >>> import torch
        >>> from gramcore.optim import AdamW, SparseMask
        >>> layer = torch.nn.Linear(64, 64)
        >>> optimizer = AdamW(layer.parameters(), lr=0.1)
        >>> mask = SparseMask(layer, optimizer, sparsity_frac=0.75)
        >>> layer(torch.ones(1, 64)).sum().backward(); optimizer.step()
        >>> int((layer.weight == 0).sum())
        3072
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        sparsity_frac: float,
        seed: int = 0,
        exclude: tuple[str, ...] = (),
    ) -> None:
        check_real("sparsity_frac", sparsity_frac, low=0.0, high=1.0, high_open=True)
        check_int("seed", seed, low=0, high=2**63 - 1)
        weights = {
            name: module.weight
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and name not in exclude
        }
        if not weights:
            raise ValueError("model must have a torch.nn.Linear to mask, got none outside exclude")
        self.masks: dict[str, torch.Tensor] = {}
        self._weights = weights
        for index, (name, w) in enumerate(weights.items()):
            count = local(w).numel()
            order = torch.randperm(count, generator=generator_for(seed, index, 0))
            mask = torch.ones(count, dtype=torch.bool)
            mask[order[: round(sparsity_frac * count)]] = False
            self.masks[name] = mask.reshape(local(w).shape)
        self._apply()
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    def densify(self) -> None:
        """End of phase 1: nothing is masked from now on."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.masks.clear()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The masks by module name."""
        return dict(self.masks)

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Load what :meth:`state_dict` gave and apply it."""
        for name, mask in state.items():
            if name not in self._weights or mask.shape != local(self._weights[name]).shape:
                raise ValueError(f"state_dict must hold masks of this model's linear weights, got {name!r}")
        self.masks = {name: mask.bool() for name, mask in state.items()}
        self._apply()

    @torch.no_grad()
    def _apply(self) -> None:
        for name, mask in self.masks.items():
            local(self._weights[name]).mul_(mask)

    @torch.no_grad()
    def _before(self, *_: Any) -> None:
        for name, mask in self.masks.items():
            grad = self._weights[name].grad
            if grad is not None:
                local(grad).mul_(mask)

    def _after(self, *_: Any) -> None:
        self._apply()
