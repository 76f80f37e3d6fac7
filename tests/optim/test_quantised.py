"""8-bit and 4-bit moments: the published maps code by code, blocks, and the optimizers on top."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gramcore import _core
from gramcore.optim import AdamW, Factor4bit

from tests.optim.helpers import make_params, run_optimizer, set_grads
from tests.reference import optim as reference

MAPS = {
    ("int8", 0): reference.dynamic_map(8, signed=True),
    ("int8", 1): reference.dynamic_map(8, signed=False),
    ("int4", 0): reference.SIGNED_4BIT,
    ("int4", 1): reference.LINEAR_4BIT,
}


def round_trip(values: np.ndarray, storage: str, slot: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, scales and decoded values after one step that stores ``values`` as the moment: beta 0 copies them."""
    n = values.size
    block = 256 if storage == "int8" else 128
    g = torch.from_numpy(values.astype(np.float32) if slot == 0 else np.sqrt(values).astype(np.float32))
    size = n if storage == "int8" else (n + 1) // 2
    codes = [torch.zeros(size, dtype=torch.uint8) for _ in range(2)]
    scales = [torch.zeros(-(-n // block)) for _ in range(2)]
    hyper = {"lr": 0.0, "beta1": 0.0, "beta2": 0.0, "eps": 1.0}
    p = torch.zeros(n)
    _core.optim.step("adam", hyper, [p], [g], [[codes[0]], [codes[1]]], [1], [0], scales=[[scales[0]], [scales[1]]])
    packed = codes[slot].numpy()
    if storage == "int4":
        packed = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:n]
    decoded = MAPS[storage, slot][packed] * np.repeat(scales[slot].numpy(), block)[:n]
    return packed, scales[slot].numpy(), decoded


@pytest.mark.parametrize(("storage", "slot"), list(MAPS))
def test_maps_have_the_published_values(storage: str, slot: int) -> None:
    table = MAPS[storage, slot]
    assert len(table) == (256 if storage == "int8" else 16)
    assert np.all(np.diff(table) >= 0)
    ends = {
        ("int8", 0): (-0.99297, 1.0),
        ("int8", 1): (0.0, 1.0),
        ("int4", 0): (-0.8875, 1.0),
        ("int4", 1): (0.0625, 1),
    }
    assert (round(float(table[0]), 5), float(table[-1])) == ends[storage, slot]


@pytest.mark.parametrize(("storage", "slot"), list(MAPS))
def test_nearest_code_of_every_value(isa: str, storage: str, slot: int) -> None:
    block = 256 if storage == "int8" else 128
    rng = np.random.default_rng(3)
    table = MAPS[storage, slot]
    values = 10.0 ** rng.uniform(-8, 0, 40 * block) * (rng.choice([-1, 1], 40 * block) if slot == 0 else 1)
    values[: len(table)] = table  # every code's own value
    between = (table[1:] + table[:-1]) / 2
    values[len(table) : 2 * len(table) - 1] = between * (1 + 1e-5)
    values[::block] = 1.0  # scale of every block
    values = values.astype(np.float32).astype(np.float64)
    codes, scales, _ = round_trip(values, storage, slot)
    np.testing.assert_allclose(scales, 1.0, rtol=1e-6)
    stored = values if slot == 0 else np.square(np.sqrt(values).astype(np.float32).astype(np.float64))
    best = np.abs(stored[:, None] - table[None, :]).min(axis=1)
    error = np.abs(stored - table[codes])
    np.testing.assert_array_less(error, best * (1 + 1e-4) + 1e-6 * np.abs(stored) + 1e-13)


@pytest.mark.parametrize(("storage", "slot"), list(MAPS))
def test_decoding_is_the_map(isa: str, storage: str, slot: int) -> None:
    # lr 1 on a zero parameter with beta 1: the update shows the decoded moment.
    table = MAPS[storage, slot]
    n = len(table)
    block = 256 if storage == "int8" else 128
    codes = torch.arange(n, dtype=torch.uint8)
    packed = codes if storage == "int8" else (codes[::2] | (codes[1::2] << 4))
    other = torch.full_like(packed, 255)  # 1.0 everywhere
    slots = [[packed], [other]] if slot == 0 else [[other], [packed]]
    scales = [[torch.full((-(-n // block),), 1.0)] for _ in range(2)]
    before = [s[0].clone() for s in slots]
    p = torch.zeros(n)
    hyper = {"lr": 1.0, "beta1": 1 - 1e-9, "beta2": 1.0, "eps": 1.0, "correct_bias": 0.0}
    _core.optim.step("adam", hyper, [p], [torch.zeros(n)], slots, [1], [0], scales=scales)
    got = -p.double().numpy() * 2 if slot == 0 else (1 / -p.double().numpy() - 1) ** 2
    np.testing.assert_allclose(got, table, rtol=3e-6, atol=3e-7 if slot == 0 else 1e-7)
    assert torch.equal(slots[0][0], before[0])  # encoding what was decoded gives the same codes
    assert torch.equal(slots[1][0], before[1])


@pytest.mark.parametrize("storage", ["int8", "int4"])
@pytest.mark.parametrize("n", [1, 2, 127, 129, 255, 257, 1023, 1025, 4099])
def test_partial_blocks_and_blocks_of_zeros(isa: str, storage: str, n: int) -> None:
    block = 256 if storage == "int8" else 128
    if n == 1 and storage == "int4":
        pytest.skip("one byte holds one 8-bit code; tensors this small are never quantised")
    rng = np.random.default_rng(n)
    values = rng.standard_normal(n)
    values[: min(n, block)] = 0.0
    codes, scales, decoded = round_trip(values, storage, 0)
    assert scales[0] == 0
    assert np.all(decoded[: min(n, block)] == 0)
    for start in range(block, n, block):
        part = values[start : start + block].astype(np.float32)
        assert scales[start // block] == np.abs(part).max()
        table = MAPS[storage, 0] * scales[start // block]
        best = np.abs(part[:, None] - table[None, :]).min(axis=1)
        np.testing.assert_array_less(np.abs(part - decoded[start : start + block]), best * (1 + 1e-4) + 1e-6)
    assert codes.max(initial=0) < 256


@pytest.mark.parametrize(("storage", "bits"), [("int8", 8), ("int4", 4)])
def test_follows_the_reference_quantised_adamw(isa: str, storage: str, bits: int) -> None:
    params = make_params([(70, 100), (50,)])
    start = [p.detach().numpy().copy() for p in params]
    values = [s.copy() for s in start]
    states: list[dict[str, np.ndarray]] = [{}, {}]
    optimizer = AdamW(params, lr=1e-2, state=storage)
    for t in range(1, 21):
        set_grads(params, t)
        optimizer.step()
        for i, p in enumerate(params):
            assert p.grad is not None
            values[i] = reference.adamw(values[i], p.grad.numpy(), states[i], t, lr=1e-2)
            if p.numel() >= 4096:
                reference.requantise(states[i], bits)
    for p, want, first in zip(params, values, start, strict=True):
        # A value on the boundary of two codes may go either way by its last bit: few do.
        far = np.abs(p.detach().numpy() - want) > 1e-5
        assert far.mean() < 0.01
        assert np.linalg.norm(p.detach().numpy() - want) < 0.02 * np.linalg.norm(want - first)


@pytest.mark.parametrize("state", ["fp32", "int4"])
def test_4bit_factor_follows_its_reference(isa: str, state: str) -> None:
    params = make_params([(70, 100), (50,), (3, 40, 40)])
    start = [p.detach().numpy().copy() for p in params]
    values = [s.copy() for s in start]
    states: list[dict[str, np.ndarray]] = [{} for _ in params]
    optimizer = Factor4bit(params, lr=1e-2, state=state)
    for t in range(1, 21):
        set_grads(params, t)
        optimizer.step()
        for i, p in enumerate(params):
            assert p.grad is not None
            values[i] = reference.factor_4bit(
                values[i], p.grad.numpy(), states[i], t, lr=1e-2, quantise=state == "int4"
            )
    for p, want, first in zip(params, values, start, strict=True):
        far = np.abs(p.detach().numpy() - want) > 1e-5
        assert far.mean() < (0.01 if state == "int4" else 1e-4)
        assert np.linalg.norm(p.detach().numpy() - want) < 0.02 * np.linalg.norm(want - first)
    if state == "int4":
        assert optimizer.state_bytes() < 0.8 * sum(p.numel() for p in params)


@pytest.mark.parametrize(("storage", "expected"), [("fp32", 8.0), ("bf16", 4.0), ("int8", 2.04), ("int4", 1.07)])
def test_bytes_of_state(storage: str, expected: float) -> None:
    params = make_params([(512, 512)])
    optimizer = AdamW(params, state=storage)
    run_optimizer(optimizer, params, 1)
    assert optimizer.state_bytes() / params[0].numel() <= expected + 1e-3
    assert optimizer.state_bytes() / params[0].numel() > expected - 0.03


@pytest.mark.parametrize("storage", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "compensated"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_storage_resumes_exactly(dtype: torch.dtype, rounding: str, storage: str) -> None:
    params = make_params([(70, 100), (7,)], dtype)
    optimizer = AdamW(params, lr=1e-2, state=storage, rounding=rounding)
    run_optimizer(optimizer, params, 3)
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    resumed = AdamW(copies, lr=1e-2, state=storage, rounding=rounding)
    resumed.load_state_dict(optimizer.state_dict())
    for who, what in ((optimizer, params), (resumed, copies)):
        run_optimizer(who, what, 3, first=4)
    assert all(torch.equal(a, b) for a, b in zip(params, copies, strict=True))


@pytest.mark.parametrize("storage", ["int8", "int4"])
@pytest.mark.parametrize("rule", ["adam", "grams", "lion", "sgd_momentum"])
@pytest.mark.parametrize("numbers", [{}, {"coupled_decay": 1.0, "grad_scale": 0.5}, {"decay_after": 1.0}])
def test_moments_stepped_in_their_codes(isa: str, rule: str, storage: str, numbers: dict[str, float]) -> None:
    # Gradients of another type than the parameters' take the path that decodes whole blocks first.
    hyper = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.99, "eps": 1e-6, "weight_decay": 0.1, "extra1": 1.0, **numbers}
    slots = {"adam": 2, "grams": 2}.get(rule, 1)
    block, per_byte = (256, 1) if storage == "int8" else (128, 2)
    zero = {("int8", 0): 127, ("int4", 0): 0x77}
    for n in (2, 15, 17, 129, 255, 1024, 33000):
        runs = []
        for dtype in (torch.float32, torch.bfloat16):
            generator = torch.Generator().manual_seed(n)
            p = torch.randn(n, generator=generator)
            size = -(-n // per_byte)
            codes = [torch.full((size,), zero.get((storage, k), 0), dtype=torch.uint8) for k in range(slots)]
            scales = [torch.zeros(-(-n // block)) for _ in range(slots)]
            for t in range(1, 6):
                g = torch.randn(n, generator=generator).bfloat16().to(dtype)
                _core.optim.step(
                    rule, hyper, [p], [g], [[c] for c in codes], [t], [0], scales=[[s] for s in scales], zero_grad=True
                )
                assert not g.any()
            runs.append((p, codes, scales))
        (a, codes_a, scales_a), (b, codes_b, scales_b) = runs
        assert ((a - b).abs() > 1e-6).float().mean() < 2e-3
        for x, y in zip(codes_a, codes_b, strict=True):
            assert (x != y).float().mean() < 2e-3
        for x, y in zip(scales_a, scales_b, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-5, atol=0)
