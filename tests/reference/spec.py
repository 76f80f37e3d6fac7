"""Slow, obvious twins of gramcore.spec, written from the definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence


def sees(parents: Sequence[int], row: int, column: int) -> bool:
    """Whether tree row ``row`` sees ``column`` (0 = root, i + 1 = node i)."""
    while row != column:
        if row == 0:
            return False
        row = parents[row - 1] + 1
    return True


def depth(parents: Sequence[int], row: int) -> int:
    return 0 if row == 0 else 1 + depth(parents, parents[row - 1] + 1)


def warp(logits: Sequence[float], temperature: float, top_k: int, top_p: float, min_p: float) -> list[float]:
    """Softmax of logits / temperature after top-k, top-p, min-p."""
    if temperature == 0:
        best = max(range(len(logits)), key=lambda i: (logits[i], -i))
        return [1.0 if i == best else 0.0 for i in range(len(logits))]
    top = max(logits)
    weights = [math.exp((x - top) / temperature) for x in logits]
    if 0 < top_k < len(logits):
        kth = sorted(weights, reverse=True)[top_k - 1]
        weights = [w if w >= kth else 0.0 for w in weights]
    total = sum(weights)
    if top_p < 1:
        kept, mass = set(), 0.0
        for i in sorted(range(len(weights)), key=lambda i: (-weights[i], i)):
            kept.add(i)
            mass += weights[i]
            if mass >= top_p * total:
                break
        weights = [w if i in kept else 0.0 for i, w in enumerate(weights)]
    weights = [w if w >= min_p * max(weights) else 0.0 for w in weights]
    total = sum(weights)
    return [w / total for w in weights]


def greedy_walk(tokens: Sequence[int], parents: Sequence[int], choices: Sequence[int]) -> tuple[list[int], int]:
    """Descend while a child holds the chosen token of the row."""
    path, row = [], 0
    while True:
        node = next((i for i in range(len(tokens)) if parents[i] == row - 1 and tokens[i] == choices[row]), None)
        if node is None:
            return path, choices[row]
        path.append(node)
        row = node + 1


def anpd(text: Sequence[int], budget: int, max_ngram: int, min_ngram: int, recent: bool) -> list[int]:
    """Multi-level n-gram draft by scanning the text."""
    draft: list[int] = []
    while len(draft) < budget:
        context = [*text, *draft]
        found = None
        for n in range(max_ngram - 1, min_ngram - 2, -1):
            if n > len(context):
                continue
            hits = [i + n for i in range(len(text) - n) if list(text[i : i + n]) == context[len(context) - n :]]
            if hits:
                by_token: dict[int, list[int]] = {}
                for h in hits:
                    by_token.setdefault(text[h], []).append(h)
                scored = [(0 if recent else len(seen), seen[-1], token) for token, seen in by_token.items()]
                found = max(scored)[2]
                break
        if found is None:
            break
        draft.append(found)
    return draft
