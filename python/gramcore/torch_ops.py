"""The torch side of the native operators: loading, fake kernels, and what torch needs to trace them.

``ops()`` returns ``torch.ops.gramcore`` after registering every operator once.  Families add fake kernels (shape
functions for ``torch.compile`` and meta tensors) with :func:`fake`; operators that only write into their arguments
need none of their own: they get one that does nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from gramcore import _core
from gramcore._checks import require

__all__ = ["fake", "ops"]

_fakes: dict[str, Callable[..., Any]] = {}


def fake(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare the fake kernel of operator ``gramcore::name``; applied when the operators are loaded."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        _fakes[name] = function
        if ops.cache_info().currsize:
            _apply(name, function)
        return function

    return declare


def _apply(name: str, function: Callable[..., Any]) -> None:
    torch = require("torch", "torch")
    torch.library.register_fake(f"gramcore::{name}", function)


def _writes_only(*_args: Any, **_kwargs: Any) -> None:
    """Fake kernel of operators that return nothing."""


@functools.cache
def ops() -> Any:
    """``torch.ops.gramcore`` with every operator registered.

    Raises:
        MissingExtraError: torch is not installed.
        RuntimeError: torch is older than 2.10.
    """
    torch = require("torch", "torch")
    for name, returns in _core.register_torch_ops():
        function = _fakes.get(name) or (None if returns else _writes_only)
        if function is not None:
            _apply(name, function)
    return torch.ops.gramcore
