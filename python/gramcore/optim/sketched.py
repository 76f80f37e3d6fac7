"""APOLLO, FRUGAL, GWT and Grass: subspaces without a decomposition (random, coordinates, wavelets), with a lift."""

from __future__ import annotations

from typing import Any

import torch

from gramcore._checks import check_choice, check_int, check_real
from gramcore.optim.coordinates import (
    ColumnSubspace,
    EntrySubspace,
    HaarSubspace,
    RowSampleSubspace,
    WholeSubspace,
)
from gramcore.optim.lift import (
    DetailLift,
    DropResidual,
    RescaledGradient,
    SignResidual,
)
from gramcore.optim.projected import ProjectedOptimizer, adam_numbers
from gramcore.optim.subspace import ByShape, RandomSubspace, Subspace, SvdSubspace

__all__ = ["apollo", "apollo_mini", "frugal", "grass", "gwt"]


def apollo(
    params: Any,
    *,
    lr: Any = 1e-2,
    rank: int = 256,
    refresh_every: int = 200,
    scale: float = 1.0,
    granularity: str = "channel",
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    eps_mode: str = "raw",
    decay: str = "after",
    **options: Any,
) -> ProjectedOptimizer:
    """The raw gradient with learning rates estimated from a random projection.

    R = G P or Pᵀ G with Gaussian P (entries N(0, 1/rank)), renewed every ``refresh_every`` steps; s = ‖Adam(R)‖/‖R‖ per
    channel or per tensor; W ← W − η √α limit(s G), the growth of the norm limited to 1 % per step.

    State: 2·rank·max(M, N) + rank·min(M, N) elements and one number per matrix.

    Args:
        params: parameters or groups; ``"project": False`` in a group exempts it.
        lr: η >= 0.
        rank: r >= 1; matrices with min(M, N) <= r are not projected.
        refresh_every: T >= 1 steps between refreshes.
        scale: α >= 0; its root multiplies the update.
        granularity: ``"channel"`` or ``"tensor"``.
        betas: (β1, β2), each in [0, 1).
        eps: ε >= 0.
        weight_decay: λ >= 0.
        eps_mode: ``"raw"`` adds ε to √v, ``"corrected"`` to √(v / (1−β2ᵗ)).
        decay: ``"before"`` or ``"after"`` the update.
        options: see :class:`~gramcore.optim.FusedOptimizer`; ``state="int8"`` gives the 8-bit variant.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: none. The random stream is ours.

    Reference: Zhu et al. 2024, arXiv:2412.05270, Alg. 1.

    Example:
        >>> import torch
        >>> from gramcore.optim import apollo
        >>> model = torch.nn.Linear(16, 8)
        >>> optimizer = apollo(model.parameters(), lr=0.01)
        >>> model(torch.ones(1, 16)).sum().backward(); optimizer.step()
    """
    check_int("rank", rank, low=1)
    check_int("refresh_every", refresh_every, low=1)
    check_real("scale", scale, low=0.0)
    check_choice("granularity", granularity, ("channel", "tensor"))
    return ProjectedOptimizer(
        params,
        adam_numbers(lr, betas, eps, weight_decay, eps_mode, decay),
        options,
        subspace=RandomSubspace(rank),
        lift=RescaledGradient(scale, granularity),
        refresh_every=refresh_every,
    )


def apollo_mini(
    params: Any,
    *,
    lr: Any = 1e-2,
    refresh_every: int = 200,
    scale: float = 128.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    eps_mode: str = "raw",
    decay: str = "after",
    **options: Any,
) -> ProjectedOptimizer:
    """APOLLO of rank 1 with one learning rate per tensor: the memory of SGD.

    As :func:`apollo` with ``rank=1`` and ``granularity="tensor"``.

    State: 2·max(M, N) + min(M, N) elements and one number per matrix.

    Args:
        params: parameters or groups; ``"project": False`` in a group exempts it.
        lr: η >= 0.
        refresh_every: T >= 1 steps between refreshes.
        scale: α >= 0; its root multiplies the update.
        betas: (β1, β2), each in [0, 1).
        eps: ε >= 0.
        weight_decay: λ >= 0.
        eps_mode: ``"raw"`` adds ε to √v, ``"corrected"`` to √(v / (1−β2ᵗ)).
        decay: ``"before"`` or ``"after"`` the update.
        options: see :class:`~gramcore.optim.FusedOptimizer`; ``state="int8"`` gives the 8-bit variant.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: none. The random stream is ours.

    Reference: Zhu et al. 2024, arXiv:2412.05270, section 4.2.

    Example:
        >>> import torch
        >>> from gramcore.optim import apollo_mini
        >>> model = torch.nn.Linear(16, 8)
        >>> optimizer = apollo_mini(model.parameters(), lr=0.01)
        >>> model(torch.ones(1, 16)).sum().backward(); optimizer.step()
    """
    return apollo(
        params,
        lr=lr,
        rank=1,
        refresh_every=refresh_every,
        scale=scale,
        granularity="tensor",
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        eps_mode=eps_mode,
        decay=decay,
        **options,
    )


