"""The core floor seen from Python: tensors, threads, levels, generator, import cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import gramcore
import numpy as np
import pytest
import torch
from gramcore import _core


def run_python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, check=False
    )


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "bfloat16", "float16", "int8", "uint8", "int16", "int32", "int64", "bool"]
)
def test_torch_tensor_is_seen_without_copy(dtype: str) -> None:
    t = torch.zeros(3, 4).to(getattr(torch, dtype))
    name, shape, stride, device, address = _core.tensor_facts(t)
    assert (name, shape, stride, device, address) == (dtype, [3, 4], [4, 1], -1, t.data_ptr())


def test_strided_views_are_described_not_copied() -> None:
    base = torch.arange(24, dtype=torch.int32).reshape(4, 6)
    view = base[1:, ::2]
    assert _core.tensor_facts(view) == ("int32", [3, 3], [6, 2], -1, view.data_ptr())
    array = np.arange(24, dtype=np.float64).reshape(4, 6)[:, 1::2]
    name, shape, stride, _, address = _core.tensor_facts(array)
    assert (name, shape, stride, address) == ("float64", [4, 3], [6, 2], array.ctypes.data)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "?"])
def test_numpy_dtypes(dtype: str) -> None:
    array = np.zeros(5, dtype)
    assert _core.tensor_facts(array)[0] == array.dtype.name


@pytest.mark.parametrize("bad", [3, "text", None, [1, 2], np.array(["a"]), torch.zeros(2, dtype=torch.complex64)])
def test_what_is_no_tensor_is_refused(bad: object) -> None:
    with pytest.raises(TypeError):
        _core.tensor_facts(bad)


def test_requires_grad_tensor_is_accepted_or_named() -> None:
    t = torch.zeros(2, requires_grad=True)
    assert _core.tensor_facts(t)[4] == t.data_ptr()


def test_philox_matches_the_published_vectors() -> None:
    assert _core.philox4x32(0, 0) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)


def test_thread_count_can_be_set_and_returned(restore_threads: None) -> None:
    gramcore.set_num_threads(3)
    assert gramcore.num_threads() == 3
    with pytest.raises(ValueError, match="num_threads must be"):
        gramcore.set_num_threads(-1)


def test_pool_follows_torch_threads() -> None:
    code = (
        "import torch, gramcore; from gramcore.torch_ops import ops; ops(); "
        "torch.set_num_threads(1); a=gramcore.num_threads(); torch.set_num_threads(2); print(a, gramcore.num_threads())"
    )
    assert run_python(code).stdout.split() == ["1", "2"]


@pytest.mark.parametrize(("wanted", "threads"), [("1", 1), ("3,2", 3), ("many", None), ("0", None)])
def test_thread_count_by_environment(wanted: str, threads: int | None) -> None:
    output = run_python("import gramcore; print(gramcore.num_threads())", OMP_NUM_THREADS=wanted).stdout
    assert int(output) == (threads or len(os.sched_getaffinity(0)))


def test_level_by_environment_and_bad_level() -> None:
    good = run_python("import gramcore; print(gramcore.cpu_level())", GRAMCORE_ISA="base")
    assert good.stdout.strip() == "base"
    bad = run_python("import gramcore; print(gramcore.cpu_level())", GRAMCORE_ISA="avx9000")
    assert "must be one of base" in bad.stderr
    with pytest.raises(ValueError, match="must be one of"):
        gramcore.set_cpu_level("avx9000")


def test_level_without_a_wish_is_the_highest_that_pays() -> None:
    levels = gramcore.cpu_info()[1]
    slow_pairs = levels[-1] == "avx512_bf16" and not {"AuthenticAMD", "HygonGenuine"} & set(
        Path("/proc/cpuinfo").read_text().split()
    )
    chosen = run_python("import gramcore; print(gramcore.cpu_level())", GRAMCORE_ISA="").stdout.strip()
    assert chosen == levels[-2 if slow_pairs else -1]


def test_import_needs_no_torch() -> None:
    code = "import json, sys, gramcore; gramcore.info(); print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(run_python(code).stdout)
    assert not {"torch", "transformers", "typer", "rich"} & set(loaded)


def test_info_names_every_fact() -> None:
    facts = gramcore.info()
    assert facts.version == gramcore.__version__
    assert facts.cpu_level in facts.cpu_levels
    assert facts.packages["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert facts.cuda_status
    assert "gramcore" in str(facts)


@pytest.mark.parametrize("level", _core.cpu_levels())
def test_compute_rates_follow_the_instructions_of_the_level(level: str) -> None:
    before = _core.cpu_level()
    try:
        _core.set_cpu_level(level)
        fp32, bf16, int8, tiles = _core.measure_compute(1)
    finally:
        _core.set_cpu_level(before)
    assert fp32 > 0
    with_int8 = ("avx2_vnni", "avx512_vnni", "avx512_vbmi", "avx512_bf16", "amx", "dotprod", "i8mm")
    assert (int8 > 0) == (level in with_int8)
    assert (bf16 > 0) == (level in ("avx512_bf16", "amx"))
    assert (tiles > 0) == (level == "amx")
