"""Every rule against its twin in tests/reference/optim, driven by the registry."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from gramcore._registry import Row, rows
from gramcore.optim import SGD, Sophia, frugal

from tests.optim.helpers import assert_as_good_as_naive, make_params, run_optimizer, run_reference, set_grads
from tests.reference import optim as reference

ROWS = [r for r in rows(protocol="optimizer") if r.facts["reference"]]
SMALL = [(7,), (33, 40), (4, 3, 3), (40, 33)]
SHAPES = [(7,), (1,), (33, 130), (4, 3, 3, 3), (130, 33), (1100, 4), (64, 64)]


STEPS = 100


@functools.cache
def twins(name: str, dtype: torch.dtype) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Where the reference arrives in fp64, and in fp32 with parameters stored in ``dtype``."""
    row = next(r for r in ROWS if r.name == name)
    twin, params = getattr(reference, row.facts["reference"]), make_params(shapes_of(dtype), dtype)
    exact = run_reference(twin, params, STEPS, np.float64, **row.test_kwargs)
    return exact, run_reference(twin, params, STEPS, np.float32, stored=dtype, **row.test_kwargs)


def shapes_of(dtype: torch.dtype) -> list[tuple[int, ...]]:
    return SHAPES if dtype is torch.float32 else SMALL


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_follows_its_paper(isa: str, row: Row, dtype: torch.dtype) -> None:
    params = make_params(shapes_of(dtype), dtype)
    start = [p.detach().clone() for p in params]
    exact, naive = twins(row.name, dtype)
    run_optimizer(row.load()(params, **row.test_kwargs), params, STEPS)
    assert_as_good_as_naive(params, naive, exact, start)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("projection", ["rows", "randperm", "randk"])
def test_frugal_by_other_coordinates(isa: str, projection: str, dtype: torch.dtype) -> None:
    numbers = {"lr": 1e-2, "refresh_every": 10, "projection": projection}
    params = make_params(SMALL, dtype)
    start = [p.detach().clone() for p in params]
    exact = run_reference(reference.frugal, params, 25, np.float64, **numbers)
    naive = run_reference(reference.frugal, params, 25, np.float32, stored=dtype, **numbers)
    run_optimizer(frugal(params, **numbers), params, 25)
    assert_as_good_as_naive(params, naive, exact, start)


@pytest.mark.parametrize(
    "numbers",
    [{"momentum": 0.9}, {"momentum": 0.5, "dampening": 0.3, "weight_decay": 0.1}, {"weight_decay": 0.2}],
)
def test_sgd_agrees_with_torch(isa: str, numbers: dict[str, float]) -> None:
    ours, theirs = make_params(SHAPES), make_params(SHAPES)
    run_optimizer(SGD(ours, lr=0.1, **numbers), ours, 20)
    run_optimizer(torch.optim.SGD(theirs, lr=0.1, **numbers), theirs, 20)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_sgd_refuses_nesterov_without_momentum() -> None:
    with pytest.raises(ValueError, match="nesterov"):
        SGD(make_params([(3,)]), nesterov=True)


def test_sophia_folds_gauss_newton_estimates(isa: str) -> None:
    (p,) = make_params([(50,)])
    optimizer = Sophia([p], lr=1e-2)
    w, state = p.detach().double().numpy(), {"hessian": np.zeros(50)}
    for t in range(1, 21):
        if t % 5 == 1:
            with optimizer.gauss_newton_bartlett(batch=16):
                set_grads([p], t, seed=7)
                assert p.grad is not None
                g = p.grad.double().numpy()
            state["hessian"] = 0.99 * state["hessian"] + 0.01 * 16 * g * g
        set_grads([p], t)
        assert p.grad is not None
        w = reference.sophia(w, p.grad.double().numpy(), state, t, lr=1e-2)
        optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), w, rtol=2e-4, atol=1e-5)


def test_clipping_equals_torch_and_zeroing_leaves_zeros(isa: str) -> None:
    from gramcore.optim import AdamW

    ours, theirs = make_params(SHAPES), make_params(SHAPES)
    a = AdamW(ours, lr=1e-2, max_grad_norm=0.5, zero_grads=True)
    b = torch.optim.AdamW(theirs, lr=1e-2)
    for t in range(1, 11):
        set_grads(ours, t)
        set_grads(theirs, t)
        norm = torch.nn.utils.clip_grad_norm_(theirs, 0.5)
        a.step()
        b.step()
        assert a.grad_norm == pytest.approx(norm.item(), rel=1e-5)
        assert all(p.grad is not None and not p.grad.any() for p in ours)
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)
