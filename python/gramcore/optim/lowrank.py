"""GaLore, GaLore+ and Fira: subspaces from the singular vectors of the gradient, composed with a lift."""

from __future__ import annotations

from typing import Any

from gramcore._checks import check_choice, check_int, check_real
from gramcore.optim.lift import (
    DropResidual,
    ScaledResidual,
)
from gramcore.optim.projected import ProjectedOptimizer, adam_numbers
from gramcore.optim.subspace import (
    HeadSubspace,
    SvdSubspace,
)

__all__ = ["fira", "galore", "galore_plus"]


def galore(
    params: Any,
    *,
    lr: Any = 1e-2,
    rank: int = 128,
    refresh_every: int = 200,
    scale: float = 0.25,
    method: str = "iterate",
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    eps_mode: str = "raw",
    decay: str = "after",
    **options: Any,
) -> ProjectedOptimizer:
    """Adam with moments kept in the top-``rank`` singular subspace of each gradient.

    For W (M, N): R = G P if M >= N, else Pᵀ G, with P the leading singular vectors of the smaller side, renewed every
    ``refresh_every`` steps;  W ← W − η α lift(Adam(R)).  Moments are kept, not rotated, at a refresh.

    State: 2·rank·max(M, N) + rank·min(M, N) elements per matrix.

    Args:
        params: parameters or groups; ``"project": False`` in a group exempts it.
        lr: η >= 0.
        rank: r >= 1; matrices with min(M, N) <= r are not projected.
        refresh_every: T >= 1 steps between refreshes.
        scale: α >= 0, multiplies the lifted step.
        method: ``"iterate"`` (two subspace iterations, seeded), ``"gram"`` (eigenvectors of GᵀG in fp64) or ``"svd"``.
        betas: (β1, β2), each in [0, 1).
        eps: ε >= 0.
        weight_decay: λ >= 0.
        eps_mode: ``"raw"`` adds ε to √v, ``"corrected"`` to √(v / (1−β2ᵗ)).
        decay: ``"before"`` or ``"after"`` the update.
        options: see :class:`~gramcore.optim.FusedOptimizer`; ``state="int8"`` gives the 8-bit variant.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: none with ``method="svd"``; singular vectors get a sign rule. The default finds the subspace
    by iteration.

    Reference: Zhao et al. 2024, arXiv:2403.03507, Alg. 2.

    Example:
        >>> import torch
        >>> from gramcore.optim import galore
        >>> model = torch.nn.Linear(16, 8)
        >>> optimizer = galore(model.parameters(), lr=0.01)
        >>> model(torch.ones(1, 16)).sum().backward(); optimizer.step()
    """
    check_int("rank", rank, low=1)
    check_int("refresh_every", refresh_every, low=1)
    check_real("scale", scale, low=0.0)
    check_choice("method", method, ("iterate", "gram", "svd"))
    return ProjectedOptimizer(
        params,
        adam_numbers(lr, betas, eps, weight_decay, eps_mode, decay),
        options,
        subspace=SvdSubspace(rank, method),
        lift=DropResidual(scale),
        refresh_every=refresh_every,
    )


