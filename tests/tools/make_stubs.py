"""Writes python/gramcore/_core.pyi from the built extension; ``--check`` compares instead."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "python" / "gramcore"


def generate(directory: Path) -> None:
    command = [sys.executable, "-m", "pybind11_stubgen", "gramcore._core", "-o", str(directory), "--ignore-all-errors"]
    subprocess.run(command, check=True, capture_output=True)


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        generate(Path(name))
        made = Path(name) / "gramcore"
        files = [made / "_core.pyi"] if (made / "_core.pyi").exists() else sorted((made / "_core").rglob("*.pyi"))
        for file in files:
            target = TARGET / file.relative_to(made)
            if "--check" in sys.argv:
                if not target.exists() or target.read_text() != file.read_text():
                    print(f"{target.name} is out of date; run make stubs", file=sys.stderr)
                    return 1
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(file.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
