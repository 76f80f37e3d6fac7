"""The host execution layer: its own tests, and that the sanitizers tell faulty kernels from clean ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda import toolchain


@pytest.fixture(scope="module", params=list(toolchain.VARIANTS))
def variant(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """A build of the layer's tests: plain, portable context switch, and both sanitizers."""
    return request.param, toolchain.build(request.param, "gramcore_cuda_tests", "gramcore_cuda_faults")


def test_layer(variant: tuple[str, Path]) -> None:
    result = toolchain.run_program(variant[1] / "gramcore_cuda_tests")
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 failed" in result.stdout
    assert result.stderr == ""


def test_sanitizers_report_faults_and_nothing_else(variant: tuple[str, Path]) -> None:
    name, folder = variant
    cases = [*toolchain.CLEAN, *toolchain.FAULTS] if name in toolchain.REPORT else toolchain.CLEAN
    assert [p for p in (toolchain.check_fault(folder, name, case) for case in cases) if p] == []


@pytest.mark.skipif(toolchain.nvcc() is None, reason="nvcc is not installed")
@pytest.mark.parametrize("source", toolchain.kernel_sources(), ids=lambda p: p.stem)
def test_kernels_do_not_spill(source: Path) -> None:
    resources = toolchain.kernel_resources(source)
    assert {r.architecture for r in resources} == set(toolchain.ARCHITECTURES)
    assert toolchain.spill_problems(resources) == []


@pytest.mark.skipif(toolchain.nvcc() is None, reason="nvcc is not installed")
def test_nvcc_accepts_what_the_emulation_runs() -> None:
    """The PTX wrappers among it, whose device branch no emulated test reaches."""
    for source in toolchain.test_sources():
        toolchain.kernel_resources(source, ("80",))


def test_spills_are_recognised() -> None:
    log = """ptxas info    : Compiling entry function '_Z1kPf' for 'sm_90'
ptxas info    : Function properties for _Z1kPf
    24 bytes stack frame, 16 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers"""
    (resources,) = toolchain.parse_ptxas(log)
    assert resources == toolchain.KernelResources("_Z1kPf", "90", 255, 24, 24)
    assert toolchain.spill_problems([resources]) == ["_Z1kPf (sm_90): 24 bytes spilled, 24 bytes of stack"]


def test_extension_loads_without_a_driver() -> None:
    """Importing asks CUDA nothing; asking for devices gives a reason instead of an error."""
    program = "from gramcore import _core; print(_core.cuda_device_count(), _core.cuda_status())"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    count, status = result.stdout.strip().split(" ", 1)
    assert int(count) > 0 or status.startswith("no CUDA device: ")
