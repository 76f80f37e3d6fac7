"""Subspaces that need no product: coordinates of a gradient matrix (columns, rows, entries, all of it) and wavelets."""

from __future__ import annotations

from abc import abstractmethod

import torch

from gramcore.optim.rows import Rows
from gramcore.optim.subspace import Basis, Subspace

__all__ = [
    "ColumnSubspace",
    "CoordinateSubspace",
    "EntrySubspace",
    "HaarSubspace",
    "RowSampleSubspace",
    "WholeSubspace",
]

#: Random keys drawn at once when entries are chosen.
_KEYS = 1 << 18


def _rows_here(basis: Basis, rows: Rows) -> Basis:
    """A choice of rows as the choice among the rows here, and its places in R."""
    index = basis["index"]
    mine = (index >= rows.begin) & (index < rows.begin + rows.count)
    return {**basis, "index": index[mine] - rows.begin, "place": mine.nonzero()[:, 0], "size": index}


def _chosen(basis: Basis, r: torch.Tensor) -> torch.Tensor:
    return r.index_select(0, basis["place"]) if "place" in basis else r


def _placed(basis: Basis, r: torch.Tensor) -> torch.Tensor:
    """Rows of R that come from here, among zeros for the others."""
    if "place" not in basis:
        return r
    return r.new_zeros(len(basis["size"]), r.shape[1]).index_copy_(0, basis["place"], r)


