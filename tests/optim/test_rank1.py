"""4-bit second moments normalised by rows and columns: code by code, over both layouts, and on top AdamW."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gramcore import _core
from gramcore.optim import AdamW, Grams, Lion, galore

from tests.optim.helpers import make_params, run_optimizer, set_grads
from tests.reference import optim as reference

SHAPES = [(1, 7), (9, 1), (3, 5), (65, 130), (130, 65), (9, 1031), (300, 11)]


def second_moments(shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    v = np.square(rng.standard_normal(shape)) * 10.0 ** rng.uniform(-6, 0, (shape[0], 1))
    v[rng.random(shape) < 0.05] = 0.0
    if min(shape) > 2:
        v[shape[0] // 2] = 0.0
        v[:, shape[1] // 2] = 0.0
    return np.square(np.sqrt(v).astype(np.float32)).astype(np.float32)


def on_edge(v: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Whether a value lies so near the middle of two codes that fp32 may take either."""
    bound = np.minimum(rows[:, None], columns[None, :])
    return np.abs(v * 16 / np.where(bound > 0, bound, 1) % 1 - 0.5) < 1e-4


def unpack(codes: torch.Tensor, numel: int) -> np.ndarray:
    packed = codes.numpy()
    return np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:numel].astype(np.int64)


def adam_step(
    p: torch.Tensor, g: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor, beta2: float, **numbers: float
) -> None:
    """One step of Adam whose second moment is in ``codes``; its first moment is 0 before."""
    n = p.numel()
    first, blocks = torch.full(((n + 1) // 2,), 0x77, dtype=torch.uint8), torch.zeros(-(-n // 128))
    hyper = {"lr": 0.0, "beta1": 0.0, "beta2": beta2, "eps": 1.0, "correct_bias": 0.0, **numbers}
    _core.optim.step(
        "adam", hyper, [p], [g], [[first], [codes]], [1], [0], scales=[[blocks], [scales]], storage="int4-rank1"
    )


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_code_by_code(isa: str, shape: tuple[int, int], transposed: bool) -> None:
    v = second_moments(shape)
    g = torch.from_numpy(np.sqrt(v))
    p = torch.zeros(shape)
    if transposed and 1 not in shape:  # codes follow memory, in which this is the other way round
        p, g = p.T, g.T
    codes, scales = torch.zeros((v.size + 1) // 2, dtype=torch.uint8), torch.zeros(sum(shape))
    adam_step(p, g, codes, scales, beta2=0.0)
    want, rows, columns = reference.rank1_codes(v.astype(np.float64))
    np.testing.assert_allclose(scales.numpy(), np.concatenate([rows, columns]), rtol=1e-6)
    got = unpack(codes, v.size).reshape(shape)
    assert ((got == want) | on_edge(v, rows, columns)).all()
    # Decoding: with beta 1 the moment stays, and lr 1 on a gradient of 1 shows it: p = -1 / (sqrt(v) + 1).
    adam_step(p, torch.ones_like(p), codes, scales, beta2=1.0, lr=1.0)
    shown = (1 / -p.numpy().astype(np.float64) - 1) ** 2
    stored = reference.rank1_values(got, rows, columns)
    shown = shown.T if p.shape != shape or not p.is_contiguous() else shown
    np.testing.assert_allclose(shown, stored, rtol=1e-4, atol=1e-6 * stored.max())
    want, rows, columns = reference.rank1_codes(stored)
    assert ((unpack(codes, v.size).reshape(shape) == want) | on_edge(stored, rows, columns)).all()


@pytest.mark.parametrize("rule", [AdamW, Grams])
def test_follows_the_reference(isa: str, rule: type[AdamW] | type[Grams]) -> None:
    params = make_params([(70, 100), (50,), (40, 11, 10)])
    start = [p.detach().numpy().copy() for p in params]
    values = [s.copy() for s in start]
    states: list[dict[str, np.ndarray]] = [{} for _ in params]
    optimizer = rule(params, lr=1e-2, state="int4-rank1")
    twin = reference.adamw if rule is AdamW else reference.grams
    for t in range(1, 21):
        set_grads(params, t)
        optimizer.step()
        for i, p in enumerate(params):
            assert p.grad is not None
            values[i] = twin(values[i], p.grad.numpy(), states[i], t, lr=1e-2)
            if p.numel() < 4096:
                continue
            whole = states[i]["exp_avg_sq"].copy()
            reference.requantise(states[i], 4)
            if p.ndim == 2:  # others keep blocks
                states[i]["exp_avg_sq"][...] = reference.rank1_values(*reference.rank1_codes(whole))
    for p, want, first in zip(params, values, start, strict=True):
        far = np.abs(p.detach().numpy() - want) > 1e-5
        assert far.mean() < 0.01
        assert np.linalg.norm(p.detach().numpy() - want) < 0.03 * np.linalg.norm(want - first)
    bytes_of_matrix = 7000 + 4 * 55 + 4 * 170 + 4
    held = optimizer.state[params[0]]
    assert sum(t.numel() * t.element_size() for t in held.values()) == bytes_of_matrix


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "compensated"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_resumes_exactly_and_on_any_number_of_threads(dtype: torch.dtype, rounding: str) -> None:
    params = make_params([(70, 1000), (7,)], dtype)
    optimizer = AdamW(params, lr=1e-2, state="int4-rank1", rounding=rounding)
    run_optimizer(optimizer, params, 3)
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    resumed = AdamW(copies, lr=1e-2, state="int4-rank1", rounding=rounding)
    resumed.load_state_dict(optimizer.state_dict())
    run_optimizer(optimizer, params, 3, first=4)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        run_optimizer(resumed, copies, 3, first=4)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(params, copies, strict=True))
    assert torch.equal(optimizer.state[params[0]]["exp_avg_sq"], resumed.state[copies[0]]["exp_avg_sq"])


def test_refused_where_there_is_no_second_moment_of_the_whole_matrix() -> None:
    params = make_params([(80, 80)])
    with pytest.raises(ValueError, match="state"):
        Lion(params, state="int4-rank1")
    with pytest.raises(ValueError, match="state"):
        galore(params, rank=4, state="int4-rank1")
    other = AdamW(params, state="int4-rank1")
    blocks = AdamW(params, state="int4")
    run_optimizer(blocks, params, 1)
    with pytest.raises(ValueError, match="shape"):
        other.load_state_dict({**blocks.state_dict(), "param_groups": other.state_dict()["param_groups"]})