def galore_plus(
    params: Any,
    *,
    lr: Any = 1e-2,
    rank: int = 128,
    heads: int = 1,
    refresh_every: int = 200,
    scale: float = 0.25,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    eps_mode: str = "raw",
    decay: str = "after",
    **options: Any,
) -> ProjectedOptimizer:
    """GaLore with one random head's subspace shared by all heads, found by subspace iteration.

    The rows of W (M, N) are ``heads`` blocks; every refresh takes one block, iterates to its leading right vectors
    P (N, rank), and projects the whole matrix: R = G P.

    State: 2·rank·M + rank·N elements per matrix.

    Args:
        params: parameters or groups; ``"project": False`` in a group exempts it.
        lr: η >= 0.
        rank: r >= 1; matrices with min(M, N) <= r are not projected.
        heads: number of equal row blocks, >= 1; matrices it does not divide are not projected.
        refresh_every: T >= 1 steps between refreshes.
        scale: α >= 0, multiplies the lifted step.
        betas: (β1, β2), each in [0, 1).
        eps: ε >= 0.
        weight_decay: λ >= 0.
        eps_mode: ``"raw"`` adds ε to √v, ``"corrected"`` to √(v / (1−β2ᵗ)).
        decay: ``"before"`` or ``"after"`` the update.
        options: see :class:`~gramcore.optim.FusedOptimizer`; ``state="int8"`` gives the 8-bit variant.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: the sparsely coded residual moments are left out; the number of iterations (two) is ours, the
    text does not give it.

    Reference: Liao et al. 2024, arXiv:2412.19820.

    Example:
        >>> import torch
        >>> from gramcore.optim import galore_plus
        >>> model = torch.nn.Linear(16, 8)
        >>> optimizer = galore_plus(model.parameters(), lr=0.01)
        >>> model(torch.ones(1, 16)).sum().backward(); optimizer.step()
    """
    check_int("rank", rank, low=1)
    check_int("refresh_every", refresh_every, low=1)
    check_int("heads", heads, low=1)
    check_real("scale", scale, low=0.0)
    return ProjectedOptimizer(
        params,
        adam_numbers(lr, betas, eps, weight_decay, eps_mode, decay),
        options,
        subspace=HeadSubspace(rank, heads),
        lift=DropResidual(scale),
        refresh_every=refresh_every,
    )


def fira(
    params: Any,
    *,
    lr: Any = 1e-2,
    rank: int = 128,
    refresh_every: int = 200,
    scale: float = 0.25,
    method: str = "iterate",
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    eps_mode: str = "raw",
    decay: str = "after",
    **options: Any,
) -> ProjectedOptimizer:
    """GaLore plus the residual gradient, scaled column by column as Adam scaled the projection.

    S = φ (G − up(R)), φ = ‖N‖/‖R‖ per column of the low-rank side; the growth of ‖S‖ is limited to 1 % per step;
    W ← W − η (α up(N) + S).

    State: as GaLore plus one number per matrix.

    Args:
        params: parameters or groups; ``"project": False`` in a group exempts it.
        lr: η >= 0.
        rank: r >= 1; matrices with min(M, N) <= r are not projected.
        refresh_every: T >= 1 steps between refreshes.
        scale: α >= 0, multiplies the lifted step.
        method: ``"iterate"`` (two subspace iterations, seeded), ``"gram"`` (eigenvectors of GᵀG in fp64) or ``"svd"``.
        betas: (β1, β2), each in [0, 1).
        eps: ε >= 0.
        weight_decay: λ >= 0.
        eps_mode: ``"raw"`` adds ε to √v, ``"corrected"`` to √(v / (1−β2ᵗ)).
        decay: ``"before"`` or ``"after"`` the update.
        options: see :class:`~gramcore.optim.FusedOptimizer`; ``state="int8"`` gives the 8-bit variant.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: none. The published code also multiplies the projection by α inside the residual; this follows
    the paper.

    Reference: Chen et al. 2024, arXiv:2410.01623, Alg. 1.

    Example:
        >>> import torch
        >>> from gramcore.optim import fira
        >>> model = torch.nn.Linear(16, 8)
        >>> optimizer = fira(model.parameters(), lr=0.01)
        >>> model(torch.ones(1, 16)).sum().backward(); optimizer.step()
    """
    check_int("rank", rank, low=1)
    check_int("refresh_every", refresh_every, low=1)
    check_real("scale", scale, low=0.0)
    check_choice("method", method, ("iterate", "gram", "svd"))
    return ProjectedOptimizer(
        params,
        adam_numbers(lr, betas, eps, weight_decay, eps_mode, decay),
        options,
        subspace=SvdSubspace(rank, method),
        lift=ScaledResidual(scale),
        refresh_every=refresh_every,
    )
