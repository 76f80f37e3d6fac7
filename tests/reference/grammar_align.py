"""Slow twins of the aligners: weights by their definition over a whole tree of prefixes."""

from __future__ import annotations

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
