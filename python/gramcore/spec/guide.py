"""A grammar inside the loop: refuses drafts before the forward, masks the rows that verification looks at."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gramcore.grammar.bitmask import apply_bitmask_
from gramcore.spec.base import DraftTree, IntArray

__all__ = ["GrammarGuide"]


class GrammarGuide:
    """Wraps a matcher: ``accept(token) -> bool``, ``fill_bitmask(out, row)``, ``rollback(n)``, ``is_terminated``.

    The matcher stands behind the last committed new token; excursions along draft paths are rolled back.
    """

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        for name in ("accept", "fill_bitmask", "rollback", "is_terminated"):
            if not hasattr(matcher, name):
                raise TypeError(f"grammar must be a matcher with {name}, got {type(matcher).__name__}")
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._bits = np.zeros((1, (vocab_size + 31) // 32), np.int32)

    @property
    def finished(self) -> bool:
        """Whether the text is complete and nothing may follow."""
        value = self._matcher.is_terminated
        return bool(value() if callable(value) else value)

    def accept(self, token: int) -> None:
        """Advance by a committed token.

        Raises:
            RuntimeError: the matcher refuses a token its own mask allowed.
        """
        if not self._matcher.accept(token):
            raise RuntimeError(f"grammar must accept what its mask allows, got a refusal of token {token}")

    def allowed(self, tree: DraftTree) -> npt.NDArray[np.bool_]:
        """``(n,)``: whether the path to each node stays inside the grammar."""
        keep = np.zeros(len(tree), bool)
        where: list[int] = []  # the path the matcher stands on
        for node in range(len(tree)):
            path = tree.path_to(node)
            if len(path) > 1 and not keep[path[-2]]:
                continue
            common = 0
            while common < min(len(where), len(path)) and where[common] == path[common]:
                common += 1
            if len(where) > common:
                self._matcher.rollback(len(where) - common)
                del where[common:]
            for step in path[common:]:
                if self.finished or not self._matcher.accept(int(tree.tokens[step])):
                    break
                where.append(step)
            keep[node] = where == path
        if where:
            self._matcher.rollback(len(where))
        return keep

    def mask(self, path: IntArray, scores: torch.Tensor) -> torch.Tensor:
        """A copy of ``scores`` (V,) with the tokens that may not follow ``path`` at -inf."""
        for token in path:
            self.accept(int(token))
        complete = self.finished
        if not complete:
            self._bits[:] = 0
            self._matcher.fill_bitmask(self._bits, 0)
        if len(path):
            self._matcher.rollback(len(path))
        if complete:  # the text ends with this path: what this row says is never emitted
            return scores
        return apply_bitmask_(scores.clone(), torch.from_numpy(self._bits[0]))
