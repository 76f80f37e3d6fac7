"""What differs between models and versions of transformers: names of the cache, rows whose logits are computed."""

from __future__ import annotations

import inspect
from typing import Any

__all__ = ["cache_argument", "cache_of", "last_logits_argument"]


def cache_argument(model: Any, cache: Any) -> dict[str, Any]:
    """``cache`` under the keyword that ``model``'s forward takes it by: ``cache`` or ``past_key_values``."""
    known = inspect.signature(model.forward).parameters
    return {"cache" if "cache" in known else "past_key_values": cache}


def cache_of(output: Any) -> Any:
    """The cache in a model's output."""
    return output["cache"] if "cache" in output else output["past_key_values"]


def last_logits_argument(model: Any) -> dict[str, Any]:
    """What makes ``model``'s forward compute the last position's logits only, if it can."""
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
