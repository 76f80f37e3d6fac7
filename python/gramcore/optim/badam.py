"""BAdam: block coordinate descent with AdamW."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from gramcore._checks import check_choice, check_int
from gramcore.optim.adamw import AdamW
from gramcore.optim.subspace import generator_for

__all__ = ["BAdam"]


class BAdam(AdamW):
    """One block of parameters at a time by AdamW, with fresh moments at each switch.

    Every ``switch_every`` steps the next block becomes active; gradients of the others are ignored, and with ``freeze``
    they are not computed.

    State: the two moments of the active block only.

    Args:
        blocks: lists of parameters, for example one per transformer layer.
        switch_every: K >= 1 steps per block.
        order: ``"descending"`` (last block first), ``"ascending"`` or ``"random"`` (a permutation per round).
        freeze: set ``requires_grad`` of inactive blocks to False; :meth:`close` sets it back.
        arguments: of :class:`~gramcore.optim.AdamW`; ``seed`` also draws the permutations.

    Raises:
        ValueError: a number outside its interval, or no block.  TypeError: an unknown option.

    Differs from paper: none.  The active block and its step count are part of the state, so a run resumes in place;
    the published code forgets them.

    Reference: Luo, Yu and Li 2024, arXiv:2404.02827, Alg. 1.

    Example:
        >>> import torch
        >>> from gramcore.optim import BAdam
        >>> layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(3))
        >>> optimizer = BAdam([list(m.parameters()) for m in layers], switch_every=10, lr=1e-3)
        >>> [m.weight.requires_grad for m in layers]
        [False, False, True]
        >>> optimizer.close()
    """

    def __init__(
        self,
        blocks: Sequence[Sequence[torch.Tensor]],
        *,
        switch_every: int = 50,
        order: str = "descending",
        freeze: bool = True,
        **arguments: Any,
    ) -> None:
        self.switch_every = check_int("switch_every", switch_every, low=1)
        self.order = check_choice("order", order, ("descending", "ascending", "random"))
        self.freeze = bool(freeze)
        self._trainable = [[p.requires_grad for p in block] for block in blocks]
        super().__init__([{"params": list(block)} for block in blocks], **arguments)
        self.param_groups[0]["steps_done"] = 0
        self._activate()

    @property
    def active(self) -> int:
        """Index of the active block."""
        count = len(self.param_groups)
        round_, place = divmod(self.param_groups[0]["steps_done"] // self.switch_every, count)
        if self.order == "random":
            generator = generator_for(self.param_groups[0]["seed"], 0, round_)
            return int(torch.randperm(count, generator=generator)[place])
        return place if self.order == "ascending" else count - 1 - place

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step the active block; switch when its turn is over."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        active = self.active
        kept = [(p, p.grad) for i, g in enumerate(self.param_groups) if i != active for p in g["params"]]
        for p, _ in kept:
            p.grad = None
        try:
            super().step()
        finally:
            for p, grad in kept:
                p.grad = grad
        self.param_groups[0]["steps_done"] += 1
        if self.param_groups[0]["steps_done"] % self.switch_every == 0:
            self.state.clear()
            self._activate()
        return loss

    def load_state_dict(self, state_dict: Any) -> None:
        """Load what ``state_dict`` gave, with the block that was active."""
        super().load_state_dict(state_dict)
        self._activate()

    def close(self) -> None:
        """Give ``requires_grad`` back its values from before the constructor."""
        for group, flags in zip(self.param_groups, self._trainable, strict=True):
            for p, flag in zip(group["params"], flags, strict=True):
                p.requires_grad_(flag)

    def _activate(self) -> None:
        if not self.freeze:
            return
        active = self.active
        for i, (group, flags) in enumerate(zip(self.param_groups, self._trainable, strict=True)):
            for p, flag in zip(group["params"], flags, strict=True):
                p.requires_grad_(flag and i == active)
                if i != active:
                    p.grad = None
