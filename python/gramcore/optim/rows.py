"""Parameters whose rows are spread over processes: which rows are here, and sums over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Part", "Rows", "rows_of"]


class Rows:
    """Entries of a parameter's first axis that this process holds: ``count`` of ``total``, from ``begin``.

    Sums and means run over all processes that hold the others.  A parameter that is not split has all its rows here
    and needs no communication; code written against this class is the same for both.

    Args: total: length of the first axis.  like: the distributed parameter.  axis: of its mesh, over which it is split.
    """

    def __init__(self, total: int, like: Any = None, axis: int = 0) -> None:
        self.total, self.begin, self.count = total, 0, total
        self._like, self._axis, self.split = like, axis, like is not None
        if self.split:
            chunk = -(-total // like.device_mesh.size(axis))
            self.begin = min(like.device_mesh.get_local_rank(axis) * chunk, total)
            self.count = min(chunk, total - self.begin)
            self._group = like.device_mesh.get_group(axis)

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over processes of their ``x``, in place."""
        if self.split:
            torch.distributed.all_reduce(x, group=self._group)
        return x

    def total_of(self, value: float) -> float:
        """Sum over processes of a number."""
        return float(self.sum(torch.tensor(value, dtype=torch.float64))) if self.split else value

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        """Mean over all rows of (count, …)."""
        return self.sum(x.sum(dim=0)) / self.total if self.split else x.mean(dim=0)

    def mean_of_means(self, x: torch.Tensor) -> torch.Tensor:
        """Mean over all rows from ``x``, each process's mean over its own rows."""
        return self.sum((x if self.count else torch.zeros_like(x)) * (self.count / self.total)) if self.split else x

    def block_means(self, x: torch.Tensor, blocks: int) -> torch.Tensor:
        """Means (blocks,) over runs of total / blocks rows of (count,); runs may cross processes."""
        if not self.split:
            return x.view(blocks, -1).mean(dim=1)
        sums = torch.zeros(blocks, dtype=x.dtype).index_add_(0, self.blocks(blocks), x)
        return self.sum(sums).mul_(blocks / self.total)

    def blocks(self, blocks: int) -> torch.Tensor:
        """The run of total / blocks rows to which each row here belongs."""
        return torch.arange(self.begin, self.begin + self.count) // (self.total // blocks)

    def of_columns(self, total: int) -> Rows:
        """``total`` columns, split over the same processes."""
        return Rows(total, self._like, self._axis) if self.split else Rows(total)

    def part(self, x: torch.Tensor, dim: int = 0) -> torch.Tensor:
        """The rows here of (total, …); with ``dim`` 1, columns."""
        return x.narrow(dim, self.begin, self.count) if self.split else x

    def whole(self, x: torch.Tensor, dim: int = 0) -> torch.Tensor:
        """All rows, gathered from (count, …)."""
        return self.spread(x, dim).full_tensor() if self.split else x  # type: ignore[attr-defined]

    def spread(self, x: torch.Tensor, dim: int = 0) -> torch.Tensor:
        """(count, …) as a distributed tensor (total, …), split over the same processes as the parameter."""
        if not self.split:
            return x
        from torch.distributed.tensor import DTensor, Shard

        shape = torch.Size((*x.shape[:dim], self.total, *x.shape[dim + 1 :]))
        stride = torch.empty(shape, device="meta").stride()
        mesh, placements = self._like.device_mesh, list(self._like.placements)
        placements[self._axis] = Shard(dim)
        return DTensor.from_local(x.contiguous(), mesh, placements, run_check=False, shape=shape, stride=stride)


def rows_of(p: torch.Tensor) -> Rows:
    """The rows of a parameter that are here.

    Raises:
        TypeError: it is split by another axis than the first, or over more than one axis of its mesh.
    """
    total = p.shape[0] if p.ndim else 1
    placements = getattr(p, "placements", ())
    split = [axis for axis, placement in enumerate(placements) if not placement.is_replicate()]
    if not split:
        return Rows(total)
    from torch.distributed.tensor import Shard

    if len(split) > 1 or type(placements[split[0]]) is not Shard or not placements[split[0]].is_shard(0):
        raise TypeError(
            f"distributed parameters must be split by rows, over one axis of the mesh, for optimizers that work on "
            f"whole matrices, got placements {tuple(placements)} (shape {tuple(p.shape)}); use fully_shard's default, "
            "or an elementwise optimizer such as AdamW"
        )
    return Rows(total, p, split[0])


@dataclass(frozen=True)
class Part:
    """What this process holds of a parameter at one step.

    Attributes: p: the parameter.  w: its local values.  rows: which rows they are.  index: its place in the optimizer.
    """

    p: torch.Tensor
    w: torch.Tensor
    rows: Rows
    index: int