class CoordinateSubspace(Subspace):
    """Some entries of the matrix as they are; moments restart at a refresh."""

    resets = True

    def up(self, basis: Basis, r: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        return self.replace(basis, torch.zeros(shape, dtype=r.dtype), r)

    @abstractmethod
    def replace(self, basis: Basis, whole: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        """``whole`` (M, N) with the subspace's part set to r, in place."""


class ColumnSubspace(CoordinateSubspace):
    """A random subset of columns (``axis`` 1) or rows (0)."""

    def __init__(self, density: float, axis: int) -> None:
        self.density, self.axis = density, axis

    def _count(self, shape: torch.Size) -> int:
        return round(self.density * shape[self.axis])

    def applies(self, shape: torch.Size) -> bool:
        return len(shape) == 2

    def low_shape(self, shape: torch.Size) -> tuple[int, ...]:
        low = list(shape)
        low[self.axis] = self._count(shape)
        return tuple(low)

    def empty(self, shape: torch.Size, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return {"index": torch.zeros(self._count(shape), dtype=torch.int64)}

    def refresh(self, g: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        order = torch.randperm(g.shape[self.axis], generator=generator)
        return {"index": order[: self._count(g.shape)].sort().values}

    def keeps_rows(self, shape: torch.Size) -> bool:
        return self.axis == 1

    def here(self, basis: Basis, rows: Rows) -> Basis:
        return basis if self.axis == 1 else _rows_here(basis, rows)

    def down(self, basis: Basis, g: torch.Tensor) -> torch.Tensor:
        return _placed(basis, g.index_select(self.axis, basis["index"]))

    def replace(self, basis: Basis, whole: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        return whole.index_copy_(self.axis, basis["index"], _chosen(basis, r))


class EntrySubspace(CoordinateSubspace):
    """As many random entries in every row: one bit per entry of the matrix says which."""

    def __init__(self, density: float) -> None:
        self.density = density

    def applies(self, shape: torch.Size) -> bool:
        return len(shape) == 2

    def low_shape(self, shape: torch.Size) -> tuple[int, ...]:
        return (shape[0], round(self.density * shape[1]))

    def empty(self, shape: torch.Size, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return {"mask": torch.zeros(shape[0], -(-shape[1] // 8), dtype=torch.uint8)}

    def refresh(self, g: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        (rows, columns), mask = g.shape, self.empty(g.shape, g.dtype)["mask"]
        height, count, bits = max(1, _KEYS // max(1, columns)), self.low_shape(g.shape)[1], 1 << torch.arange(8)
        for begin in range(0, rows, height):
            keys = torch.rand(min(height, rows - begin), columns, generator=generator)
            chosen = torch.zeros(len(keys), 8 * mask.shape[1], dtype=torch.uint8)
            chosen.scatter_(1, keys.topk(count, sorted=False).indices, 1)
            mask[begin : begin + len(keys)] = (chosen.view(len(keys), -1, 8) * bits).sum(dim=2)
        return {"mask": mask}

    def splits(self, name: str, shape: torch.Size) -> bool:
        return True

    @staticmethod
    def _chosen(basis: Basis, columns: int) -> torch.Tensor:
        bits = basis["mask"].unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8) & 1
        return bits.flatten(1)[:, :columns].bool()

    def down(self, basis: Basis, g: torch.Tensor) -> torch.Tensor:
        return g[self._chosen(basis, g.shape[1])].view(g.shape[0], self.low_shape(g.shape)[1])

    def replace(self, basis: Basis, whole: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        return whole.masked_scatter_(self._chosen(basis, whole.shape[1]), r.to(whole.dtype))


class WholeSubspace(Subspace):
    """A whole tensor or nothing: active with probability ``density`` at each refresh; moments restart."""

    resets = True

    def __init__(self, density: float) -> None:
        self.density = density

    def applies(self, shape: torch.Size) -> bool:
        return len(shape) == 2

    def low_shape(self, shape: torch.Size) -> tuple[int, ...]:
        return tuple(shape)

    def empty(self, shape: torch.Size, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return {"active": torch.zeros((), dtype=dtype)}

    def refresh(self, g: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return {"active": (torch.rand((), generator=generator) < self.density).to(g.dtype)}

    def down(self, basis: Basis, g: torch.Tensor) -> torch.Tensor:
        return g * basis["active"]

    def up(self, basis: Basis, r: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        return r * basis["active"].to(r.dtype)


class RowSampleSubspace(Subspace):
    """Rows of the gradient: the largest by norm, a uniform sample, or a sample by norm weighted to be unbiased."""

    resets = True
    reads_gradients = True

    def __init__(self, rank: int, selection: str) -> None:
        self.rank, self.selection = rank, selection

    def applies(self, shape: torch.Size) -> bool:
        return len(shape) == 2 and shape[0] > self.rank

    def low_shape(self, shape: torch.Size) -> tuple[int, ...]:
        return (self.rank, shape[1])

    def empty(self, shape: torch.Size, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return {"index": torch.zeros(self.rank, dtype=torch.int64), "weight": torch.zeros(self.rank, 1, dtype=dtype)}

    def refresh(self, g: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        norms = g.float().norm(dim=1)
        weight = torch.ones(self.rank, 1)
        if self.selection == "top":
            index = norms.topk(self.rank).indices.sort().values
        elif self.selection == "uniform":
            index = torch.randperm(g.shape[0], generator=generator)[: self.rank].sort().values
        else:
            q = (norms + 1e-30) / (norms + 1e-30).sum()
            index = torch.multinomial(q, self.rank, replacement=True, generator=generator).sort().values
            weight = (1 / (self.rank * q[index]).sqrt())[:, None]
        return {"index": index, "weight": weight.to(g.dtype)}

    def keeps_rows(self, shape: torch.Size) -> bool:
        return False

    def here(self, basis: Basis, rows: Rows) -> Basis:
        return _rows_here(basis, rows)

    def down(self, basis: Basis, g: torch.Tensor) -> torch.Tensor:
        return _placed(basis, g.index_select(0, basis["index"]) * _chosen(basis, basis["weight"]))

    def up(self, basis: Basis, r: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        zero = torch.zeros(shape, dtype=r.dtype)
        return zero.index_add_(0, basis["index"], _chosen(basis, r * basis["weight"].to(r.dtype)))


class HaarSubspace(Subspace):
    """Approximation coefficients of ``level`` orthonormal Haar transforms along the last axis, padded with zeros."""

    def __init__(self, level: int) -> None:
        self.level = level

    def applies(self, shape: torch.Size) -> bool:
        return len(shape) == 2 and shape[1] >= 2**self.level

    def low_shape(self, shape: torch.Size) -> tuple[int, ...]:
        return (shape[0], -(-shape[1] // 2**self.level))

    def runs(self, g: torch.Tensor) -> torch.Tensor:
        """g as (M, K, 2^level), padded with zeros."""
        pad = -g.shape[1] % 2**self.level
        whole = torch.nn.functional.pad(g, (0, pad)) if pad else g.contiguous()
        return whole.view(g.shape[0], whole.shape[1] >> self.level, 2**self.level)

    def down(self, basis: Basis, g: torch.Tensor) -> torch.Tensor:
        return self.runs(g).sum(dim=2) / 2 ** (self.level / 2)

    def up(self, basis: Basis, r: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        step = 2**self.level
        return (r / step**0.5).repeat_interleave(step, dim=1)[:, : shape[1]].contiguous()

    def decompose(self, g: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Approximation, and details from the coarsest to the finest."""
        pad = -g.shape[1] % 2**self.level
        a = torch.nn.functional.pad(g, (0, pad))
        details = []
        for _ in range(self.level):
            even, odd = a[:, ::2], a[:, 1::2]
            details.append((even - odd) / 2**0.5)
            a = (even + odd) / 2**0.5
        return a.contiguous(), details[::-1]

    def compose(self, a: torch.Tensor, details: list[torch.Tensor], columns: int) -> torch.Tensor:
        """Inverse of :meth:`decompose`, cut to ``columns``."""
        for d in details:
            a = torch.stack(((a + d) / 2**0.5, (a - d) / 2**0.5), dim=2).reshape(a.shape[0], -1)
        return a[:, :columns].contiguous()
