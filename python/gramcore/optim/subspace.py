"""Subspaces of a gradient matrix: where a projected optimizer keeps its moments.

A subspace maps G (M, N) down to R and back up, and holds what that takes as plain tensors.  It never carries the scale
of the update, and random choices are a function of (seed, parameter, refresh number).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch

from gramcore.optim.rows import Rows

__all__ = [
    "ColumnSubspace",
    "DenseSubspace",
    "HaarSubspace",
    "HeadSubspace",
    "RandomSubspace",
    "RowSampleSubspace",
    "Subspace",
    "SvdSubspace",
    "WholeSubspace",
    "generator_for",
    "top_basis",
]

Basis = Mapping[str, torch.Tensor]


def generator_for(seed: int, index: int, refresh: int) -> torch.Generator:
    """Generator of one refresh of one parameter: independent of call order and of other parameters."""
    from gramcore import _core

    words = _core.philox4x32(seed, index, refresh)
    return torch.Generator().manual_seed(words[0] | (words[1] & 0x7FFFFFFF) << 32)


def fix_signs(columns: torch.Tensor) -> torch.Tensor:
    """Columns with the sign that makes each one's largest entry positive: SVD leaves the sign open."""
    largest = columns.gather(0, columns.abs().argmax(dim=0, keepdim=True))
    return columns * torch.where(largest < 0, -1.0, 1.0).to(columns.dtype)


def top_basis(g: torch.Tensor, rank: int, method: str, generator: torch.Generator) -> torch.Tensor:
    """Orthonormal basis (N, rank) of the leading right singular vectors of g (M, N), M >= N.

    Args:
        method: ``"svd"``, exact, in fp64; ``"gram"``, eigenvectors of GᵀG in fp64; ``"iterate"``, two subspace
            iterations from a random start with eight extra vectors: several times cheaper, nearly the same energy.
    """
    if method == "svd":
        g = g.double()  # fp32 SVD leaves 1e-6 in the vectors
        return fix_signs(torch.linalg.svd(g, full_matrices=False).Vh[:rank].T.float()).contiguous()
    if method == "gram":
        g = g.double()
        return fix_signs(torch.linalg.eigh(g.T @ g).eigenvectors[:, -rank:].flip(1).float()).contiguous()
    g = g.float()
    width = min(rank + 8, g.shape[1])
    q = torch.randn(g.shape[1], width, generator=generator)
    for _ in range(2):
        q = torch.linalg.qr(g.T @ (g @ q)).Q
    small = g @ q
    vectors = torch.linalg.eigh(small.T @ small).eigenvectors[:, -rank:].flip(1)
    return fix_signs(q @ vectors).contiguous()


