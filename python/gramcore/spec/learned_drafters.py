"""Drafters that remember what the target predicted: token recycling, and an adaptive tri-gram with a draft search."""

from __future__ import annotations

import math

import numpy as np

from gramcore._checks import check_int, check_real
from gramcore.spec.base import Context, Drafter, DraftTree, IntArray, TargetRows
from gramcore.spec.trees import best_choices, top_tokens, typical_accuracy

__all__ = ["TokenRecycling", "TrigramDrafter"]


class TokenRecycling(Drafter):
    """For every token the last seen ``k`` most probable next tokens of the target, chained into a static tree.

    After each forward the top k ids of every row, rejected ones too, are stored under the row's input token. A draft
    fills a fixed tree of ranks from that table: child j of a node with token t is ``table[t][j]``. No training.
    Cost per row: one pass over V; per draft: O(nodes).

    Args:
        k: ``>= 1``; successors kept per token.
        depth: ``>= 1``; depth of the tree.

    Differs from paper: the tree is the most valuable one of the budget's size for typical rank accuracies.
    Reference: Luo et al. 2024, arXiv:2408.08696.

    >>> TokenRecycling().k
    8
    """

    bounded = True

    def __init__(self, *, k: int = 8, depth: int = 6) -> None:
        self.k = check_int("k", k, low=1)
        self.depth = check_int("depth", depth, low=1)
        self._choices = best_choices(typical_accuracy(self.depth, self.k), 256)
        self._next: dict[int, IntArray] = {}
        self._last: list[int] = []

    def propose(self, ctx: Context, budget: int) -> DraftTree:
        where: dict[tuple[int, ...], int] = {(): -1}
        tokens: list[int] = []
        parents: list[int] = []
        root = int(ctx.tokens[-1])
        for path in self._choices:
            if len(tokens) >= budget:
                break
            parent = where.get(path[:-1])
            if parent is None:
                continue
            known = self._next.get(tokens[parent] if parent >= 0 else root)
            if known is None or path[-1] >= len(known):
                continue
            where[path] = len(tokens)
            tokens.append(int(known[path[-1]]))
            parents.append(parent)
        return DraftTree(np.array(tokens, np.int32), np.array(parents, np.int32))

    def observe(self, accepted: IntArray) -> None:
        self._last = [*self._last, *(int(t) for t in accepted)]

    def observe_target(self, tree: DraftTree, rows: TargetRows) -> None:
        inputs = [self._last[-1], *(int(t) for t in tree.tokens)]
        for row, token in enumerate(inputs):
            raw = rows.raw(row)
            law = np.asarray(raw.float() if hasattr(raw, "float") else raw)
            self._next[token] = top_tokens(law, self.k)

    def rollback(self, n: int) -> None:
        if n > 0:
            del self._last[-n:]

    def fork(self) -> TokenRecycling:
        return TokenRecycling(k=self.k, depth=self.depth)


