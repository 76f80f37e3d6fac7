"""Subspaces of a gradient matrix: where a projected optimizer keeps its moments; those behind a stored basis.

A subspace maps G (M, N) down to R and back up, and holds what that takes as plain tensors.  It never carries the scale
of the update, and random choices are a function of (seed, parameter, refresh number).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch

from gramcore.optim.rows import Rows

__all__ = [
    "Basis",
    "ByShape",
    "DenseSubspace",
    "HeadSubspace",
    "RandomSubspace",
    "Subspace",
    "SvdSubspace",
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
    rows, columns = g.shape
    width = min(rank + 8, columns)
    # Operations: half of GᵀG and three products with it, or five products with G.
    once = 1.2 * rows * columns**2 + 6.0 * columns**2 * width < 10.0 * rows * columns * width
    gram = _gram(g) if once else None
    q = torch.randn(columns, width, generator=generator)
    for _ in range(2):
        q = torch.linalg.qr(g.T @ (g @ q) if gram is None else gram @ q).Q
    if gram is None:
        small = g @ q
        gram = small.T @ small
    else:
        gram = q.T @ (gram @ q)
    vectors = torch.linalg.eigh(gram).eigenvectors[:, -rank:].flip(1)
    return fix_signs(q @ vectors).contiguous()


def _gram(g: torch.Tensor) -> torch.Tensor:
    """GᵀG, of which the blocks above the diagonal are copied from below."""
    size, step = g.shape[1], 128
    gram = g.new_empty(size, size)
    for i in range(0, size, step):
        rows = slice(i, min(i + step, size))
        torch.mm(g[:, rows].T, g[:, : rows.stop], out=gram[rows, : rows.stop])
        gram[:i, rows] = gram[rows, :i].T
    return gram


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

    @property
    def kind(self) -> str:
        """Names what the state of a parameter belongs to."""
        return type(self).__name__

    def of(self, shape: torch.Size) -> Subspace:
        """The subspace for parameters of this shape."""
        return self

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


class ByShape:
    """A subspace that depends on the shape: ``of(shape)`` gives it, ``kind`` names the choice."""

    def __init__(self, kind: str, choose: Callable[[torch.Size], Subspace]) -> None:
        self.kind, self.of = kind, choose


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
