"""optim/cuda/step.cu, emulated: every rule and storage of the moments against the CPU's step."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import pytest
import torch
from gramcore import _core

RULES = {
    "adam": 0,
    "grams": 1,
    "lion": 2,
    "sgd": 3,
    "sgd_momentum": 4,
    "sophia": 5,
    "sign": 6,
}  # RuleId of kernels/rules.h
SLOTS = {"adam": 2, "grams": 2, "lion": 1, "sgd": 0, "sgd_momentum": 1, "sophia": 2, "sign": 0}
STATES = {"f32": 1, "bf16": 2, "q8": 4, "q4": 5, "rank1": 6}  # Storage of engine.h
DTYPES = {torch.float32: 0, torch.bfloat16: 2}
BLOCK = {"q8": 256, "q4": 128, "rank1": 128}
SIZES = [
    3,
    4,
    7,  # one byte of 4-bit codes could not be told from one 8-bit code
    255,
    256,
    257,
    1023,
    2049,
    8192,
    8193,
    20001,
]
#: Of rank-1 storage: its matrices, between tensors whose second moments have blocks.
SHAPES = [(1, 7), (257,), (9, 1), (3, 5), (65, 130), (9, 1031), (300, 11), (4, 3, 100), (130, 257), (0, 8)]
LR, B1, B2, EPS, DECAY, STEP = 0.02, 0.9, 0.99, 1e-6, 0.1, 3


class Tensor(ctypes.Structure):
    _fields_ = (
        ("param", ctypes.c_void_p),
        ("grad", ctypes.c_void_p),
        ("moment", ctypes.c_void_p * 2),
        ("scales", ctypes.c_void_p * 2),
        ("numel", ctypes.c_int64),
        ("cols", ctypes.c_int64),
        ("fresh", ctypes.c_void_p),
    )


class Args(ctypes.Structure):
    _fields_ = (
        ("tensors", ctypes.POINTER(Tensor)),
        ("num_tensors", ctypes.c_int64),
        ("coefs", ctypes.c_float * 12),
        ("step", ctypes.c_int64),
        ("seed", ctypes.c_uint64),
        *((name, ctypes.c_int32) for name in ("rule", "param_dtype", "grad_dtype", "state", "stochastic_rounding")),
    )


def coefs_of(rule: str) -> list[float]:
    """What rule_coefs() of hyper.cc gives for the numbers above."""
    c = [1.0, -LR * DECAY, 0, 0, 1 - B1, 0, 0, LR, 0, 0, 0, 0]
    if rule in ("adam", "grams"):
        c[5:10] = [B2, 1 - B2, LR / (1 - B1**STEP), 1 / math.sqrt(1 - B2**STEP), EPS]
    elif rule == "lion":
        c[5] = 1 - B2
    elif rule == "sgd":
        c[4] = 0
    elif rule == "sgd_momentum":
        c[4:9] = [B1, 1.0, 1.0, LR, 0.0]
    elif rule == "sophia":
        c[5:7] = [0.05, EPS]
    return c


HYPER = {"lr": LR, "beta1": B1, "beta2": B2, "eps": EPS, "weight_decay": DECAY}


def make(rule: str, state: str, dtype: torch.dtype) -> dict[str, Any]:
    """Parameters, gradients and moments; quantised moments are what a CPU step left."""
    generator = torch.Generator().manual_seed(0)
    shapes = SHAPES if state == "rank1" else [(n,) for n in SIZES]
    params = [torch.randn(s, generator=generator).to(dtype) for s in shapes]
    grads = [torch.randn(s, generator=generator).to(dtype) for s in shapes]
    moments, scales = [], []
    for k in range(SLOTS[rule]):
        own = [torch.randn(s, generator=generator) * 0.1 for s in shapes]
        own = [m.square() for m in own] if k else own
        if state in BLOCK:
            sizes = [p.numel() if state == "q8" else (p.numel() + 1) // 2 for p in params]
            moments.append([torch.randint(0, 255, (n,), generator=generator, dtype=torch.uint8) for n in sizes])
            counts = [-(-p.numel() // BLOCK[state]) for p in params]
            if state == "rank1" and k:
                counts = [sum(p.shape) if p.ndim == 2 else c for p, c in zip(params, counts, strict=True)]
            scales.append([torch.rand(n, generator=generator) for n in counts])
            for one in scales[-1]:
                one[:1] = 0.0
        else:
            moments.append([m.to(torch.bfloat16) if state == "bf16" else m for m in own])
    return {"params": params, "grads": grads, "moments": moments, "scales": scales}


def on_cpu(rule: str, data: dict[str, Any], stochastic: bool, storage: str = "") -> None:
    ids = list(range(len(data["params"])))
    hyper = {**HYPER, "extra0": 0.05 if rule == "sophia" else 0.0}
    _core.optim.step(
        rule,
        hyper,
        data["params"],
        data["grads"],
        data["moments"],
        [STEP] * len(ids),
        ids,
        scales=data["scales"],
        stochastic=stochastic,
        seed=11,
        storage=storage,
    )


def on_device(library: ctypes.CDLL, rule: str, state: str, data: dict[str, Any], stochastic: bool) -> str:
    rows, held = [], []
    for i, p in enumerate(data["params"]):
        pair = [tuple(t[i].data_ptr() for t in data[name]) for name in ("moments", "scales")]
        pad = [(ctypes.c_void_p * 2)(*p, *(None,) * (2 - len(p))) for p in pair]
        cols = p.shape[1] if state == "rank1" and p.ndim == 2 else 0
        held.append(torch.full((sum(p.shape),), torch.nan))
        pointers = (p.data_ptr(), data["grads"][i].data_ptr())
        rows.append(Tensor(*pointers, *pad, p.numel(), cols, held[-1].data_ptr() if cols else None))
    dtype = DTYPES[data["params"][0].dtype]
    args = Args((Tensor * len(rows))(*rows), len(rows), (ctypes.c_float * 12)(*coefs_of(rule)), STEP, 11)
    args.rule, args.param_dtype, args.grad_dtype = RULES[rule], dtype, dtype
    args.state, args.stochastic_rounding = STATES[state], stochastic
    library.gc_cuda_optim_step(ctypes.byref(args), None)
    return library.gc_cuda_last_message().decode()


def clone(data: dict[str, Any]) -> dict[str, Any]:
    def copy(x: Any) -> Any:
        return [copy(y) for y in x] if isinstance(x, list) else x.clone()

    return {k: copy(v) for k, v in data.items()}


def flat(tensors: list[Any]) -> list[torch.Tensor]:
    return [t for x in tensors for t in (x if isinstance(x, list) else [x])]


CASES = [
    (r, s, d, False)
    for r in RULES
    for s in STATES
    for d in DTYPES
    if not (r in ("sophia", "sgd", "sign") and s in BLOCK) and not (s == "rank1" and SLOTS[r] < 2)
]
CASES += [(r, "bf16", torch.bfloat16, True) for r in RULES]


@pytest.mark.parametrize(("rule", "state", "dtype", "stochastic"), CASES, ids=str)
def test_the_device_step_is_the_cpu_step(
    emulated: ctypes.CDLL, rule: str, state: str, dtype: torch.dtype, stochastic: bool
) -> None:
    ours = make(rule, state, dtype)
    cpu = clone(ours)
    start = clone(ours)
    on_cpu(rule, cpu, stochastic, "int4-rank1" if state == "rank1" else "")
    assert on_device(emulated, rule, state, ours, stochastic) == ""
    for name in ("params", "moments", "scales"):
        for a, b, before in zip(*(flat(d[name]) for d in (ours, cpu, start)), strict=True):
            if a.dtype == torch.uint8:
                assert (a != b).sum() <= max(0.01 * a.numel(), 1.0)  # a value between two codes
                continue
            # a unit of the storage in a few elements, where fp32 sums differ in their last bit
            unit = 2.0**-7 if a.dtype == torch.bfloat16 else 2.0**-20
            error = (a.double() - b.double()).abs()
            size = b.double().abs() + before.double().abs() + LR
            if rule in ("lion", "sophia") and name == "params":  # a sign near zero, a division by almost nothing
                assert (error > unit * size).sum() <= 0.005 * a.numel() + 1.0
                continue
            assert (error <= unit * size).all()
            if a.dtype == torch.bfloat16:
                assert (error > 0).sum() <= 0.03 * a.numel() + 1.0


def test_bad_arguments_are_named(emulated: ctypes.CDLL) -> None:
    data = make("adam", "q8", torch.float32)
    data["scales"] = []
    assert "scales must not be null" in on_device(emulated, "adam", "q8", data, False)
    assert "two moments for rank1" in on_device(emulated, "lion", "rank1", make("lion", "q4", torch.float32), False)
    args = Args(None, 0, (ctypes.c_float * 12)(), 1, 0)
    for changes, wanted in (
        ({"rule": 17}, "rule must be in"),
        ({"state": 3}, "state must be f32"),
        ({"param_dtype": 9, "state": 1}, "param_dtype must be"),
        ({"rule": 2, "grad_dtype": 2, "state": 1}, "grad_dtype must be param_dtype"),
        ({"step": 0, "state": 1}, "step must be in"),
    ):
        broken = Args.from_buffer_copy(args)
        for name, value in changes.items():
            setattr(broken, name, value)
        assert emulated.gc_cuda_optim_step(ctypes.byref(broken), None) != 0
        assert wanted in emulated.gc_cuda_last_message().decode()


def test_codes_do_not_depend_on_what_surrounds_them(emulated: ctypes.CDLL) -> None:
    rng = np.random.default_rng(0)
    n = 512
    base = torch.from_numpy(rng.standard_normal(n).astype(np.float32))
    for state in ("q8", "q4"):
        results = []
        for extra in (0, 300):
            data = {
                "params": [torch.zeros(n + extra)],
                "grads": [torch.cat([base, torch.ones(extra)])],
                "moments": [[torch.zeros((n + extra) // (1 if state == "q8" else 2), dtype=torch.uint8)]],
                "scales": [[torch.zeros(-(-(n + extra) // BLOCK[state]))]],
            }
            assert on_device(emulated, "lion", state, data, False) == ""
            results.append(data["moments"][0][0][: n // (1 if state == "q8" else 2)])
        assert torch.equal(*results)
