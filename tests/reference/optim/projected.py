"""Twins of the rules whose moments live in a subspace."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.optim.codes import philox
from tests.reference.optim.rules import adamw

Array = np.ndarray[Any, Any]


def _projected(p: Array, g: Array, state: dict[str, Array], t: int, *, down, resets: int = 0, betas=(0.9, 0.999)):  # type: ignore[no-untyped-def]
    """m, v of down(g); returns (r, n without bias correction and raw eps, factor, denominator)."""
    f = p.dtype.type
    r = down(g)
    if resets and (t - 1) % resets == 0:
        state["m"], state["v"] = np.zeros_like(r), np.zeros_like(r)
    since = (t - 1) % resets + 1 if resets else t
    m, v = state.setdefault("m", np.zeros_like(r)), state.setdefault("v", np.zeros_like(r))
    m[...] = f(betas[0]) * m + f(1 - betas[0]) * r
    v[...] = f(betas[1]) * v + f(1 - betas[1]) * r * r
    return r, m, v, since


def _plain(p: Array, g: Array, state: dict[str, Array], t: int, lr: float) -> Array:
    return adamw(p, g, state, t, lr=lr, eps=1e-6, weight_decay=0.0, eps_mode="raw", decay="after")


def _factor(t: int) -> float:
    return float(np.sqrt(1 - 0.999**t) / (1 - 0.9**t))


def _svd_basis(g: Array, rank: int) -> Array:
    """Leading singular vectors of the smaller side, largest entry of each positive."""
    u, _, vt = np.linalg.svd(g.astype(np.float64) if g.dtype == np.float64 else g, full_matrices=False)
    basis = vt[:rank].T if g.shape[0] >= g.shape[1] else u[:, :rank]
    return basis * np.sign(basis[np.abs(basis).argmax(0), np.arange(rank)])


def _down(g: Array, basis: Array) -> Array:
    return g @ basis if g.shape[0] >= g.shape[1] else basis.T @ g


def _up(r: Array, basis: Array, shape: tuple[int, ...]) -> Array:
    return r @ basis.T if shape[0] >= shape[1] else basis @ r


def galore(
    p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, rank: int, refresh_every: int, method: str
) -> Array:
    """Zhao et al. 2024, Alg. 2."""
    if p.ndim != 2 or min(p.shape) <= rank:
        return _plain(p, g, state, t, lr)
    if (t - 1) % refresh_every == 0:
        state["basis"] = _svd_basis(g, rank)
    _, m, v, _ = _projected(p, g, state, t, down=lambda x: _down(x, state["basis"]))
    n = m / (np.sqrt(v) + p.dtype.type(1e-6))
    return p - p.dtype.type(lr * 0.25 * _factor(t)) * _up(n, state["basis"], p.shape)


def gradnorm_lorp(
    p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, rank: int, refresh_every: int, method: str
) -> Array:
    """Huang et al. 2024: GaLore on the directions of W = diag(mu) V / |V|, Adam on the magnitudes mu."""
    if p.ndim != 2 or min(p.shape) <= rank:
        return _plain(p, g, state, t, lr)
    f = p.dtype.type
    mu = np.sqrt((p * p).sum(1, keepdims=True))
    g_mu = (g * p / mu).sum(1, keepdims=True)
    g_v = g - g_mu * p / mu
    v = galore(p, g_v, state, t, lr=lr, rank=rank, refresh_every=refresh_every, method=method)
    m1, m2 = state.setdefault("m1", np.zeros_like(mu)), state.setdefault("m2", np.zeros_like(mu))
    m1[...] = f(0.9) * m1 + f(1 - 0.9) * g_mu
    m2[...] = f(0.999) * m2 + f(1 - 0.999) * g_mu * g_mu
    mu = mu - f(lr * _factor(t)) * m1 / (np.sqrt(m2) + f(1e-6))
    return mu * v / np.sqrt((v * v).sum(1, keepdims=True))


def _limit(x: Array, state: dict[str, Array]) -> Array:
    f = x.dtype.type
    norm = np.sqrt((x * x).sum())
    before = state.get("norm")
    limit = f(1) if before is None else max(norm / (before + f(1e-8)), f(1.01)) / f(1.01)
    state["norm"] = norm / limit
    return x / limit


def fira(
    p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, rank: int, refresh_every: int, method: str
) -> Array:
    """Chen et al. 2024, Alg. 1."""
    if p.ndim != 2 or min(p.shape) <= rank:
        return _plain(p, g, state, t, lr)
    f = p.dtype.type
    if (t - 1) % refresh_every == 0:
        state["basis"] = _svd_basis(g, rank)
    r, m, v, _ = _projected(p, g, state, t, down=lambda x: _down(x, state["basis"]))
    n = m / (np.sqrt(v) + f(1e-6))
    axis = 1 if p.shape[0] >= p.shape[1] else 0
    phi = np.sqrt((n * n).sum(axis, keepdims=True)) / (np.sqrt((r * r).sum(axis, keepdims=True)) + f(1e-8))
    residual = _limit(phi * (g - _up(r, state["basis"], p.shape)), state)
    return p - f(lr * _factor(t)) * (f(0.25) * _up(n, state["basis"], p.shape) + residual)


def apollo(
    p: Array,
    g: Array,
    state: dict[str, Array],
    t: int,
    *,
    lr: float,
    rank: int,
    refresh_every: int,
    tensor: bool = False,
    scale: float = 1.0,
) -> Array:
    """Zhu et al. 2024, Alg. 1; the basis comes from the documented generator for the tensor's index in the state."""
    if p.ndim != 2 or min(p.shape) <= rank:
        return _plain(p, g, state, t, lr)
    f = p.dtype.type
    if (t - 1) % refresh_every == 0:
        import torch

        w = philox(0, int(state["index"]), (t - 1) // refresh_every)
        generator = torch.Generator().manual_seed(w[0] | (w[1] & 0x7FFFFFFF) << 32)
        gaussian = torch.randn(min(p.shape), rank, generator=generator).numpy()
        state["basis"] = gaussian.astype(p.dtype) / f(rank**0.5)
    r, m, v, _ = _projected(p, g, state, t, down=lambda x: _down(x, state["basis"]))
    n = m / (np.sqrt(v) + f(1e-6))
    axis = None if tensor else 1 if p.shape[0] >= p.shape[1] else 0
    s = np.sqrt((n * n).sum(axis, keepdims=True)) / (np.sqrt((r * r).sum(axis, keepdims=True)) + f(1e-8))
    return p - f(lr * _factor(t) * scale**0.5) * _limit(s * g, state)


def apollo_mini(p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, refresh_every: int) -> Array:
    """APOLLO of rank 1 with one scale per tensor."""
    return apollo(p, g, state, t, lr=lr, rank=1, refresh_every=refresh_every, tensor=True, scale=128.0)


def frugal(
    p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, refresh_every: int, projection: str = "columns"
) -> Array:
    """Zmushko et al. 2024, Alg. 1, random coordinates at density 1/4."""
    f = p.dtype.type
    if p.ndim != 2:
        return adamw(p, g, state, t, lr=lr, weight_decay=0.0)
    if (t - 1) % refresh_every == 0:
        import torch

        w = philox(0, int(state["index"]), (t - 1) // refresh_every)
        generator = torch.Generator().manual_seed(w[0] | (w[1] & 0x7FFFFFFF) << 32)
        if projection == "randk":  # the largest keys of each row
            order = np.argsort(-torch.rand(p.shape, generator=generator).numpy(), axis=1)
            state["mask"] = np.argsort(order, axis=1) < round(0.25 * p.shape[1])
        else:
            axis = {"columns": 1, "rows": 0, "randperm": int(p.shape[0] >= p.shape[1])}[projection]
            place = np.argsort(torch.randperm(p.shape[axis], generator=generator).numpy())
            chosen = place < round(0.25 * p.shape[axis])
            state["mask"] = np.broadcast_to(chosen if axis else chosen[:, None], p.shape)
    mask = state["mask"]
    _, m, v, since = _projected(p, g, state, t, down=lambda x: x[mask], resets=refresh_every)
    u = np.sign(g)
    u[mask] = (m / f(1 - 0.9**since)) / (np.sqrt(v / f(1 - 0.999**since)) + f(1e-8))
    return p - f(lr) * u


def grass(p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, rank: int, refresh_every: int) -> Array:
    """Muhamed et al. 2024, Alg. 1, rows of largest norm."""
    f = p.dtype.type
    if p.ndim != 2 or p.shape[0] <= rank:
        return _plain(p, g, state, t, lr)
    if (t - 1) % refresh_every == 0:
        state["rows"] = np.sort(np.argsort(-np.square(g.astype(np.float64)).sum(1))[:rank])
    rows = state["rows"]
    _, m, v, since = _projected(p, g, state, t, down=lambda x: x[rows], resets=refresh_every)
    p = p.copy()
    p[rows] -= f(lr * 0.25 * _factor(since)) * m / (np.sqrt(v) + f(1e-6))
    return p


def gwt(p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, level: int = 2) -> Array:
    """Wen et al. 2025, Alg. 1 with the published code's limiter."""
    f = p.dtype.type
    if p.ndim != 2 or p.shape[1] < 2**level:
        return _plain(p, g, state, t, lr)
    a = np.pad(g, ((0, 0), (0, -p.shape[1] % 2**level)))
    details = []
    for _ in range(level):
        details.insert(0, (a[:, ::2] - a[:, 1::2]) / f(2**0.5))
        a = (a[:, ::2] + a[:, 1::2]) / f(2**0.5)
    _, m, v, _ = _projected(p, a, state, t, down=lambda x: x)
    denominator = np.sqrt(v) + f(1e-6)
    n = m / denominator
    limited = _limit(n, state)
    limit = np.sqrt((n * n).sum()) / np.sqrt((limited * limited).sum())
    out = limited
    for i, d in enumerate(details):
        if i:
            denominator = denominator.repeat(2, axis=1)
        d = d / denominator / limit
        out = np.stack(((out + d) / f(2**0.5), (out - d) / f(2**0.5)), axis=2).reshape(p.shape[0], -1)
    return p - f(lr * 0.25 * _factor(t)) * out[:, : p.shape[1]]
