"""Runs the native test binary, when it has been built (make native; make test builds it)."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BINARIES = [ROOT / "build" / kind / "gramcore_native_tests" for kind in ("native", "dev")]


@pytest.fixture
def binary() -> Path:
    found = next((b for b in BINARIES if b.exists()), None)
    if found is None:
        pytest.skip("native test binary is not built; run make native")
    return found


def check(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 failed" in result.stdout


def test_native_cases_pass(binary: Path) -> None:
    check(str(binary))


@pytest.mark.parametrize("cpu", ["Nehalem", "Haswell"])
def test_older_processors_run_their_level(binary: Path, cpu: str) -> None:
    """Nehalem has no AVX, Haswell stops at AVX2: a stray instruction of a higher level would be a crash here.

    Table products stay out of Haswell: QEMU 7.2 takes index register ymm4 of a gather for none and loads other values
    than the processor. Their AVX2 level is tested on processors.
    """
    qemu = shutil.which("qemu-x86_64")
    if qemu is None or platform.machine() != "x86_64":
        pytest.skip("needs qemu-x86_64 (Debian package qemu-user)")
    left_out = ["-fork"]  # qemu-user loses threads across fork
    if cpu == "Haswell":
        left_out.append("-quant_table")
    check(qemu, "-cpu", cpu, str(binary), *left_out)
