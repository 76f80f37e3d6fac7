"""LOMO, AdaLomo and gradient release: the resident set of a process during a training step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FUSED = [
    {"name": "SGD", "fused": True},
    {"name": "AdaLomo", "fused": True, "max_grad_norm": 1.0},
    {"name": "AdamW-8bit", "fused": True},
]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs the peak of the resident set, on Linux")
def test_a_step_holds_weights_activations_and_one_gradient() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    environment |= {"MALLOC_TRIM_THRESHOLD_": "65536"}
    plain = {"name": "SGD", "fused": False}
    command = [sys.executable, str(ROOT / "tests/optim/peak_worker.py"), json.dumps([*FUSED, plain])]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    *fused, whole = (json.loads(line) for line in done.stdout.splitlines())
    for case in (*fused, whole):
        print(case)
    for case in fused:
        assert case["peak"] <= 1.1 * (case["weights"] + case["activations"] + case["largest_gradient"]), case
    assert whole["peak"] >= 1.25 * (whole["weights"] + whole["activations"] + whole["largest_gradient"]), whole
