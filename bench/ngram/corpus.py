"""The corpus of the n-gram benchmarks: `bench/data/ngram-u16.npy` when it is there, else Python's own sources."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["corpus", "documents"]

#: One array of uint16 token ids of real text (not in the repository: several hundred MB).
FILE = Path(__file__).resolve().parents[1] / "data" / "ngram-u16.npy"
DOCUMENT = 4096


def corpus() -> npt.NDArray[np.uint16]:
    """Token ids of the large corpus, or pairs of bytes of the standard library's sources."""
    if FILE.exists():
        return np.load(FILE, mmap_mode="r")
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
    text = b"".join(p.read_bytes() for p in sources if "site-packages" not in p.parts)
    return np.minimum(np.frombuffer(text[: len(text) // 2 * 2], np.uint16), 65534)


def documents(tokens: npt.NDArray[np.uint16]) -> list[npt.NDArray[np.uint16]]:
    """The corpus cut into documents of equal length."""
    return [tokens[i : i + DOCUMENT] for i in range(0, len(tokens), DOCUMENT)]