class TrigramDrafter(Drafter):
    """Adaptive tri-gram drafts found by a tree search that balances what is likely and what was tried.

    ``M[(a, b)]`` holds weights of next tokens, from the text and from the target's evidence at visited rows. A draft is
    the trie of several walks of ``depth`` steps from the last two tokens, each choosing
    ``argmax_c Q(c) + P(c | a, b) sqrt(N) / (1 + N(c)) (c1 + log((N + c2 + 1) / c2))`` with N the visits of this draft
    and Q the mean value of the walks through c (the product of their probabilities).

    Args:
        walks: ``>= 1``; walks per draft.
        depth: ``>= 1``; length of a walk.
        c1, c2: ``> 0``; exploration constants.
        evidence: ``>= 0``; weight of the target's argmax at a visited row, against 1 for a committed token.

    Differs from paper: constants are ours (the paper's are not recoverable); no corpus is read at the start;
        verification is the caller's (lossless by default).
    Reference: Liu et al. 2024, arXiv:2407.12021.

    >>> TrigramDrafter().walks
    12
    """

    bounded = True

    def __init__(
        self, *, walks: int = 12, depth: int = 6, c1: float = 1.0, c2: float = 50.0, evidence: float = 0.5
    ) -> None:
        self.walks = check_int("walks", walks, low=1)
        self.depth = check_int("depth", depth, low=1)
        self.c1 = check_real("c1", c1, low=0, low_open=True)
        self.c2 = check_real("c2", c2, low=0, low_open=True)
        self.evidence = check_real("evidence", evidence, low=0)
        self._text: list[int] = []
        self._weights: dict[tuple[int, int], dict[int, float]] = {}

    def propose(self, ctx: Context, budget: int) -> DraftTree:
        if len(self._text) < 2 or budget <= 0:
            return DraftTree.empty()
        tokens: list[int] = []
        parents: list[int] = []
        child: dict[tuple[int, int], int] = {}
        visits: dict[int, int] = {}
        value: dict[int, float] = {}
        for _ in range(self.walks):
            a, b, node, probability = self._text[-2], self._text[-1], -1, 1.0
            path: list[int] = []
            for _ in range(self.depth):
                row = self._weights.get((a, b))
                if not row:
                    break
                token, share = self._choose(row, node, child, visits, value)
                following = child.get((node, token))
                if following is None:
                    if len(tokens) >= budget:
                        break
                    following = child[(node, token)] = len(tokens)
                    tokens.append(token)
                    parents.append(node)
                probability *= share
                path.append(following)
                a, b, node = b, token, following
            for step in path:
                visits[step] = visits.get(step, 0) + 1
                value[step] = value.get(step, 0.0) + (probability - value.get(step, 0.0)) / visits[step]
        return DraftTree(np.array(tokens, np.int32), np.array(parents, np.int32))

    def _choose(
        self,
        row: dict[int, float],
        node: int,
        child: dict[tuple[int, int], int],
        visits: dict[int, int],
        value: dict[int, float],
    ) -> tuple[int, float]:
        """The next token of a walk and its share of the row."""
        total = sum(row.values())
        nodes = {token: child.get((node, token), -1) for token in row}
        tried = sum(visits.get(n, 0) for n in nodes.values())
        weight = math.sqrt(tried + 1) * (self.c1 + math.log((tried + self.c2 + 1) / self.c2))

        def score(token: int) -> tuple[float, int]:
            n = visits.get(nodes[token], 0)
            return value.get(nodes[token], 0.0) + row[token] / total * weight / (1 + n), -token

        best = max(row, key=score)
        return best, row[best] / total

    def observe(self, accepted: IntArray) -> None:
        for token in accepted:
            if len(self._text) >= 2:
                self._add((self._text[-2], self._text[-1]), int(token), 1.0)
            self._text.append(int(token))

    def observe_target(self, tree: DraftTree, rows: TargetRows) -> None:
        if not self.evidence or len(self._text) < 2:
            return
        before = [(self._text[-2], self._text[-1])]
        for node in range(len(tree)):
            a = before[int(tree.parents[node]) + 1][1]
            before.append((a, int(tree.tokens[node])))
        for row, pair in enumerate(before):
            raw = rows.raw(row)
            self._add(pair, int(raw.argmax()), self.evidence)

    def _add(self, pair: tuple[int, int], token: int, weight: float) -> None:
        row = self._weights.setdefault(pair, {})
        row[token] = row.get(token, 0.0) + weight
        if row[token] < 1e-9:
            del row[token]
            if not row:
                del self._weights[pair]

    def rollback(self, n: int) -> None:
        for _ in range(n):
            token = self._text.pop()
            if len(self._text) >= 2:
                self._add((self._text[-2], self._text[-1]), token, -1.0)

    def fork(self) -> TrigramDrafter:
        return TrigramDrafter(walks=self.walks, depth=self.depth, c1=self.c1, c2=self.c2, evidence=self.evidence)
