"""Runs the native test binary, when it has been built (make native; make test builds it)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BINARIES = [ROOT / "build" / kind / "gramcore_native_tests" for kind in ("native", "dev")]


def test_native_cases_pass() -> None:
    binary = next((b for b in BINARIES if b.exists()), None)
    if binary is None:
        pytest.skip("native test binary is not built; run make native")
    result = subprocess.run([str(binary)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 failed" in result.stdout
