"""Slow, obvious twins of the optimizers, from the papers: one function per rule, on NumPy arrays of any float type.

``step(p, g, state, t, **numbers)`` returns the new parameter and changes ``state`` (a dict of arrays) in place.
The arrays' dtype decides the precision: float64 is the oracle, float32 the naive twin of the same type.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def adamw(
    p: Array,
    g: Array,
    state: dict[str, Array],
    t: int,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    maximize: bool = False,
    eps_mode: str = "corrected",
    decay: str = "before",
) -> Array:
    """Loshchilov and Hutter 2019, Alg. 2, with the decay multiplied by lr."""
    f = p.dtype.type
    b1, b2 = betas
    m = state.setdefault("exp_avg", np.zeros_like(p))
    v = state.setdefault("exp_avg_sq", np.zeros_like(p))
    if maximize:
        g = -g
    if decay == "before":
        p = p * f(1 - lr * weight_decay)
    m[...] = f(b1) * m + f(1 - b1) * g
    v[...] = f(b2) * v + f(1 - b2) * g * g
    if eps_mode == "corrected":
        p = p - f(lr) * (m / f(1 - b1**t)) / (np.sqrt(v / f(1 - b2**t)) + f(eps))
    else:
        p = p - f(lr * np.sqrt(1 - b2**t) / (1 - b1**t)) * m / (np.sqrt(v) + f(eps))
    return p if decay == "before" else p - f(lr * weight_decay) * p


def philox(seed: int, lo: int, hi: int) -> list[int]:
    """Philox4x32-10 (Salmon et al. 2011) with Python integers."""
    mask = 0xFFFFFFFF
    c = [lo & mask, lo >> 32, hi & mask, hi >> 32]
    k0, k1 = seed & mask, seed >> 32
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & mask, (p0 >> 32) ^ c[3] ^ k1, p0 & mask]
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return c


def rounding_word(seed: int, step: int, tensor: int, element: int) -> int:
    """A mix of the element's place in a run of 32768 and the run's Philox key."""
    a, b, _, _ = philox(seed, element // 32768, tensor << 32 | step)
    word = element % 32768 * 0x9E3779B1 + a & 0xFFFFFFFF
    word = (word ^ word >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    word = (word ^ word >> 13 ^ b) * 0xC2B2AE35 & 0xFFFFFFFF
    return word ^ word >> 16


def rounding_bits(seed: int, step: int, tensor: int, element: int, field: int) -> int:
    """The 16 bits that round one field (0 parameter, 1 and 2 moments) of one element."""
    word = rounding_word(seed, step, tensor, element)
    return (word & 0xFFFF, (word * 0x9E3779B1 & 0xFFFFFFFF) >> 16, word >> 16)[field]


def bf16_stochastic(x: Array, noise: Array) -> Array:
    """float32 values rounded to bf16 (as float32): up with probability (low 16 bits of x) / 2^16."""
    u = x.astype(np.float32).view(np.uint32)
    return ((u + noise.astype(np.uint32)) & np.uint32(0xFFFF0000)).view(np.float32)


def dynamic_map(bits: int, *, signed: bool) -> Array:
    """The dynamic-exponent map of Dettmers et al. 2022: decades 10^-6 … 1, each cut finer than the one before."""
    values = [0.0]
    exponents = bits - 1  # decades
    for i in range(exponents):
        count = 2**i if signed else 2 ** (i + 1)
        bounds = np.linspace(0.1, 1.0, count + 1)
        means = (bounds[:-1] + bounds[1:]) / 2
        scale = 10.0 ** (i - exponents + 1)
        values += [sign * scale * m for m in means for sign in ((1, -1) if signed else (1,))]
    values.append(1.0)
    return np.sort(np.array(values))


SIGNED_4BIT = np.array(
    [
        -0.8875,
        -0.6625,
        -0.4375,
        -0.2125,
        -0.0775,
        -0.0325,
        -0.0055,
        0,
        0.0055,
        0.0325,
        0.0775,
        0.2125,
        0.4375,
        0.6625,
        0.8875,
        1.0,
    ]
)
LINEAR_4BIT = (np.arange(16) + 1) / 16


def requantise(state: dict[str, Array], bits: int) -> None:
    """Store both moments in blocks of low-bit codes and read them back."""
    for name, signed in (("exp_avg", True), ("exp_avg_sq", False)):
        table = dynamic_map(8, signed=signed) if bits == 8 else SIGNED_4BIT if signed else LINEAR_4BIT
        flat = state[name].reshape(-1)
        block = 256 if bits == 8 else 128
        for start in range(0, flat.size, block):
            part = flat[start : start + block]
            scale = np.abs(part).max()
            codes = np.abs(part[:, None] / (scale or 1) - table[None, :]).argmin(axis=1)
            part[...] = (table[codes] * scale).astype(part.dtype)


def rank1_codes(v: Array) -> tuple[Array, Array, Array]:
    """Li et al. 2023, section 4.2, rank-1/linear: codes, row maxima, column maxima of a matrix >= 0."""
    rows, columns = v.max(axis=1), v.max(axis=0)
    codes = np.zeros(v.shape, np.int64)
    for i in range(v.shape[0]):
        for j in range(v.shape[1]):
            bound = min(rows[i], columns[j])
            codes[i, j] = np.abs(v[i, j] / bound - LINEAR_4BIT).argmin() if bound > 0 else 0
    return codes, rows, columns


def rank1_values(codes: Array, rows: Array, columns: Array) -> Array:
    """What :func:`rank1_codes` stands for."""
    return np.asarray(LINEAR_4BIT[codes] * np.minimum(rows[:, None], columns[None, :]))


def adamw_scale(p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, **numbers: Any) -> Array:
    """nanoT5: AdamW with lr multiplied by the RMS of the weight, at least 10^-3."""
    rms = max(1e-3, float(np.sqrt(np.mean(np.square(p.astype(np.float64))))) if p.size else 1e-3)
    numbers.pop("rms_scale", None)
    return adamw(p, g, state, t, lr=lr * rms, **numbers)


def grams(p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, eps: float = 1e-6) -> Array:
    """Cao et al. 2024, Alg. 1."""
    zero = np.zeros_like(p)
    step = np.abs(adamw(zero, g, state, t, lr=lr, eps=eps, weight_decay=0.0))
    return p - np.sign(g) * step


def lion(
    p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, betas: tuple[float, float] = (0.9, 0.99)
) -> Array:
    """Chen et al. 2023, Alg. 2."""
    f = p.dtype.type
    m = state.setdefault("exp_avg", np.zeros_like(p))
    p = p - f(lr) * np.sign(f(betas[0]) * m + f(1 - betas[0]) * g)
    m[...] = f(betas[1]) * m + f(1 - betas[1]) * g
    return p


def sgd(
    p: Array,
    g: Array,
    state: dict[str, Array],
    t: int,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> Array:
    """torch.optim.SGD's definition."""
    f = p.dtype.type
    g = g + f(weight_decay) * p
    if momentum:
        b = state["b"] = g.copy() if t == 1 else f(momentum) * state["b"] + f(1 - dampening) * g
        g = g + f(momentum) * b if nesterov else b
    return p - f(lr) * g


