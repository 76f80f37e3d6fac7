"""The suffix automaton of a growing token sequence: drafts for speculation, counts and positions of substrings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gramcore import _core
from gramcore._checks import check_choice, check_int

__all__ = ["SuffixAutomaton", "SuffixMatcher"]

Tokens: TypeAlias = Sequence[int] | npt.NDArray[np.integer]


def _propose(native: Any, max_tokens: int, by: str) -> npt.NDArray[np.int32]:
    """The native side checks values; types are looked at only once it has refused one."""
    try:
        return native.propose(max_tokens, by)
    except TypeError:
        check_int("max_tokens", max_tokens, low=0)
        check_choice("by", by, ("recent", "first", "frequent"))
        raise


class SuffixAutomaton:
    """Smallest automaton that accepts every substring of a token sequence; grows and shrinks at its end.

    After each token, the longest suffix that also ends earlier is known (``match_len``), and ``propose`` reads off what
    followed it. With n tokens there are at most 2n states and 3n transitions, in about 32 bytes per token on text.

    Cost: ``extend`` O(1) amortised per token and at most 64 suffix links to note the latest occurrence; ``propose``
    O(max_tokens); ``rollback(n)`` what the n tokens cost; ``count`` and ``positions`` one O(n) pass after a change.
    Methods may be called from any thread; calls on one automaton take turns.

    Shapes/Returns: ids are one-dimensional integer arrays or lists, drafts and positions NumPy arrays.
    Raises: IndexError for an id outside [0, 2^31 - 1]; TypeError for ids that are not integers; LimitError at 2^31
        tokens.
    Differs from paper: prefix states keep no length, position or transition to their successor (the text implies them)
        and no others unless the prefix occurred again; transitions live in arrays up to 8 and in hash tables beyond.
    Reference: Blumer et al. 1985, "The smallest automaton recognizing the subwords of a text".

    >>> automaton = SuffixAutomaton()
    >>> automaton.extend([5, 6, 7, 8, 5, 6])
    >>> automaton.match_len, automaton.propose(3).tolist()
    (2, [7, 8, 5])
    >>> automaton.rollback(1)
    >>> automaton.match_len, automaton.count([5])
    (1, 2)
    """

    def __init__(self, ids: Tokens | None = None) -> None:
        self._native = _core.ngram.SuffixAutomaton()
        if ids is not None:
            self._native.extend(ids)

    def extend(self, ids: Tokens | int) -> None:
        """Append one token id or several."""
        self._native.extend(ids)

    def add_sequence(self, ids: Tokens) -> None:
        """Append a sequence and close it: no draft crosses its end, no counted substring spans it."""
        self._native.extend(ids)
        self._native.end_sequence()

    def rollback(self, n: int) -> None:
        """Remove the last ``n`` tokens, 0 <= n <= num_tokens (an end of sequence counts as one).

        States, transitions and matches become exactly what they were. Which occurrence was the latest is restored for
        the last 4096 tokens; further back ``by="recent"`` may name the first occurrence instead.
        """
        self._native.rollback(check_int("n", n, low=0))

    def clear(self) -> None:
        """Remove everything."""
        self._native.clear()

    @property
    def num_tokens(self) -> int:
        """Tokens held, ends of sequences included."""
        return self._native.num_tokens()

    @property
    def num_states(self) -> int:
        """States, the root included; at most 2 * num_tokens."""
        return self._native.num_states()

    @property
    def num_transitions(self) -> int:
        """Transitions; at most 3 * num_tokens."""
        return self._native.num_transitions()

    @property
    def num_bytes(self) -> int:
        """Bytes of memory reserved."""
        return self._native.num_bytes()

    @property
    def match_len(self) -> int:
        """Length of the longest suffix that also occurs ending earlier."""
        return self._native.match_len()

    @property
    def tokens(self) -> npt.NDArray[np.int32]:
        """A copy of the text; -1 marks the end of a sequence."""
        return self._native.tokens()

    def propose(self, max_tokens: int, *, by: str = "recent") -> npt.NDArray[np.int32]:
        """Draft the continuation of the current match; empty when nothing matches.

        Args:
            max_tokens: length of the draft, >= 0. Reading past the end of the text goes on in the draft itself, so a
                period continues; only an end of sequence or (``"frequent"``) the end of the text makes it shorter.
            by: ``"recent"`` copies what followed the latest earlier occurrence (among those noted, see the class),
                ``"first"`` the first, ``"frequent"`` takes the most frequent next token at each step (smaller id on
                ties; the counts cost one pass over the automaton after each change).
        """
        return _propose(self._native, max_tokens, by)

    def count(self, ids: Tokens) -> int:
        """Occurrences of a substring; ``num_tokens + 1`` for the empty one."""
        return self._native.count(ids)

    def positions(self, ids: Tokens) -> npt.NDArray[np.int64]:
        """Ascending start positions of a substring."""
        return self._native.positions(ids)

    def matcher(self) -> SuffixMatcher:
        """A cursor that follows another sequence through this automaton."""
        return SuffixMatcher(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the text to a file, whole or not at all; :meth:`load` rebuilds the automaton from it."""
        self._native.save(os.fspath(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SuffixAutomaton:
        """Read a file of :meth:`save`. Raises FormatError when it is truncated, damaged or something else."""
        automaton = cls.__new__(cls)
        automaton._native = _core.ngram.SuffixAutomaton.load(os.fspath(path))
        return automaton

    def check_integrity(self) -> None:
        """Check every state and transition against the text; RuntimeError names the first that is wrong."""
        self._native.check_integrity()

    def __len__(self) -> int:
        return self._native.num_tokens()

    def __repr__(self) -> str:
        return (
            f"SuffixAutomaton(num_tokens={self.num_tokens}, num_states={self.num_states}, match_len={self.match_len})"
        )


class SuffixMatcher:
    """Follows a sequence through an automaton of other text: the longest suffix of it that occurs there.

    Cost: O(1) amortised per token. The automaton must not change in between (ValueError); ``reset`` starts again.
    Reference: Hu et al. 2024, "SAM Decoding", arXiv:2411.10666, section 3.

    >>> matcher = SuffixAutomaton([1, 2, 3, 4]).matcher()
    >>> matcher.advance([9, 2, 3])
    >>> matcher.match_len, matcher.propose(5).tolist()
    (2, [4])
    """

    def __init__(self, automaton: SuffixAutomaton) -> None:
        self._native = _core.ngram.SuffixMatcher(automaton._native)

    def advance(self, ids: Tokens) -> None:
        """Feed the next tokens."""
        self._native.advance(ids)

    def reset(self) -> None:
        """Forget what was fed."""
        self._native.reset()

    @property
    def match_len(self) -> int:
        """Length of the current match."""
        return self._native.match_len()

    def propose(self, max_tokens: int, *, by: str = "recent") -> npt.NDArray[np.int32]:
        """Draft what followed the match in the automaton's text; see :meth:`SuffixAutomaton.propose`."""
        return _propose(self._native, max_tokens, by)

    def propose_tree(self, max_nodes: int, *, width: int = 8) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Draft the most frequent continuations of the current match as a tree, best first.

        A node's value is the product of count(child) / count(parent) down to it; the counts cost one pass over the
        automaton after each change.

        Args:
            max_nodes: nodes of the tree, >= 0.
            width: children of a node and nodes of a depth, >= 1.

        Returns:
            Tokens and parents (-1: the matched text itself); a parent comes before its children.
        """
        nodes, children = check_int("max_nodes", max_nodes, low=0), check_int("width", width, low=1)
        return self._native.propose_tree(nodes, children)