def frugal(
    params: Any,
    *,
    lr: Any = 1e-3,
    density: float = 0.25,
    projection: str = "columns",
    refresh_every: int = 200,
    scale: float = 1.0,
    inactive_scale: float = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    eps_mode: str = "corrected",
    decay: str = "before",
    **options: Any,
) -> ProjectedOptimizer:
    """AdamW in a small subspace and sign descent in the rest.

    u = α up(Adam(R)) + α b sign(G − up(R));  W ← (1−ηλ) W − η u.  Moments and their bias correction restart at each
    refresh.

    State: 2·ρ·M·N elements per matrix, plus indices, a bit per entry (``"randk"``) or a basis; ``"blockwise"`` keeps
    2·M·N allocated.

    Args:
        params: parameters or groups; ``"project": False`` in a group exempts it.
        lr: η >= 0.
        density: ρ in [0, 1], the share of each matrix (or of the matrices) with moments; above 0 for a basis.
        projection: random coordinates: ``"columns"``, ``"rows"``, ``"randperm"`` (columns of tall matrices, rows of
            wide ones) or ``"randk"`` (entries); a basis of rank round(ρ min(M, N)): ``"svd"`` of the gradient or
            ``"random"``; or ``"blockwise"`` (whole matrices, each active with probability ρ).
        refresh_every: T >= 1 steps between refreshes.
        scale: α >= 0.
        inactive_scale: b >= 0, of the sign part; 0.1 is used for fine-tuning.
        betas: (β1, β2), each in [0, 1).
        eps: ε >= 0.
        weight_decay: λ >= 0.
        eps_mode: ``"raw"`` adds ε to √v, ``"corrected"`` to √(v / (1−β2ᵗ)).
        decay: ``"before"`` or ``"after"`` the update.
        options: see :class:`~gramcore.optim.FusedOptimizer`; ``state="int8"`` gives the 8-bit variant.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: blockwise activity is drawn per matrix, so the active share varies; ``"randk"`` takes as many
    entries from every row.

    Reference: Zmushko et al. 2024, arXiv:2411.07837, Alg. 1.

    Example:
        >>> import torch
        >>> from gramcore.optim import frugal
        >>> model = torch.nn.Linear(16, 8)
        >>> optimizer = frugal(model.parameters(), lr=0.01)
        >>> model(torch.ones(1, 16)).sum().backward(); optimizer.step()
    """
    check_real("density", density, low=0.0, high=1.0, low_open=projection in ("svd", "random"))
    check_real("scale", scale, low=0.0)
    check_real("inactive_scale", inactive_scale, low=0.0)
    check_int("refresh_every", refresh_every, low=1)
    kinds: dict[str, Subspace | ByShape] = {
        "columns": ColumnSubspace(density, axis=1),
        "rows": ColumnSubspace(density, axis=0),
        "randk": EntrySubspace(density),
        "randperm": ByShape("randperm", lambda s: ColumnSubspace(density, axis=int(len(s) == 2 and s[0] >= s[1]))),
        "svd": ByShape("svd", lambda s: SvdSubspace(_rank(density, s), resets=True)),
        "random": ByShape("random", lambda s: RandomSubspace(_rank(density, s), orthonormal=True)),
        "blockwise": WholeSubspace(density),
    }
    check_choice("projection", projection, tuple(kinds))
    return ProjectedOptimizer(
        params,
        adam_numbers(lr, betas, eps, weight_decay, eps_mode, decay),
        options,
        subspace=kinds[projection],
        lift=SignResidual(scale, inactive_scale),
        refresh_every=refresh_every,
    )


def _rank(density: float, shape: torch.Size) -> int:
    return max(1, round(density * min(shape, default=0)))


