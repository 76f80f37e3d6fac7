"""AdamW: exactness per instruction-set level, storage types, rounding."""

from __future__ import annotations

import gramcore
import numpy as np
import pytest
import torch
from gramcore.optim import AdamW

from tests.optim.helpers import SHAPES, assert_as_good_as_naive, make_params, run_optimizer, run_reference, set_grads
from tests.reference import optim as reference


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"eps_mode": "raw", "eps": 1e-4},
        {"decay": "after", "weight_decay": 0.3},
        {"maximize": True, "betas": (0.0, 0.5)},
    ],
)
def test_fp32_matches_the_paper(isa: str, numbers: dict[str, object]) -> None:
    params = make_params()
    start = [p.detach().clone() for p in params]
    exact = run_reference(reference.adamw, params, 100, np.float64, lr=1e-2, **numbers)
    naive = run_reference(reference.adamw, params, 100, np.float32, lr=1e-2, **numbers)
    run_optimizer(AdamW(params, lr=1e-2, **numbers), params, 100)  # type: ignore[arg-type]
    assert_as_good_as_naive(params, naive, exact, start)


@pytest.mark.parametrize("size", [1, 3, 15, 16, 17, 127, 128, 129, 1023, 1024, 1025, 32767, 32768, 32769])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_tail_agrees_with_the_whole(isa: str, size: int, dtype: torch.dtype) -> None:
    whole = make_params([(40000,)], dtype)
    part = [torch.nn.Parameter(whole[0].detach()[:size].clone())]
    for params in (whole, part):
        optimizer = AdamW(params, lr=1e-2, rounding="stochastic", seed=5)
        for t in range(1, 4):
            set_grads(whole, t)
            if params is part:
                assert whole[0].grad is not None
                part[0].grad = whole[0].grad[:size].clone()
            optimizer.step()
    assert torch.equal(part[0], whole[0][:size])


