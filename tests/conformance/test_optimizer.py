"""What every optimizer row must do, driven by the registry."""

from __future__ import annotations

import copy
import io
import json
from typing import Any

import pytest
import torch
from gramcore._registry import Row, rows

from tests.optim.helpers import make_params, run_optimizer, set_grads

ROWS = rows(protocol="optimizer")
SHAPES = [(), (5,), (6, 8), (4, 3, 3), (65, 130)]

pytestmark = pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)


def build(row: Row, params: Any, **extra: Any) -> Any:
    return row.load()(params, **{**row.test_kwargs, **extra})


def test_moves_every_parameter_with_a_gradient_and_no_other(row: Row) -> None:
    params = make_params(SHAPES)
    frozen, idle = make_params([(4,), (4,)])
    frozen.requires_grad_(False)
    before = [p.detach().clone() for p in [*params, frozen, idle]]
    optimizer = build(row, [*params, frozen, idle])
    run_optimizer(optimizer, params, 3)
    for p, old in zip(params, before, strict=False):
        assert not torch.equal(p, old)
        assert torch.isfinite(p).all()
    assert torch.equal(frozen, before[-2])
    assert torch.equal(idle, before[-1])
    assert frozen not in optimizer.state
    assert idle not in optimizer.state
    assert all(p.grad is not None for p in params)


def test_gradients_are_left_alone(row: Row) -> None:
    params = make_params(SHAPES)
    optimizer = build(row, params)
    set_grads(params, 1)
    kept = [p.grad.clone() for p in params if p.grad is not None]
    optimizer.step()
    assert all(torch.equal(p.grad, k) for p, k in zip(params, kept, strict=True) if p.grad is not None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resuming_equals_continuing(row: Row, dtype: torch.dtype) -> None:
    params = make_params(SHAPES, dtype)
    optimizer = build(row, params)
    run_optimizer(optimizer, params, 4)
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    run_optimizer(optimizer, params, 4, first=5)
    buffer.seek(0)
    resumed = build(row, copies)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    run_optimizer(resumed, copies, 4, first=5)
    assert all(torch.equal(a, b) for a, b in zip(params, copies, strict=True))


def test_state_is_plain_tensors(row: Row) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    params = make_params(SHAPES)
    optimizer = build(row, params)
    run_optimizer(optimizer, params, 2)
    saved = optimizer.state_dict()
    flat = {}
    for index, values in saved["state"].items():
        for name, value in values.items():
            assert type(value) is torch.Tensor, name
            flat[f"{index}/{name}"] = value.contiguous()
    again = safetensors.load(safetensors.save(flat))
    assert all(torch.equal(again[k], v) for k, v in flat.items())
    groups = json.loads(json.dumps(saved["param_groups"]))
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in again.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = value
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    resumed = build(row, copies)
    resumed.load_state_dict({"state": state, "param_groups": groups})
    run_optimizer(optimizer, params, 2, first=3)
    run_optimizer(resumed, copies, 2, first=3)
    assert all(torch.equal(a, b) for a, b in zip(params, copies, strict=True))


def test_two_runs_are_the_same(row: Row) -> None:
    results = []
    for _ in range(2):
        params = make_params(SHAPES, torch.bfloat16)
        run_optimizer(build(row, params), params, 3)
        results.append([p.detach().clone() for p in params])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_closure_scheduler_and_groups(row: Row) -> None:
    a, b = make_params([(6, 8), (6, 8)])
    optimizer = build(row, [{"params": [a]}, {"params": [b], "lr": 0.0}])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5**t)
    calls = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (a * a).sum() + (b * b).sum()
        loss.backward()
        calls.append(loss.item())
        return loss

    still = b.detach().clone()
    loss = optimizer.step(closure)
    scheduler.step()
    assert loss.item() == calls[0]
    assert torch.equal(b, still)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * row.test_kwargs.get("lr", optimizer.defaults["lr"]))


def test_bad_arguments(row: Row) -> None:
    p = make_params([(4, 4)])[0]
    with pytest.raises(ValueError, match="lr"):
        build(row, [p], lr=-1.0)
    with pytest.raises(ValueError, match="lr"):
        build(row, [p], lr=float("nan"))
    with pytest.raises(TypeError, match="unexpected keyword"):
        build(row, [p], no_such_argument=1)
    with pytest.raises(ValueError, match="empty"):
        build(row, [])
    with pytest.raises(ValueError, match="more than one"):
        build(row, [{"params": [p]}, {"params": [p]}])
    with pytest.raises(TypeError, match="float32"):
        build(row, [torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))])


