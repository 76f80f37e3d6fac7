"""gramcore: native cores for language-model engineers.

Families are imported on first use: ``gramcore.ngram``, ``gramcore.optim``, ``gramcore.quant``, ``gramcore.spec``,
``gramcore.grammar``.  Importing this package needs NumPy alone; torch and the rest are imported by what uses them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gramcore import _core, errors
from gramcore._core import cpu_level, num_threads, set_cpu_level, set_num_threads
from gramcore._registry import FAMILIES

if TYPE_CHECKING:
    from gramcore._info import Info

__version__: str = _core.__version__

__all__ = ["__version__", "cpu_info", "cpu_level", "errors", "info", "num_threads", "set_cpu_level", "set_num_threads"]

#: what is imported when first named
_ROOMS = (*FAMILIES, "kvcache", "model", "torch_ops")


def info() -> Info:
    """Version, processor levels, threads, CUDA, torch and optional packages of this installation."""
    from gramcore._info import collect

    return collect()


def cpu_info() -> tuple[str, tuple[str, ...], str]:
    """``(processor model, instruction-set levels it can run, level in use)``."""
    return _core.cpu_model(), tuple(_core.cpu_levels()), _core.cpu_level()


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"gramcore.{name}")
    raise AttributeError(f"module 'gramcore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