def sophia(
    p: Array,
    g: Array,
    state: dict[str, Array],
    t: int,
    *,
    lr: float,
    betas: tuple[float, float] = (0.96, 0.99),
    gamma: float = 0.05,
    eps: float = 1e-12,
    weight_decay: float = 0.1,
) -> Array:
    """Liu et al. 2023, Alg. 3, with h given in state (zero before the first estimate)."""
    f = p.dtype.type
    m = state.setdefault("exp_avg", np.zeros_like(p))
    h = state.setdefault("hessian", np.zeros_like(p))
    m[...] = f(betas[0]) * m + f(1 - betas[0]) * g
    return p * f(1 - lr * weight_decay) - f(lr) * np.clip(m / np.maximum(f(gamma) * h, f(eps)), -1, 1)


#: Twins too slow for 100 steps.
SLOW: frozenset[str] = frozenset()


def gaussian(seed: int, draw: int, tensor: int, element: int) -> float:
    """Box and Muller on the words of elements i and i + 16 of a run of 32: the direction of a zeroth-order step."""
    low = element // 32 * 32 + element % 16
    first, second = (rounding_word(seed ^ 0x9D39247E33776D41, draw, tensor, e) for e in (low, low + 16))
    radius = np.sqrt(-2 * np.log(((first >> 8) + 0.5) / 2**24))
    angle = 2 * np.pi * second / 2**32
    return float(radius * (np.sin(angle) if element % 32 >= 16 else np.cos(angle)))


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


