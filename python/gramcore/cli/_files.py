"""Files that options name: checked and read before the work, so that mistakes show at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gramcore.errors import LimitError

__all__ = ["check_targets", "naming", "read_file"]


def check_targets(**files: Path | None) -> None:
    """Raise unless every file to write, by the name of its option, can be written as far as one can tell before.

    Raises: IsADirectoryError, FileNotFoundError or PermissionError naming the option.
    """
    for name, path in files.items():
        if path is None:
            continue
        option = f"--{name.replace('_', '-')}"
        if path.is_dir():
            raise IsADirectoryError(f"{option} must name a file, got the folder {str(path)!r}")
        if not path.parent.is_dir():
            raise FileNotFoundError(
                f"{option} must name a file in a folder that exists, got {str(path)!r}; make the folder first"
            )
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(f"{option} must name a file in a folder that can be written to, got {str(path)!r}")


def read_file(name: str, path: Path, *, errors: str = "strict") -> str:
    """The UTF-8 text of a file, without a byte-order mark; ``errors="replace"`` takes any bytes.

    Raises: FileNotFoundError or IsADirectoryError, which call the file ``name``; ValueError for bytes that are no text.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{name} must be a file, got the folder {str(path)!r}")
    if not path.exists():
        raise FileNotFoundError(f"{name} must be a file that exists, got {str(path)!r}")
    try:
        return path.read_text(encoding="utf-8-sig", errors=errors)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: must be UTF-8 text, got byte 0x{error.object[error.start]:02x} at {error.start}; convert the file"
        ) from error


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Errors of what was read from ``path`` begin with its name."""
    try:
        yield
    except (ValueError, LimitError) as error:
        raise ValueError(f"{path}: {error}") from error