def test_bad_gradients_change_nothing(row: Row) -> None:
    embedding = torch.nn.Embedding(5, 3, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    other = make_params([(6, 8)])[0]
    set_grads([other], 1)
    before = other.detach().clone()
    with pytest.raises(TypeError, match="sparse"):
        build(row, [other, embedding.weight]).step()
    assert torch.equal(other, before)


@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_gradients_that_are_not_finite(row: Row, policy: str) -> None:
    params = make_params(SHAPES)
    optimizer = build(row, params, on_nonfinite=policy)
    run_optimizer(optimizer, params, 2)
    before = [p.detach().clone() for p in params]
    state = copy.deepcopy(optimizer.state_dict())
    set_grads(params, 3)
    assert params[2].grad is not None
    params[2].grad[0, 0] = float("nan")
    if policy == "raise":
        with pytest.raises(ValueError, match="finite"):
            optimizer.step()
    else:
        optimizer.step()
    assert optimizer.num_skipped == 1
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            assert torch.equal(value, state["state"][index][name])


def test_grad_scaler_leaves_unscaling_to_the_step(row: Row) -> None:
    scaled, plain = make_params(SHAPES), make_params(SHAPES)
    a, b = build(row, scaled), build(row, plain)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    scaler.scale(torch.ones(()))
    for t in range(1, 5):
        set_grads(scaled, t)
        set_grads(plain, t)
        for p in scaled:
            assert p.grad is not None
            p.grad.mul_(scaler.get_scale())
        scaler.step(a)
        scaler.update()
        b.step()
    assert scaler.get_scale() == 4096.0
    for p, q in zip(scaled, plain, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
    before, state = [p.detach().clone() for p in scaled], copy.deepcopy(a.state_dict()["state"])
    set_grads(scaled, 5)
    assert scaled[2].grad is not None
    scaled[2].grad[0, 0] = float("inf")
    scaler.step(a)
    scaler.update()
    assert scaler.get_scale() == 2048.0
    assert all(torch.equal(p, old) for p, old in zip(scaled, before, strict=True))
    now = a.state_dict()["state"]
    assert all(torch.equal(v, now[i][name]) for i, values in state.items() for name, v in values.items())


@pytest.mark.parametrize("rounding", ["stochastic", "compensated"])
def test_small_steps_of_bf16_parameters_are_not_lost(row: Row, rounding: str) -> None:
    """Steps of about a hundredth of the distance between bf16 numbers add up as in fp32."""
    start = torch.ones(65, 130)
    low, full = torch.nn.Parameter(start.bfloat16()), torch.nn.Parameter(start.clone())
    a, b = build(row, [low], lr=3e-5, rounding=rounding), build(row, [full], lr=3e-5)
    g = torch.randn(65, 130, generator=torch.Generator().manual_seed(1)).bfloat16()
    for _ in range(20):
        low.grad, full.grad = g.clone(), g.float()
        a.step()
        b.step()
    moved = low.detach().float() - start
    if rounding == "compensated":
        moved += a.state[low]["remainder"].float()
    want = full.detach() - start
    # Twenty random roundings, each up or down by 2^-7 with a chance of about 1 %: deviation below 2^-8 per element;
    # five deviations of the sum: false alarm 6e-7.
    along = (moved * want).sum() / want.square().sum()
    noise = 2.0**-8 / want.square().sum().sqrt() if rounding == "stochastic" else 0.0
    assert abs(along - 1) < 0.05 + 5 * noise


def test_another_optimizers_state_is_refused(row: Row) -> None:
    params = make_params([(6, 8)])
    optimizer = build(row, params)
    run_optimizer(optimizer, params, 1)
    before = copy.deepcopy(optimizer.state_dict())
    wrong = {**before, "state": {0: {"nothing": torch.zeros(3)}}}
    with pytest.raises(ValueError, match="state_dict"):
        optimizer.load_state_dict(wrong)
    two = build(row, make_params([(6, 8), (3,)])).state_dict()
    with pytest.raises(ValueError, match="group"):
        optimizer.load_state_dict(two)
    for name, value in before["state"][0].items():
        assert torch.equal(optimizer.state_dict()["state"][0][name], value)


def test_documentation(row: Row) -> None:
    text = row.load().__doc__ or ""
    for section in ("Args:", "Raises:", "Reference:", "Differs from paper:", "State:"):
        assert section in text, section
