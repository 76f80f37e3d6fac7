"""Stopping at strings, whatever tokens they arrive in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["StopStrings"]


class StopStrings:
    """A ``stop`` for :func:`generate`: true once the text contains one of the strings.

    Only the last tokens are decoded: as many as the longest string has bytes, and a few more for a character that began
    earlier. Whatever was drafted beyond the string is never committed; the last token may carry characters past it,
    which :meth:`cut` removes.

    Args:
        tokenizer: with ``decode(ids) -> str``.
        strings: one or several, not empty.

    >>> class Letters:
    ...     def decode(self, ids, **kwargs):
    ...         return "".join(chr(97 + i) for i in ids)
    >>> stop = StopStrings(Letters(), ["cd"])
    >>> stop([0, 1, 2]), stop([0, 1, 2, 3]), stop.cut("abcdef")
    (False, True, 'abcd')
    """

    #: Reason in the statistics.
    reason = "stop_string"

    def __init__(self, tokenizer: Any, strings: str | Sequence[str]) -> None:
        if not hasattr(tokenizer, "decode"):
            raise TypeError(f"tokenizer must have decode, got {type(tokenizer).__name__}")
        self.strings = [strings] if isinstance(strings, str) else list(strings)
        if not self.strings or any(not isinstance(s, str) or not s for s in self.strings):
            raise ValueError(f"strings must be non-empty, got {self.strings!r}")
        self._tokenizer = tokenizer
        self._window = max(len(s.encode()) for s in self.strings) + 4

    def __call__(self, new_tokens: list[int]) -> bool:
        tail = self._tokenizer.decode(new_tokens[-self._window :], skip_special_tokens=True)
        return any(s in tail for s in self.strings)

    def cut(self, text: str) -> str:
        """``text`` up to the end of the first stop string in it."""
        ends = [text.index(s) + len(s) for s in self.strings if s in text]
        return text[: min(ends)] if ends else text
