"""Exceptions of gramcore beyond the built-in ones.

Wrong values raise :class:`ValueError`, wrong types :class:`TypeError`, ids out of range :class:`IndexError`,
failed system calls :class:`OSError`.  The classes here mark what has no built-in name.  Every message says what
must hold, what was found, where, and what to do about it.
"""

from __future__ import annotations

__all__ = ["CudaError", "FormatError", "GramcoreError", "LimitError", "MissingExtraError"]


class GramcoreError(Exception):
    """Base of the classes below."""


class FormatError(GramcoreError, ValueError):
    """A file or buffer is not what it claims to be: truncated, foreign, corrupt or of an unknown version."""


class LimitError(GramcoreError, RuntimeError):
    """A stated budget of memory, time or size was exceeded."""


class CudaError(GramcoreError, RuntimeError):
    """The CUDA runtime reported an error, or no CUDA device can be used."""


class MissingExtraError(GramcoreError, ImportError):
    """An optional dependency is needed; the message names the extra that installs it."""
