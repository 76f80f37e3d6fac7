"""The exception of the grammar family."""

from __future__ import annotations

from gramcore.errors import LimitError

__all__ = ["GrammarTooComplex"]


class GrammarTooComplex(LimitError):
    """A budget of states, memory, nesting or repetition was exceeded; the message names which and its value."""