class Subspace(ABC):
    """What a projected optimizer needs of a subspace.

    Attributes:
        resets: moments and step count restart at a refresh.
        reads_gradients: a refresh looks at the gradient's values, not its shape alone.
        columns_at: axis of R that stands for the columns of G, when R does not keep the rows.
    """

    resets: bool = False
    reads_gradients: bool = False
    columns_at: int = 1

    @abstractmethod
    def applies(self, shape: torch.Size) -> bool:
        """Whether matrices of this shape are projected; others get the plain rule."""

    @abstractmethod
    def low_shape(self, shape: torch.Size) -> tuple[int, ...]:
        """Shape of R."""

    def empty(self, shape: torch.Size, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """The state of :meth:`refresh`, with any values."""
        return {}

    def refresh(self, g: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """New basis for the current gradient; kept in the optimizer's state."""
        return {}

    def keeps_rows(self, shape: torch.Size) -> bool:
        """Whether the rows of R are those of G; if not, R is the sum of what every row of G gives."""
        return True

    def splits(self, name: str, shape: torch.Size) -> bool:
        """Whether this tensor of the basis has a row for every row of G, and lives where that row does."""
        return False

    def here(self, basis: Basis, rows: Rows) -> Basis:
        """The basis for some rows of G alone, as :meth:`down` and :meth:`up` then want it."""
        return basis

    @abstractmethod
    def down(self, basis: Basis, g: torch.Tensor) -> torch.Tensor:
        """G (M, N) to R."""

    @abstractmethod
    def up(self, basis: Basis, r: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """R to (M, N)."""


class DenseSubspace(Subspace):
    """Projects the smaller side by a stored matrix: R = G P (M >= N, P (N, r)) or Gᵀ P (M < N, P (M, r)).

    R has a row of ``rank`` numbers per channel: per row of a tall matrix, per column of a wide one.
    """

    columns_at = 0

    def __init__(self, rank: int, resets: bool = False) -> None:
        self.rank, self.resets = rank, resets

    def applies(self, shape: torch.Size) -> bool:
        return len(shape) == 2 and min(shape) > self.rank

    def along_rows(self, shape: torch.Size) -> bool:
        """Whether the channels are rows."""
        return shape[0] >= shape[1]

    def low_shape(self, shape: torch.Size) -> tuple[int, ...]:
        return (shape[0] if self.along_rows(shape) else shape[1], self.rank)

    def empty(self, shape: torch.Size, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return {"basis": torch.zeros(shape[1] if self.along_rows(shape) else shape[0], self.rank, dtype=dtype)}

    def keeps_rows(self, shape: torch.Size) -> bool:
        return self.along_rows(shape)

    def splits(self, name: str, shape: torch.Size) -> bool:
        return not self.along_rows(shape)

    # P has N rows, or as many as G has here, which is less than N.
    def down(self, basis: Basis, g: torch.Tensor) -> torch.Tensor:
        p = basis["basis"].to(g.dtype)
        return (g if p.shape[0] == g.shape[1] else g.T) @ p

    def up(self, basis: Basis, r: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        p = basis["basis"]
        return r.to(p.dtype) @ p.T if p.shape[0] == shape[1] else p @ r.to(p.dtype).T


class SvdSubspace(DenseSubspace):
    """Leading singular vectors of the current gradient, orthonormal; state rank·min(M, N)."""

    reads_gradients = True

    def __init__(self, rank: int, method: str = "iterate", resets: bool = False) -> None:
        super().__init__(rank, resets)
        self.method = method

    def refresh(self, g: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        tall = g if g.shape[0] >= g.shape[1] else g.T
        return {"basis": top_basis(tall, self.rank, self.method, generator).to(g.dtype)}


class HeadSubspace(DenseSubspace):
    """Singular vectors of one randomly chosen head's rows, shared by all heads; projects the columns."""

    reads_gradients = True

    def __init__(self, rank: int, heads: int) -> None:
        super().__init__(rank)
        self.heads = heads

    def applies(self, shape: torch.Size) -> bool:
        return super().applies(shape) and shape[0] % self.heads == 0

    def along_rows(self, shape: torch.Size) -> bool:
        return True

    def refresh(self, g: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        size = g.shape[0] // self.heads
        head = int(torch.randint(self.heads, (1,), generator=generator))
        rows = g[head * size : (head + 1) * size].float()
        width = min(self.rank + 8, g.shape[1])
        q = torch.randn(g.shape[1], width, generator=generator)
        for _ in range(2):
            q = torch.linalg.qr(rows.T @ (rows @ q) + 1e-6 * rows.norm() ** 2 * q).Q
        return {"basis": q[:, : self.rank].to(g.dtype).contiguous()}


class RandomSubspace(DenseSubspace):
    """Gaussian projection with entries N(0, 1/rank), or a random orthonormal one."""

    def __init__(self, rank: int, orthonormal: bool = False) -> None:
        super().__init__(rank, resets=orthonormal)
        self.orthonormal = orthonormal

    def refresh(self, g: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        p = torch.randn(min(g.shape), self.rank, generator=generator)
        return {"basis": (torch.linalg.qr(p).Q if self.orthonormal else p / self.rank**0.5).to(g.dtype)}


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


class ColumnSubspace(Subspace):
    """A random subset of columns (``axis`` 1) or rows (0), orthonormal; moments restart at a refresh."""

    resets = True

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

    def up(self, basis: Basis, r: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        return self.replace(basis, torch.zeros(shape, dtype=r.dtype), r)

    def replace(self, basis: Basis, whole: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        """``whole`` (M, N) with the subspace's part set to r, in place."""
        return whole.index_copy_(self.axis, basis["index"], _chosen(basis, r))


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
