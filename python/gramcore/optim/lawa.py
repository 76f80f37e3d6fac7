"""Latest-weight averaging."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from gramcore._checks import check_int

__all__ = ["LAWA"]


class LAWA:
    """Uniform mean of the ``window`` latest snapshots, taken every ``every`` steps; training is unchanged.

    State: ``window`` copies of the parameters, on the CPU.

    Args:
        params: parameters to average.
        every: ν >= 1 steps between snapshots.
        window: k >= 1 snapshots kept.

    Raises:
        ValueError: a number outside its interval, or :meth:`averaged` before the first snapshot.

    Differs from paper: none.  Buffers are not averaged.

    Reference: Kaddour 2022, arXiv:2209.14981; Sanyal et al. 2023, arXiv:2306.03241, Alg. 1.

    Example:
        >>> import torch
        >>> from gramcore.optim import LAWA
        >>> w = torch.nn.Parameter(torch.zeros(1))
        >>> lawa = LAWA([w], every=1, window=2)
        >>> for value in (1.0, 2.0, 4.0):
        ...     _ = w.data.fill_(value); lawa.step()
        >>> with lawa.averaged():
        ...     inside = w.item()
        >>> inside, w.item()
        (3.0, 4.0)
    """

    def __init__(self, params: Iterable[torch.Tensor], *, every: int, window: int = 5) -> None:
        self.params = list(params)
        self.every = check_int("every", every, low=1)
        self.window = check_int("window", window, low=1)
        self.num_steps = 0
        self._snapshots: deque[list[torch.Tensor]] = deque(maxlen=window)

    @torch.no_grad()
    def step(self) -> None:
        """Count one training step; take a snapshot when it is due."""
        self.num_steps += 1
        if self.num_steps % self.every == 0:
            self._snapshots.append([p.detach().to("cpu", copy=True) for p in self.params])

    def mean(self) -> list[torch.Tensor]:
        """The averaged parameters, in their dtypes; summed in fp32."""
        if not self._snapshots:
            raise ValueError(f"mean needs a snapshot, got none after {self.num_steps} steps; one comes at {self.every}")
        out = []
        for i, p in enumerate(self.params):
            total = torch.zeros_like(self._snapshots[0][i], dtype=torch.float32)
            for k, snapshot in enumerate(self._snapshots):
                total += (snapshot[i].float() - total) / (k + 1)
            out.append(total.to(p.dtype))
        return out

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The parameters hold their mean inside the block and their own values after it."""
        means = self.mean()
        own = [p.detach().clone() for p in self.params]
        self._assign(means)
        try:
            yield
        finally:
            self._assign(own)

    @torch.no_grad()
    def _assign(self, values: list[torch.Tensor]) -> None:
        for p, value in zip(self.params, values, strict=True):
            p.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Step count and snapshots."""
        return {"num_steps": self.num_steps, "snapshots": [list(s) for s in self._snapshots]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        for snapshot in state["snapshots"]:
            if [tuple(t.shape) for t in snapshot] != [tuple(p.shape) for p in self.params]:
                raise ValueError("state_dict must hold snapshots of these parameters, got other shapes")
        self.num_steps = check_int("num_steps", state["num_steps"], low=0)
        self._snapshots = deque((list(s) for s in state["snapshots"]), maxlen=self.window)
