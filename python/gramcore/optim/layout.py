"""Tensors as the native engine takes them: local parts of distributed ones, dense layouts, norms of lists."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from gramcore import _core
from gramcore.optim.rows import Rows

__all__ = ["Batch", "blocks_like", "dense", "flat_like", "global_norm", "local", "rms"]


def local(t: torch.Tensor) -> torch.Tensor:
    """The part of a distributed tensor this process holds; other tensors as they are."""
    return t._local_tensor if hasattr(t, "_local_tensor") else t


def flat_like(size: Callable[[torch.Size], int], fill: int, dtype: torch.dtype, like: Any) -> torch.Tensor:
    """A filled tensor of ``size(shape)`` elements, one per process when ``like`` is distributed.

    It is then distributed itself, (processes, size of the largest shard), so that checkpoints see equal parts.
    """
    if not hasattr(like, "_local_tensor"):
        return torch.full((size(like.shape),), fill, dtype=dtype)
    from torch.distributed.tensor import DTensor, Replicate, Shard

    largest = list(like.shape)
    for axis, placement in enumerate(like.placements):
        if placement.is_shard():
            largest[placement.dim] = -(-largest[placement.dim] // like.device_mesh.size(axis))
    part = torch.full((1, size(torch.Size(largest))), fill, dtype=dtype)
    placements = [Shard(0) if p.is_shard() else Replicate() for p in like.placements]
    return DTensor.from_local(part, like.device_mesh, placements, run_check=False)


def blocks_like(numbers: Callable[[int], int], block: int, fill: int, dtype: torch.dtype, like: Any) -> torch.Tensor:
    """What belongs to blocks of ``block`` elements, ``numbers(n)`` for n elements, filled.

    It has a row for each group of rows of ``like`` that is made of whole blocks, and is distributed as they are: then a
    checkpoint can be loaded on any number of processes.  Where a shard would begin inside a group, or the groups would
    waste room, blocks begin at the shard and the tensor is one of :func:`flat_like`.
    """
    shape: torch.Size = like.shape
    group = block // math.gcd(block, shape[1:].numel()) if shape and shape.numel() else 0
    split = [axis for axis, placement in enumerate(getattr(like, "placements", ())) if not placement.is_replicate()]
    fits = group > 0 and (-shape[0] % group) * 64 <= shape[0] and len(split) <= 1
    if fits and split:
        processes, placement = like.device_mesh.size(split[0]), like.placements[split[0]]
        fits = placement.is_shard(0) and (processes == 1 or -(-shape[0] // processes) % group == 0)
    if not fits:
        return flat_like(lambda s: numbers(s.numel()), fill, dtype, like)
    groups = Rows(-(-shape[0] // group), like if split else None, split[0] if split else 0)
    return groups.spread(torch.full((groups.count, numbers(group * shape[1:].numel())), fill, dtype=dtype))


def global_norm(grads: Sequence[torch.Tensor]) -> float:
    """Euclidean norm of all gradients, over all processes that hold a shard; infinite or NaN when an element is."""
    plain = [dense(g) for g in grads if not hasattr(g, "_local_tensor")]
    total = _core.optim.sum_squares(plain) if plain else 0.0
    by_mesh: dict[Any, list[torch.Tensor]] = {}
    for g in grads:
        if hasattr(g, "_local_tensor") and hasattr(g, "device_mesh") and hasattr(g, "placements"):
            by_mesh.setdefault((g.device_mesh, tuple(g.placements)), []).append(dense(local(g)))
    for (mesh, placements), parts in by_mesh.items():
        value = torch.tensor(_core.optim.sum_squares(parts), dtype=torch.float64)
        for axis, placement in enumerate(placements):
            if placement.is_shard():
                torch.distributed.all_reduce(value, group=mesh.get_group(axis))
        total += value.item()
    return total**0.5


def rms(t: torch.Tensor) -> float:
    """Root of the mean square of a tensor, of all its shards if it is distributed."""
    return global_norm([t.detach()]) / max(1, t.numel()) ** 0.5


def _is_dense(t: torch.Tensor) -> bool:
    if t.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted((st, n) for st, n in zip(t.stride(), t.shape, strict=True) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def dense(t: torch.Tensor) -> torch.Tensor:
    """``t``, or a contiguous copy if its elements leave gaps in memory."""
    return t if _is_dense(t) else t.contiguous()


class Batch:
    """Local parameters and gradients of one call, with copies where a layout does not suit the engine.

    Args: params: with gradients, unless ``drawn``.
    """

    def __init__(self, params: list[torch.Tensor], drawn: bool = False) -> None:
        self.originals = [local(p.detach()) for p in params]
        self.params = [dense(p) for p in self.originals]
        self.gradients: list[torch.Tensor] = []
        self.grads: list[torch.Tensor] = []
        if drawn:
            return
        for p, used in zip(params, self.params, strict=True):
            assert p.grad is not None
            grad = local(p.grad)
            same = grad.stride() == used.stride() or (grad.is_contiguous() and used.is_contiguous())
            self.gradients.append(grad)
            self.grads.append(grad if same else torch.empty_like(used, dtype=grad.dtype).copy_(grad))

    def write_back(self, zero_grads: bool) -> None:
        """Copy back what was stepped as a copy."""
        for original, used in zip(self.originals, self.params, strict=True):
            if original is not used:
                original.copy_(used)
        for grad, used in zip(self.gradients, self.grads, strict=True):
            if zero_grads and grad is not used:
                grad.zero_()
