"""Slow twins of the aligners: weights by their definition over a whole tree of prefixes."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable

Prefix = tuple[int, ...]
Model = Callable[[Prefix], list[float]]


def weight(model: Model, excluded: Iterable[Prefix], prefix: Prefix) -> float:
    """The model's mass, behind ``prefix``, on continuations that start with no excluded prefix."""
    bad = set(excluded)
    if any(prefix[: len(b)] == b for b in bad):
        return 0.0
    if not any(b[: len(prefix)] == prefix for b in bad):
        return 1.0
    return sum(p * weight(model, bad, (*prefix, t)) for t, p in enumerate(model(prefix)))


def conditional_law(model: Model, length: int, good: Callable[[Prefix], bool]) -> dict[Prefix, float]:
    """The model's law over texts of ``length`` tokens, conditioned on ``good``."""
    symbols = range(len(model(())))
    mass = {
        x: math.prod(model(x[:i])[x[i]] for i in range(length))
        for x in itertools.product(symbols, repeat=length)
        if good(x)
    }
    total = sum(mass.values())
    return {x: m / total for x, m in mass.items()}


def divergence(p: dict[Prefix, float], q: dict[Prefix, float]) -> float:
    """KL(p || q) in nats."""
    return sum(v * math.log(v / q[x]) for x, v in p.items() if v > 0)


def aprad_law(model: Model, length: int, good: Callable[[Prefix], bool]) -> dict[Prefix, float]:
    """The law of AprAD's texts (Melcer et al. 2024, Algorithm 3), by following every draw with its probability.

    A token comes from the model without what is excluded, and without the token just refused. A bad prefix is excluded;
    its tokens stay from the start, each with probability min(1, p_new / p_old), and the first that does not is refused.
    """
    known: dict[tuple[Prefix, frozenset[Prefix], int | None], dict[Prefix, float]] = {}
    left = functools.cache(lambda bad, x: weight(model, bad, x))

    def behind(x: Prefix, bad: frozenset[Prefix], refused: int | None) -> dict[Prefix, float]:
        if len(x) == length:
            return {x: 1.0}
        if (x, bad, refused) not in known:
            mass = [p * left(bad, (*x, t)) * (t != refused) for t, p in enumerate(model(x))]
            parts = [] if sum(mass) > 0 else [(1.0, excluded(x, bad))]
            for t, m in enumerate(mass):
                if m > 0:
                    child = (*x, t)
                    parts.append((m / sum(mass), behind(child, bad, None) if good(child) else excluded(child, bad)))
            known[x, bad, refused] = mixed(parts)
        return known[x, bad, refused]

    def excluded(prefix: Prefix, before: frozenset[Prefix]) -> dict[Prefix, float]:
        after, parts, kept = before | {prefix}, [], 1.0
        for i in range(len(prefix)):
            here, child = prefix[:i], prefix[: i + 1]
            old, new = (left(bad, child) / left(bad, here) for bad in (before, after))
            stays = min(1.0, new / old)
            if stays < 1:
                parts.append((kept * (1 - stays), behind(here, after, prefix[i])))
            kept *= stays
        return mixed(parts)

    def mixed(parts: list[tuple[float, dict[Prefix, float]]]) -> dict[Prefix, float]:
        out: dict[Prefix, float] = {}
        for share, law in parts:
            for x, p in law.items():
                out[x] = out.get(x, 0.0) + share * p
        return out

    return behind((), frozenset(), None)


def keep_count(model: Model, before: set[Prefix], bad: Prefix, uniforms: list[float]) -> int:
    """How many tokens of ``bad`` stay when it is excluded too (AprAD's walk)."""
    after = before | {bad}
    for i, u in enumerate(uniforms):
        here, child = bad[:i], bad[: i + 1]
        old = weight(model, before, child) / weight(model, before, here)
        rest = weight(model, after, here)
        new = weight(model, after, child) / rest if rest > 0 else 0.0
        if u >= new / old:
            return i
    return len(bad)