@pytest.mark.parametrize("state", ["fp32", "bf16"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_parameters_stay_within_rounding(isa: str, dtype: torch.dtype, state: str) -> None:
    params = make_params(dtype=dtype)
    start = [p.detach().clone() for p in params]
    exact = run_reference(reference.adamw, params, 20, np.float64, lr=1e-2)
    peer = [torch.nn.Parameter(p.detach().clone()) for p in params]
    run_optimizer(torch.optim.AdamW(peer, lr=1e-2, fused=True), peer, 20)
    run_optimizer(AdamW(params, lr=1e-2, state=state), params, 20)
    naive = [p.detach().double().numpy() for p in peer]
    assert_as_good_as_naive(params, naive, exact, start)


def test_results_do_not_depend_on_threads_or_level_split(restore_threads: None) -> None:
    results = []
    for threads in (1, 3):
        gramcore.set_num_threads(threads)
        params = make_params(dtype=torch.bfloat16)
        run_optimizer(AdamW(params, rounding="stochastic", state="bf16", seed=3), params, 5)
        results.append([p.detach().clone() for p in params])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_stochastic_rounding_uses_the_documented_bits(isa: str) -> None:
    # lr 0 leaves the parameter as it is but its moments are rounded; a decay makes the parameter need rounding too.
    n, seed, index = 70, 2**40 + 7, 1
    other, p = make_params([(3,), (n,)], torch.bfloat16)
    set_grads([other, p], 1)
    assert p.grad is not None
    w, g = p.detach().float().numpy(), p.grad.float().numpy()
    optimizer = AdamW([other, p], lr=0.5, eps=1.0, weight_decay=0.1, state="bf16", rounding="stochastic", seed=seed)
    optimizer.step()
    bits = np.array([[reference.rounding_bits(seed, 1, index, i, f) for i in range(n)] for f in range(3)])
    m, v = np.float32(1 - 0.9) * g, np.float32(1 - 0.999) * (g * g)
    state = optimizer.state[p]
    # The exact sums may differ by one unit of fp32 between levels, which the low bits forgive almost always.
    for got, exact, field in ((state["exp_avg"], m, 1), (state["exp_avg_sq"], v, 2)):
        want = reference.bf16_stochastic(exact, bits[field])
        assert np.mean(got.float().numpy() != want) < 0.03
    q: dict[str, np.ndarray] = {}
    moved = reference.adamw(w, g, q, 1, lr=0.5, eps=1.0, weight_decay=0.1)
    assert np.mean(p.detach().float().numpy() != reference.bf16_stochastic(moved, bits[0])) < 0.03


def test_stochastic_rounding_is_unbiased(isa: str) -> None:
    # A decay of 2^-12 of one unit in the last place, 400 steps on 4096 copies: the mean must follow the exact value.
    # Each copy's rounding error has variance <= ulp^2/4 per step; 5 sigma of the mean: false alarm 6e-7.
    n, steps, ulp = 4096, 400, 2.0**-7
    p = torch.nn.Parameter(torch.full((n,), 1.5, dtype=torch.bfloat16))
    optimizer = AdamW([p], lr=1e-4, weight_decay=0.0, rounding="stochastic", eps=0.0, seed=9)
    for _ in range(steps):
        p.grad = torch.ones_like(p)
        optimizer.step()
    expected = 1.5 - steps * 1e-4
    sigma = ulp / 2 * steps**0.5 / n**0.5
    assert abs(p.detach().double().mean().item() - expected) < 5 * sigma
    nearest = torch.nn.Parameter(torch.full((n,), 1.5, dtype=torch.bfloat16))
    run = AdamW([nearest], lr=1e-4, weight_decay=0.0)
    nearest.grad = torch.ones_like(nearest)
    run.step()
    assert nearest.detach().float().mean().item() == 1.5  # what stochastic rounding is for


def test_compensated_bf16_follows_fp32(isa: str) -> None:
    full = make_params([(5000,)])
    with torch.no_grad():
        full[0].copy_(full[0].bfloat16().float())
    half = [torch.nn.Parameter(full[0].detach().bfloat16())]
    a, b = AdamW(full, lr=1e-4), AdamW(half, lr=1e-4, rounding="compensated")
    for t in range(1, 60):
        set_grads(half, t)
        assert half[0].grad is not None
        full[0].grad = half[0].grad.float()
        a.step()
        b.step()
    whole = half[0].detach().float() + b.state[half[0]]["remainder"].float()
    moved = (full[0].detach() - make_params([(5000,)])[0].bfloat16().float()).norm()
    assert (whole - full[0].detach()).norm() < 0.02 * moved


def test_special_gradients(isa: str) -> None:
    p = torch.nn.Parameter(torch.ones(20))
    optimizer = AdamW([p], lr=0.1, weight_decay=0.0)
    p.grad = torch.zeros(20)
    p.grad[1], p.grad[2], p.grad[3], p.grad[4] = float("nan"), float("inf"), 3e38, 1e-38
    optimizer.step()
    assert p[0] == 1
    assert p[1].isnan()
    assert torch.isfinite(p[3:]).all()


def test_sums_of_squares_see_every_kind_of_block(isa: str) -> None:
    from gramcore import _core

    for fill, want in ((0.0, 0.0), (1e-30, 2048e-60), (1e30, 2048e60)):
        x = torch.full((2048,), fill)
        assert _core.optim.sum_squares([x]) == pytest.approx(want, rel=1e-5)
        for special in (float("nan"), float("inf")):
            for place in (0, 700, 2047):
                y = x.clone()
                y[place] = special
                assert not np.isfinite(_core.optim.sum_squares([y]))


def test_layouts_other_than_contiguous(isa: str) -> None:
    base = make_params([(6, 8)])[0].detach()
    plain = torch.nn.Parameter(base.clone())
    turned = torch.nn.Parameter(base.t().contiguous().t())
    gaps = torch.nn.Parameter(torch.zeros(6, 16)[:, ::2].copy_(base))
    for p in (plain, turned, gaps):
        optimizer = AdamW([p], lr=0.1)
        for t in range(1, 4):
            source = torch.nn.Parameter(base)
            set_grads([source], t)
            p.grad = source.grad
            optimizer.step()
    assert torch.equal(plain, turned)
    assert torch.equal(plain, gaps)


def test_agrees_with_torch() -> None:
    ours, theirs = make_params(), make_params()
    run_optimizer(AdamW(ours, lr=1e-2), ours, 50)
    run_optimizer(torch.optim.AdamW(theirs, lr=1e-2), theirs, 50)
    for a, b, start in zip(ours, theirs, make_params(), strict=True):
        assert (a - b).norm() <= 1e-4 * (b - start).norm() + 1e-6


def test_a_torch_state_continues(isa: str) -> None:
    ours, theirs = make_params(), make_params()
    peer = torch.optim.AdamW(theirs, lr=1e-2)
    run_optimizer(peer, theirs, 3)
    optimizer = AdamW(ours, lr=1e-2)
    saved = peer.state_dict()
    for a, b in zip(ours, theirs, strict=True):
        a.data.copy_(b.data)
    saved["param_groups"] = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(saved)
    run_optimizer(peer, theirs, 3, first=4)
    run_optimizer(optimizer, ours, 3, first=4)
    for a, b, start in zip(ours, theirs, make_params(), strict=True):
        assert (a - b).norm() <= 1e-4 * (b - start).norm() + 1e-6


def test_shapes_cover_the_odd_ones() -> None:
    assert {len(s) for s in SHAPES} >= {0, 1, 2, 4}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (3, 5), (40, 700)])
def test_scaled_squares(isa: str, m: int, n: int, dtype: torch.dtype) -> None:
    from gramcore import _core

    g = torch.Generator().manual_seed(m)
    x, row, column = torch.randn(m, n, generator=g).to(dtype), torch.randn(m, generator=g), torch.randn(n, generator=g)
    for r, c in ((None, None), (row, None), (None, column), (row, column)):
        scaled = 3 * x.double() * (1 if r is None else r.double()[:, None]) * (1 if c is None else c.double())
        got = _core.optim.scaled_squares(x, r, c, 3.0)
        assert got == pytest.approx(float(scaled.square().sum()), rel=1e-5)
