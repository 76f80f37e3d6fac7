"""State of an unfinished training on disk."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gramcore._files import replacing
from gramcore.errors import FormatError

__all__ = ["Checkpoint"]


class Checkpoint:
    """One file that a training writes again and again, whole or not at all; no code is executed when it is read.

    Args:
        path: None keeps nothing.
        run: JSON-like description of the run; a file of another run is refused.
    """

    def __init__(self, path: str | os.PathLike[str] | None, run: Mapping[str, Any]) -> None:
        self._path = None if path is None else Path(path)
        self._run = json.dumps(run, sort_keys=True)

    def load(self) -> dict[str, Any] | None:
        """What was saved last, or None.

        Raises:
            FormatError: not a checkpoint.
            ValueError: a checkpoint of another run.
        """
        if self._path is None or not self._path.exists():
            return None
        data = self._path.read_bytes()
        try:
            found = torch.load(io.BytesIO(data), weights_only=True)
            run, state = found["run"], found["state"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
            raise FormatError(f"{self._path}: checkpoint must be one of train_heads, got {error!r}") from error
        if run != self._run:
            raise ValueError(f"checkpoint must be of this run, got another in {self._path}; remove it or name another")
        return dict(state)

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file."""
        if self._path is None:
            return
        with replacing(self._path) as part:
            torch.save({"run": self._run, "state": dict(state)}, part)
