"""What differs between versions of transformers: the name of the key-value cache in calls and outputs."""

from __future__ import annotations

import inspect
from typing import Any

__all__ = ["cache_argument", "cache_of"]


def cache_argument(model: Any, cache: Any) -> dict[str, Any]:
    """``cache`` under the keyword that ``model``'s forward takes it by: ``cache`` or ``past_key_values``."""
    known = inspect.signature(model.forward).parameters
    return {"cache" if "cache" in known else "past_key_values": cache}


def cache_of(output: Any) -> Any:
    """The cache in a model's output."""
    return output["cache"] if "cache" in output else output["past_key_values"]
