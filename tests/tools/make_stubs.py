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
        if (made / "_core.pyi").exists():  # no submodules yet: a single file; keep the package layout
            (made / "_core").mkdir()
            (made / "_core.pyi").rename(made / "_core" / "__init__.pyi")
        for file in sorted((made / "_core").rglob("*.pyi")):
            target = TARGET / file.relative_to(made)
            if "--check" not in sys.argv:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(file.read_text())
            elif not target.exists() or target.read_text() != file.read_text():
                print(f"{target} is out of date; run make stubs", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
