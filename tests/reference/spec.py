"""Slow, obvious twins of gramcore.spec, written from the definitions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence


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


def disco_features(law: Sequence[float], index: int, top_k: int) -> list[float]:
    """Largest probabilities, entropy in nats, place."""
    largest = sorted(law, reverse=True)[:top_k]
    entropy = -sum(p * math.log(p) for p in law if p > 0)
    return [*largest, *[0.0] * (top_k - len(largest)), entropy, index]


def disco_probability(
    x: Sequence[float],
    mean: Sequence[float],
    scale: Sequence[float],
    w1: Sequence[Sequence[float]],
    b1: Sequence[float],
    w2: Sequence[float],
    b2: Sequence[float],
) -> float:
    z = [(a - m) / s for a, m, s in zip(x, mean, scale, strict=True)]
    inner = [max(0.0, sum(w * a for w, a in zip(row, z, strict=True)) + b) for row, b in zip(w1, b1, strict=True)]
    return 1 / (1 + math.exp(-sum(w * a for w, a in zip(w2, inner, strict=True)) - b2[0]))


def acceptance_probability(
    x: Sequence[float],
    blocks: Sequence[tuple[Sequence[Sequence[float]], Sequence[float]]],
    weight: Sequence[Sequence[float]],
    bias: Sequence[float],
) -> float:
    """Residual SiLU blocks, then the softmax of two logits."""
    state = list(x)
    for w, b in blocks:
        inner = [sum(a * s for a, s in zip(row, state, strict=True)) + c for row, c in zip(w, b, strict=True)]
        state = [s + v / (1 + math.exp(-v)) for s, v in zip(state, inner, strict=True)]
    zero, one = (sum(a * s for a, s in zip(row, state, strict=True)) + c for row, c in zip(weight, bias, strict=True))
    return math.exp(one) / (math.exp(zero) + math.exp(one))


def acceptance_loss(logits: Sequence[Sequence[float]], soft: Sequence[float], weight: float) -> float:
    total = mass = 0.0
    for (zero, one), s in zip(logits, soft, strict=True):
        norm = math.log(math.exp(zero) + math.exp(one))
        total -= weight * (1 - s) * (zero - norm) + s * (one - norm)
        mass += weight * (1 - s) + s
    return total / mass


def specdec_length(p: Sequence[float], threshold: float, low: int, high: int) -> int:
    """Tokens drafted when p[i + 1] is the chance known once token i has been read (p[0] belongs to the root)."""
    length = 0
    while True:
        survival = math.prod(p[1 : length + 1])
        if length >= low and (length >= high or 1 - survival > threshold):
            return length
        length += 1


def rate_of_threshold(
    threshold: float,
    scores: Sequence[Sequence[float]],
    accept: Sequence[Sequence[float]],
    draft_cost: float,
    target_cost: Callable[[int], float],
) -> float:
    """Tokens per unit of time when each draft ends before its first score below the threshold."""
    emitted = spent = 0.0
    for row, chance in zip(scores, accept, strict=True):
        n = next((i for i, s in enumerate(row) if s < threshold), len(row))
        emitted += 1 + sum(math.prod(chance[: d + 1]) for d in range(n))
        spent += target_cost(n + 1) + draft_cost * min(n + 1, len(row))
    return emitted / spent


class Cursor:
    """Follows a copy: a place where the last 8 tokens occurred before, moved after differences."""

    def __init__(self) -> None:
        self.text: list[int] = []
        self.place, self.lost = -1, 0

    def agreement(self, place: int) -> int:
        n = 0
        while n < min(32, place) and self.text[-1 - n] == self.text[place - 1 - n]:
            n += 1
        return n

    def nearby(self) -> tuple[int, int]:
        places = range(max(1, self.place - 1), min(self.place + 8, len(self.text)))
        scored = [(self.agreement(h), -abs(h - self.place - self.lost), -h) for h in places]
        best = max((s for s in scored if s[0] > 0), default=(0, 0, 1))
        return -best[2], best[0]

    def append(self, token: int) -> None:
        here = len(self.text)
        self.text.append(token)
        if self.place >= 0:
            if self.place < here and self.text[self.place] == token:
                self.place, self.lost = self.place + 1, 0
            else:
                self.lost += 1
                place, n = self.nearby()
                if self.lost > 6:
                    self.place = -1
                elif n >= 2:
                    self.place, self.lost = place, 0
        if len(self.text) >= 8 and (self.place < 0 or self.lost > 0):
            ends = [e for e in range(8, len(self.text)) if self.text[e - 8 : e] == self.text[-8:]]
            if ends:
                self.place, self.lost = ends[-1], 0

    def source(self) -> tuple[int, int]:
        if self.place < 0:
            return -1, 0
        if self.lost == 0:
            return self.place, self.agreement(self.place)
        place, n = self.nearby()
        if n:
            return place, n
        return (self.place + self.lost, 0) if self.lost <= 2 and self.place + self.lost < len(self.text) else (-1, 0)


def escape_law(text: Sequence[int], context: Sequence[int], low: int, high: int) -> list[tuple[int, float]]:
    """PPM-C over orders high .. low: (token, probability), longer orders first, frequent then recent ones first."""
    shares: list[tuple[int, float]] = []
    left = 1.0
    for n in range(min(high, len(context)), low - 1, -1):
        seen: dict[int, list[int]] = {}
        for i in range(n, len(text)):
            if list(text[i - n : i]) == list(context[len(context) - n :]):
                seen.setdefault(text[i], []).append(i)
        fresh = {t: at for t, at in seen.items() if t not in [s for s, _ in shares]}
        if not fresh:
            continue
        whole = sum(len(at) for at in fresh.values()) + len(fresh)
        ranked = sorted(fresh, key=lambda t: (-len(fresh[t]), -fresh[t][-1]))[:16]
        shares += [(t, left * len(fresh[t]) / whole) for t in ranked]
        left *= len(fresh) / whole
    return shares


def escape_tree(
    text: Sequence[int], budget: int, low: int, high: int, chain: Sequence[int], share: float
) -> dict[tuple[int, ...], float]:
    """The ``budget`` most probable paths by exhaustive expansion, with their probabilities."""
    values: dict[tuple[int, ...], float] = {(): 1.0}
    layer: list[tuple[int, ...]] = [()]
    for depth in range(budget):
        after: dict[tuple[int, ...], float] = {}
        for path in layer:
            law = dict(escape_law(text, [*text, *path][-high:] if high else [], low, high))
            if depth < len(chain) and list(path) == list(chain[:depth]):
                sure = share if depth == 0 else max(share, 0.85)
                law = {t: p * (1 - sure) for t, p in law.items()}
                law[chain[depth]] = law.get(chain[depth], 0.0) + sure
            after |= {(*path, t): values[path] * p for t, p in law.items()}
        best = sorted(after.items(), key=lambda item: -item[1])[:budget]
        values |= dict(best)
        layer = [path for path, _ in best]
    values.pop(())
    return dict(sorted(values.items(), key=lambda item: -item[1])[:budget])


def count_tree(corpus: Sequence[Sequence[int]], match: Sequence[int], nodes: int, width: int) -> list[tuple[int, ...]]:
    """Best-first tree of the most frequent continuations of ``match``: paths in the order they are taken."""

    def count(ids: Sequence[int]) -> int:
        n = len(ids)
        return sum(list(doc[i : i + n]) == list(ids) for doc in corpus for i in range(len(doc) - n + 1))

    alphabet = sorted({t for doc in corpus for t in doc})
    taken: list[tuple[int, ...]] = []
    open_: list[tuple[float, tuple[int, ...]]] = []

    def expand(path: tuple[int, ...], share: float) -> None:
        children = [(share * count([*match, *path, t]) / count([*match, *path]), t) for t in alphabet]
        best = sorted((c for c in children if c[0] > 0), key=lambda c: (-c[0], c[1]))[:width]
        open_.extend((s, (*path, t)) for s, t in best)

    expand((), 1.0)
    while open_ and len(taken) < nodes:
        best = min(open_, key=lambda item: (-item[0], item[1][-1]))
        open_.remove(best)
        if sum(len(p) == len(best[1]) for p in taken) == width:
            continue
        taken.append(best[1])
        expand(best[1], best[0])
    return taken