def gwt(
    params: Any,
    *,
    lr: Any = 1e-2,
    level: int = 2,
    scale: float = 0.25,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    eps_mode: str = "raw",
    decay: str = "after",
    **options: Any,
) -> ProjectedOptimizer:
    """Adam on the coarse Haar coefficients of each gradient row; details reuse its denominators.

    [A, D_ℓ … D_1] = Haar(G) along rows;  N = Adam(A);  D_i ← D_i / (√v + ε), all divided by the growth limiter;
    W ← W − η α Haar⁻¹(N, D).

    State: 2·M·N / 2^level elements and one number per matrix.

    Args:
        params: parameters or groups; ``"project": False`` in a group exempts it.
        lr: η >= 0.
        level: ℓ >= 1 transforms; moments shrink by 2^ℓ.
        scale: α >= 0, multiplies the lifted step.
        betas: (β1, β2), each in [0, 1).
        eps: ε >= 0.
        weight_decay: λ >= 0.
        eps_mode: ``"raw"`` adds ε to √v, ``"corrected"`` to √(v / (1−β2ᵗ)).
        decay: ``"before"`` or ``"after"`` the update.
        options: see :class:`~gramcore.optim.FusedOptimizer`; ``state="int8"`` gives the 8-bit variant.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: the growth limiter (1 % per step) is in the published code, not in the first version of the
    paper. Odd lengths are padded with zeros. ``state`` must be fp32 or bf16.

    Reference: Wen et al. 2025, arXiv:2501.07237, Alg. 1.

    Example:
        >>> import torch
        >>> from gramcore.optim import gwt
        >>> model = torch.nn.Linear(16, 8)
        >>> optimizer = gwt(model.parameters(), lr=0.01)
        >>> model(torch.ones(1, 16)).sum().backward(); optimizer.step()
    """
    check_int("level", level, low=1, high=16)
    check_real("scale", scale, low=0.0)
    if options.get("state", "fp32") not in ("fp32", "bf16"):
        raise ValueError(f"state must be fp32 or bf16 for gwt, got {options['state']!r}; details need denominators")
    refresh_every = 1 << 62
    return ProjectedOptimizer(
        params,
        adam_numbers(lr, betas, eps, weight_decay, eps_mode, decay),
        options,
        subspace=HaarSubspace(level),
        lift=DetailLift(scale),
        refresh_every=refresh_every,
    )


def grass(
    params: Any,
    *,
    lr: Any = 1e-2,
    rank: int = 128,
    refresh_every: int = 200,
    scale: float = 0.25,
    selection: str = "top",
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    eps_mode: str = "raw",
    decay: str = "after",
    **options: Any,
) -> ProjectedOptimizer:
    """Adam on ``rank`` selected rows of each gradient.

    R = ρ G[rows];  W[rows] ← W[rows] − η α ρ Adam(R).  Moments restart at each refresh.

    State: 2·rank·N elements, and an index and a weight per selected row.

    Args:
        params: parameters or groups; ``"project": False`` in a group exempts it.
        lr: η >= 0.
        rank: r >= 1; matrices with M <= r are not projected.
        refresh_every: T >= 1 steps between refreshes.
        scale: α >= 0, multiplies the lifted step.
        selection: ``"top"`` rows by norm (ρ = 1), ``"uniform"`` (ρ = 1), or ``"norm"``: drawn with replacement with
            probability proportional to the norm, ρ = 1/√(rank·q), unbiased.
        betas: (β1, β2), each in [0, 1).
        eps: ε >= 0.
        weight_decay: λ >= 0.
        eps_mode: ``"raw"`` adds ε to √v, ``"corrected"`` to √(v / (1−β2ᵗ)).
        decay: ``"before"`` or ``"after"`` the update.
        options: see :class:`~gramcore.optim.FusedOptimizer`; ``state="int8"`` gives the 8-bit variant.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: the gradient is formed in full; the paper also skips forming the rows it does not select.

    Reference: Muhamed et al. 2024, arXiv:2406.17660, Alg. 1.

    Example:
        >>> import torch
        >>> from gramcore.optim import grass
        >>> model = torch.nn.Linear(16, 8)
        >>> optimizer = grass(model.parameters(), lr=0.01)
        >>> model(torch.ones(1, 16)).sum().backward(); optimizer.step()
    """
    check_int("rank", rank, low=1)
    check_int("refresh_every", refresh_every, low=1)
    check_real("scale", scale, low=0.0)
    check_choice("selection", selection, ("top", "uniform", "norm"))
    return ProjectedOptimizer(
        params,
        adam_numbers(lr, betas, eps, weight_decay, eps_mode, decay),
        options,
        subspace=RowSampleSubspace(rank, selection),
        lift=DropResidual(scale),
        refresh_every=refresh_every,
    )
