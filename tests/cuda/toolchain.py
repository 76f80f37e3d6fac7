"""Builds and runs the CUDA kernels without a device: emulated, under sanitizers, and through ptxas.

``python -m tests.cuda.toolchain`` (``make cuda-check``) runs everything; the tests of this folder use the parts.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# name of a build folder -> CMake arguments
VARIANTS: dict[str, list[str]] = {
    "plain": ["-DCMAKE_BUILD_TYPE=Release"],
    "ucontext": ["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS=-DGC_HOST_UCONTEXT=1"],
    "address": ["-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O0 -g1", "-DGRAMCORE_SANITIZE=address,undefined"],
    "thread": ["-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O0 -g1", "-DGRAMCORE_SANITIZE=thread"],
}

CLEAN = ["barrier", "syncwarp", "rounds", "atomic", "static-shared", "dynamic-shared", "global"]
# fault -> the sanitizer that must report it
FAULTS = {
    "missing-barrier": "thread",
    "missing-syncwarp": "thread",
    "missing-second-barrier": "thread",
    "missing-atomic": "thread",
    "static-shared-overrun": "address",
    "dynamic-shared-overrun": "address",
    "global-overrun": "address",
}
REPORT = {"thread": "ThreadSanitizer: data race", "address": "AddressSanitizer: |runtime error: "}

ARCHITECTURES = ("80", "90")
# Kernels that may spill, with the reason; everything else must not.
SPILLS_ALLOWED: dict[str, str] = {}


def build(variant: str, *targets: str) -> Path:
    """Configures and builds `targets` of a variant; returns the build folder."""
    folder = ROOT / "build" / f"cuda-{variant}"
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    if not (folder / "CMakeCache.txt").exists():
        common = ["-DGRAMCORE_PYTHON=OFF", "-DGRAMCORE_TESTS=ON", "-DGRAMCORE_CUDA=OFF"]
        _run(["cmake", "-S", str(ROOT), "-B", str(folder), *generator, *common, *VARIANTS[variant]])
    _run(["cmake", "--build", str(folder), "-j", str(os.cpu_count() or 1), "--target", *targets])
    return folder


def run_program(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a built program with sanitizer reports made fatal."""
    environment = {
        **os.environ,
        "UBSAN_OPTIONS": "halt_on_error=1",
        "TSAN_OPTIONS": "halt_on_error=0 exitcode=66",
        "ASAN_OPTIONS": "detect_leaks=1",
    }
    result = subprocess.run([program, *arguments], capture_output=True, text=True, env=environment, timeout=120)
    # AddressSanitizer says this once wherever fibers switch by swapcontext(); the layer tells it of every switch.
    result.stderr = re.sub(r"==\d+==WARNING: ASan doesn't fully support makecontext.*\n", "", result.stderr)
    return result


def check_fault(folder: Path, sanitizer: str, name: str) -> str | None:
    """Runs one case of gramcore_cuda_faults; returns what is wrong with the outcome, or None."""
    result = run_program(folder / "gramcore_cuda_faults", name)
    if FAULTS.get(name) == sanitizer:
        if result.returncode != 0 and re.search(REPORT[sanitizer], result.stderr):
            return None
        return f"{name}: the {sanitizer} sanitizer did not report it (status {result.returncode})\n{result.stderr}"
    if result.returncode != 0 or result.stderr:
        return f"{name}: must be clean, got status {result.returncode}\n{result.stderr}"
    return None


def nvcc() -> str | None:
    """Path of nvcc, or None."""
    return shutil.which("nvcc") or next((p for p in ["/usr/local/cuda/bin/nvcc"] if Path(p).exists()), None)


@dataclass(frozen=True)
class KernelResources:
    """What ptxas reports of one kernel on one architecture."""

    name: str
    architecture: str
    registers: int
    spill_bytes: int
    stack_bytes: int


def kernel_sources() -> list[Path]:
    """Every kernel source of the library."""
    return sorted((ROOT / "csrc").glob("*/cuda/*.cu"))


def test_sources() -> list[Path]:
    """Kernels of the layer's own tests: nvcc must accept what the emulation runs."""
    return sorted((ROOT / "tests" / "native" / "cuda_host").glob("*.cu"))


def kernel_resources(source: Path, architectures: tuple[str, ...] = ARCHITECTURES) -> list[KernelResources]:
    """Compiles one .cu with nvcc, every warning an error, and reads the report of ptxas."""
    compiler = nvcc()
    assert compiler is not None
    gencode = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    include = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests'}"]
    with tempfile.TemporaryDirectory() as folder:
        command = [compiler, "-std=c++17", "-O3", "-Xptxas=-v", "-Werror=all-warnings", *include, *gencode]
        log = _run([*command, "-c", str(source), "-o", f"{folder}/kernel.o"])
    return parse_ptxas(log)


def parse_ptxas(log: str) -> list[KernelResources]:
    """Reads the text of ``ptxas -v``."""
    pattern = re.compile(
        r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<arch>\w+)'.*?"
        r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
        r"Used (?P<registers>\d+) registers",
        re.DOTALL,
    )
    return [
        KernelResources(m["name"], m["arch"], int(m["registers"]), int(m["stores"]) + int(m["loads"]), int(m["stack"]))
        for m in pattern.finditer(log)
    ]


def spill_problems(resources: list[KernelResources]) -> list[str]:
    """Kernels that use local memory and may not."""
    return [
        f"{r.name} (sm_{r.architecture}): {r.spill_bytes} bytes spilled, {r.stack_bytes} bytes of stack"
        for r in resources
        if (r.spill_bytes or r.stack_bytes) and r.name not in SPILLS_ALLOWED
    ]


def _run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=480)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    return result.stdout + result.stderr


def main() -> int:
    """Everything there is to check without a device; prints a line per step."""
    problems = []
    for variant in VARIANTS:
        sanitizer = variant in REPORT
        folder = build(variant, "gramcore_cuda_tests", "gramcore_cuda_faults")
        result = run_program(folder / "gramcore_cuda_tests")
        print(f"{variant:<10} layer tests: {result.stdout.strip()}")
        if result.returncode != 0 or result.stderr:
            problems.append(f"{variant}: layer tests\n{result.stdout}{result.stderr}")
        cases = [*CLEAN, *FAULTS] if sanitizer else CLEAN
        found = [p for p in (check_fault(folder, variant, name) for name in cases) if p]
        print(f"{variant:<10} {len(cases)} small kernels: {len(found)} not as expected")
        problems += found
    if nvcc() is None:
        print("ptxas      skipped: nvcc is not installed")
    else:
        for source in kernel_sources():
            resources = kernel_resources(source)
            spills = spill_problems(resources)
            most = max((r.registers for r in resources), default=0)
            kind = f"{len(resources)} kernels on sm_{', sm_'.join(ARCHITECTURES)}, at most {most} registers"
            print(f"ptxas      {source.name}: {kind}, {len(spills)} with spills")
            problems += spills if resources else [f"{source}: ptxas reported no kernel"]
        for source in test_sources():
            print(f"nvcc       {source.name}: {len(kernel_resources(source, ('80',)))} kernels compile for sm_80")
    for problem in problems:
        print(f"FAILED {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