def mkor_factor(factor: Array, x: Array, decay: float) -> Array:
    """Mozaffari et al. 2023: the averaged factor itself; its inverse is what the optimizer keeps."""
    return decay * factor + (1 - decay) * np.outer(x, x)


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


def frugal(p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, refresh_every: int) -> Array:
    """Zmushko et al. 2024, Alg. 1, random columns at density 1/4."""
    f = p.dtype.type
    if p.ndim != 2:
        return adamw(p, g, state, t, lr=lr, weight_decay=0.0)
    if (t - 1) % refresh_every == 0:
        import torch

        w = philox(0, int(state["index"]), (t - 1) // refresh_every)
        generator = torch.Generator().manual_seed(w[0] | (w[1] & 0x7FFFFFFF) << 32)
        order = torch.randperm(p.shape[1], generator=generator).numpy()
        state["columns"] = np.sort(order[: round(0.25 * p.shape[1])])
    columns = state["columns"]
    _, m, v, since = _projected(p, g, state, t, down=lambda x: x[:, columns], resets=refresh_every)
    u = np.sign(g)
    u[:, columns] = (m / f(1 - 0.9**since)) / (np.sqrt(v / f(1 - 0.999**since)) + f(1e-8))
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


def _second_moment(g: Array, state: dict[str, Array], beta: float, eps: float, key: str = "second") -> Array:
    """Full second moment (one axis), or its rank-1 estimate from row and column means over the last two axes."""
    f = g.dtype.type
    if g.ndim < 2:
        v = state.setdefault(key, np.zeros_like(g))
        v[...] = f(beta) * v + f(1 - beta) * (g * g + f(eps))
        return v
    return _factored(g * g + f(eps), state, beta, key)


def _factored(x: Array, state: dict[str, Array], beta: float, key: str) -> Array:
    f = x.dtype.type
    row = state.setdefault(key + "r", np.zeros(x.shape[:-1], x.dtype))
    col = state.setdefault(key + "c", np.zeros(x.shape[:-2] + x.shape[-1:], x.dtype))
    row[...] = f(beta) * row + f(1 - beta) * x.mean(-1)
    col[...] = f(beta) * col + f(1 - beta) * x.mean(-2)
    return (row / row.mean(-1, keepdims=True))[..., :, None] * col[..., None, :]


def _rms(x: Array) -> Array:
    return np.sqrt(np.mean(x * x))


def adafactor(p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, relative_step: bool = True) -> Array:
    """Shazeer and Stern 2018, Alg. 4 and 5, without a first moment; AdaLomo's rule without the relative step."""
    f = p.dtype.type
    u = g / np.sqrt(_second_moment(g, state, 1 - t**-0.8, 1e-30))
    u = u / max(f(1), _rms(u))
    rho = min(lr, t**-0.5) if relative_step else lr
    return p - f(rho) * max(f(1e-3), _rms(p)) * u


def came(p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float) -> Array:
    """Luo et al. 2023, Alg. 2."""
    f = p.dtype.type
    u = g / np.sqrt(_second_moment(g, state, 0.999, 1e-30))
    u = u / max(f(1), _rms(u))
    m = state.setdefault("exp_avg", np.zeros_like(p))
    m[...] = f(0.9) * m + f(1 - 0.9) * u
    if p.ndim < 2:
        return p - f(lr) * m
    return p - f(lr) * m / np.sqrt(_factored((u - m) ** 2 + f(1e-16), state, 0.9999, "instability"))


def factor_4bit(p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, quantise: bool = True) -> Array:
    """Li et al. 2023, 4-bit Factor, with epsilon^2 added to g^2; m is quantised after the step."""
    f = p.dtype.type
    m = state.setdefault("exp_avg", np.zeros_like(p))
    m[...] = f(0.9) * m + f(1 - 0.9) * g
    v = _second_moment(g, state, 0.999, 1e-16) / f(1 - 0.999**t)
    p = p * f(1 - lr * 0.01) - f(lr) * (m / f(1 - 0.9**t)) / np.sqrt(v)
    if quantise and p.size >= 4096:
        held = {"exp_avg": m, "exp_avg_sq": np.zeros_like(m)}
        requantise(held, 4)
        m[...] = held["exp_avg"]
    return p


def adam_mini(p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float) -> Array:
    """Zhang et al. 2024, Alg. 1, one block per row."""
    f = p.dtype.type
    m = state.setdefault("exp_avg", np.zeros_like(p))
    m[...] = f(0.9) * m + f(1 - 0.9) * g
    axes = tuple(range(1, p.ndim))
    v = state.setdefault("v", np.zeros((p.shape[0],) + (1,) * (p.ndim - 1), p.dtype))
    v[...] = f(0.999) * v + f(1 - 0.999) * np.mean(g * g, axis=axes, keepdims=True)
    return p - f(lr) * (m / f(1 - 0.9**t)) / (np.sqrt(v / f(1 - 0.999**t)) + f(1e-8))


def cosmos(p: Array, g: Array, state: dict[str, Array], t: int, *, lr: float, rank: int) -> Array:
    """Liu et al. 2025, Alg. 1, with unit-RMS normalisation and a factor 0.1 for matrices."""
    f = p.dtype.type
    if p.ndim != 2 or min(p.shape) <= rank:
        return adamw(p, g, state, t, lr=lr, weight_decay=0.0)
    b1, b2 = f(0.9), f(0.999)
    m = state.setdefault("m", np.zeros_like(p))
    m[...] = b1 * m + (1 - b1) * g
    gram = g.T @ g
    if t == 1:
        u = np.linalg.svd(g, full_matrices=False)[2][:rank].T
        state["s"] = (1 - b2) * (u.T @ gram @ u)
    else:
        old, s = state["u"], state["s"]
        u = np.linalg.qr(b2 * (old @ s) + (1 - b2) * (gram @ old))[0]
        state["s"] = u.T @ (b2 * (old @ s @ old.T) + (1 - b2) * gram) @ u
    state["u"] = u
    v = state.setdefault("v", np.zeros((p.shape[0], rank), p.dtype))
    v[...] = b2 * v + (1 - b2) * (g @ u) ** 2
    a = ((m @ u) / f(1 - 0.9**t) / (np.sqrt(v / f(1 - 0.999**t)) + f(1e-8))) @ u.T
    x = m - m @ u @ u.T
    x = x / (np.sqrt((x * x).sum()) + f(1e-7))
    x = x.T if p.shape[0] > p.shape[1] else x  # the iteration commutes with it
    for _ in range(5):
        square = x @ x.T
        x = f(3.4445) * x + (f(-4.7750) * square + f(2.0315) * square @ square) @ x
    x = x.T if p.shape[0] > p.shape[1] else x
    total = a + f(0.2) * x / _rms(x)
    return p - f(lr * 0.1) * total / _rms(total)
