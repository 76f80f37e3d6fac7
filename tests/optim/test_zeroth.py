"""Zeroth-order steps: the law of the directions, each composition against its definition, resuming."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from gramcore._registry import Row, rows
from gramcore.optim import (
    CAME,
    SGD,
    AdamW,
    GradientError,
    OneSided,
    TwoSided,
    ZerothOrder,
    create,
    forward_gradient,
    layer_blocks,
    mezo,
    zo_adam,
    zo_blockwise,
    zo_conservative,
    zo_momentum,
    zo_sign,
    zo_sparse,
)
from gramcore.optim.by_name import names
from gramcore.optim.zeroth import Directions

from tests.optim.helpers import make_params
from tests.reference import optim as reference

ROWS = rows("optim", "zeroth_order")


def direction(n: int, seed: int = 5, draw: int = 3, before: int = 2, keep_frac: float = 1.0) -> torch.Tensor:
    """z of a parameter of n elements that is number ``before`` in its optimizer."""
    params = make_params([(1,)] * before + [(n,)])
    return Directions(params, seed, keep_frac).vector(params[-1], draw)


@pytest.mark.parametrize("n", [1, 3, 4, 17, 63, 64, 65, 1025])
def test_directions_are_the_documented_function(isa: str, n: int) -> None:
    want = [reference.gaussian(2**60 + 5, 3, 2, i) for i in range(n)]
    np.testing.assert_allclose(direction(n, seed=2**60 + 5).numpy(), want, rtol=2e-6, atol=2e-6)


def test_directions_are_normal_and_independent(isa: str) -> None:
    n, cells = 400_000, 64
    normal = torch.distributions.Normal(0.0, 1.0)
    z = direction(n)
    counts = torch.histc(normal.cdf(z.double()), cells, 0.0, 1.0)
    chi2 = ((counts - n / cells) ** 2 / (n / cells)).sum().item()
    assert chi2 < 63 + 6 * (2 * 63) ** 0.5  # about 6 sigma of 63 degrees of freedom: false alarm below 1e-6
    for other in (direction(n, draw=4), direction(n, before=1), direction(n, seed=6), z.roll(1), z.roll(2)):
        assert abs((z * other).mean().item()) < 5.5 / n**0.5  # false alarm 4e-8 each
    assert z.abs().max() > 4.2


def test_sparse_directions_keep_their_share(isa: str) -> None:
    n, share = 200_000, 0.3
    z, dense = direction(n, keep_frac=share), direction(n)
    kept = z != 0
    assert abs(kept.double().mean().item() - share) < 5.5 * (share * (1 - share) / n) ** 0.5
    assert torch.equal(z[kept], dense[kept])


def test_tails_and_threads_do_not_change_directions(isa: str, restore_threads: None) -> None:
    import gramcore

    gramcore.set_num_threads(3)
    whole = direction(100_003)
    gramcore.set_num_threads(1)
    assert torch.equal(direction(100_003), whole)
    assert torch.equal(direction(33_333), whole[:33_333])


def make_pair() -> tuple[list[torch.nn.Parameter], list[torch.Tensor]]:
    params = make_params([(50,), (7, 9)])
    return params, [p.detach().clone() for p in params]


def quadratic(params: list[torch.nn.Parameter]) -> torch.Tensor:
    return sum(((i + 1) * (p * p).sum() for i, p in enumerate(params)), torch.zeros(()))


def slope_of(start: list[torch.Tensor], z: list[torch.Tensor]) -> float:
    """Exact along any direction of the quadratic."""
    return float(
        sum(2 * (i + 1) * (s.double() * d.double()).sum() for i, (s, d) in enumerate(zip(start, z, strict=True)))
    )


def test_mezo_follows_its_definition(isa: str) -> None:
    params, start = make_pair()
    optimizer = mezo(params, lr=0.01, epsilon=1e-2, weight_decay=0.1, queries=2, seed=4)
    optimizer.step(lambda: quadratic(params))
    z = [[Directions(params, 4, 1.0).vector(p, q) for p in params] for q in range(2)]
    slopes = [slope_of(start, z[q]) for q in range(2)]
    assert optimizer.slopes == pytest.approx(slopes, rel=1e-3)
    for k, (p, s) in enumerate(zip(params, start, strict=True)):
        want = s * (1 - 0.01 * 0.1) - 0.01 * sum(slopes[q] * z[q][k] for q in range(2)) / 2
        torch.testing.assert_close(p.detach(), want, rtol=1e-4, atol=1e-4)


def test_one_sided_and_sign() -> None:
    params, start = make_pair()
    z = [Directions(params, 0, 1.0).vector(p, 0) for p in params]
    one = ZerothOrder(SGD(params, lr=0.0), OneSided(1e-3))
    one.step(lambda: quadratic(params))
    # second derivative along z adds epsilon / 2 times it
    assert one.slopes[0] == pytest.approx(slope_of(start, z), rel=0.2)
    signed = zo_sign(params, lr=0.5)
    signed.step(lambda: quadratic(params))
    for p, s, d in zip(params, start, z, strict=True):
        torch.testing.assert_close(p.detach(), s - 0.5 * np.sign(slope_of(start, z)) * d, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("state", ["fp32", "int8"])
def test_adam_and_momentum_step_on_the_drawn_gradient_exactly(isa: str, state: str) -> None:
    for make, base in ((zo_adam, AdamW), (zo_momentum, SGD)):
        params = make_params([(80, 60), (33,)])
        twin = [torch.nn.Parameter(p.detach().clone()) for p in params]
        extra = {"weight_decay": 0.0, "state": state}
        optimizer = make(params, lr=0.01, seed=9, **extra)
        plain = base(twin, lr=0.01, **({"momentum": 0.9} if base is SGD else {}), **extra)  # type: ignore[arg-type]
        for t in range(4):
            before = [p.detach().clone() for p in params]
            optimizer.step(lambda: quadratic(params))  # noqa: B023
            for p, q, s in zip(params, twin, before, strict=True):
                q.grad = optimizer.slopes[0] * optimizer.directions.vector(p, t)
                torch.testing.assert_close(q.detach(), s, rtol=1e-6, atol=2e-6)  # restored up to rounding
            plain.step()
        for p, q in zip(params, twin, strict=True):
            torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-4, atol=1e-5)


def test_forward_gradients_are_the_exact_slope() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    model[2].weight = torch.nn.Parameter(model[0].weight.detach()[:3, :].clone().repeat(1, 2)[:, :8])
    x = torch.randn(5, 6)
    optimizer = forward_gradient(model, lr=0.0, seed=1)
    optimizer.step(lambda: model(x).square().mean())
    loss = model(x).square().mean()
    grads = torch.autograd.grad(loss, list(model.parameters()))
    want = sum(
        float((g * optimizer.directions.vector(p, 0)).sum()) for p, g in zip(model.parameters(), grads, strict=True)
    )
    assert optimizer.slopes[0] == pytest.approx(want, rel=1e-4)
    assert all(isinstance(p, torch.nn.Parameter) for p in model.parameters())
    with pytest.raises(RuntimeError, match="boom"):
        optimizer.step(boom)
    assert all(isinstance(p, torch.nn.Parameter) for p in model.parameters())  # given back after an error


def boom() -> torch.Tensor:
    raise RuntimeError("boom")


def test_blocks_are_perturbed_alone_and_stepped_in_turn() -> None:
    params, start = make_pair()
    optimizer = zo_blockwise([[params[0]], [params[1]]], lr=0.01, seed=2)
    seen: list[list[bool]] = []

    def closure() -> torch.Tensor:
        seen.append([not torch.equal(p.detach(), s) for p, s in zip(params, start, strict=True)])
        return quadratic(params)

    optimizer.step(closure)
    assert [s[1] for s in seen] == [False, False, True, True]
    z = Directions(params, 2, 1.0).vector(params[1], 0)
    assert optimizer.slopes[1] == pytest.approx(4 * float((start[1] * z).sum()), rel=1e-2)


def test_conservative_steps_never_go_up() -> None:
    (p,) = make_params([(20,)])
    optimizer = zo_conservative([p], lr=5.0)
    loss = (p * p).sum().item()
    for _ in range(20):
        optimizer.step(lambda: (p * p).sum())
        now = (p * p).sum().item()
        assert now <= loss * (1 + 1e-3)
        loss = now


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_every_row_descends_resumes_and_documents_itself(row: Row) -> None:
    def make() -> tuple[torch.nn.Module, ZerothOrder]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
        return model, create(row.name, model, **row.test_kwargs)

    def loss(model: torch.nn.Module) -> torch.Tensor:
        return (model(torch.ones(2, 4)) - 1).square().mean()

    model, optimizer = make()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer.base, lambda t: 1.0)
    first = loss(model).item()
    for _ in range(80):
        optimizer.step(lambda: loss(model))
        scheduler.step()
    assert loss(model).item() < 0.6 * first
    other, resumed = make()
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for m, o in ((model, optimizer), (other, resumed)):
        for _ in range(3):
            o.step(lambda: loss(m))  # noqa: B023
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    text = row.load().__doc__ or ""
    for section in ("Args:", "Raises:", "Reference:", "Differs from paper:", "State:", "Example:"):
        assert section in text, section
    with pytest.raises(ValueError, match="lr"):
        create(row.name, model, lr=-1.0)
    with pytest.raises(TypeError, match="unexpected keyword"):
        create(row.name, model, no_such_argument=1)


def test_bad_arguments_and_frozen_parameters() -> None:
    a, b = make_params([(4,), (4,)])
    b.requires_grad_(False)
    before = b.detach().clone()
    mezo([a, b], lr=0.1).step(lambda: (a * a).sum())
    assert torch.equal(b, before)
    with pytest.raises(ValueError, match="epsilon"):
        mezo([a], epsilon=0.0)
    for estimator in (OneSided, TwoSided):  # also without the compositions around them
        with pytest.raises(ValueError, match=r"epsilon must be in \(0, inf"):
            estimator(0.0)
    with pytest.raises(ValueError, match="keep_frac"):
        zo_sparse([a], keep_frac=0.0)
    with pytest.raises(ValueError, match="without state"):
        ZerothOrder(AdamW([a]), TwoSided(1e-3), conservative=True)
    with pytest.raises(ValueError, match="weight_decay"):
        ZerothOrder(SGD([a], weight_decay=0.1), TwoSided(1e-3), conservative=True)
    with pytest.raises(TypeError, match="elementwise"):
        ZerothOrder(CAME([a]), TwoSided(1e-3))
    with pytest.raises(ValueError, match="blocks"):
        ZerothOrder(SGD([a]), TwoSided(1e-3), blocks=[[torch.nn.Parameter(torch.ones(2))]])


def test_layer_blocks_follow_the_names() -> None:
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(3, 2), "head": torch.nn.Linear(2, 3)})
    model["layers"] = torch.nn.ModuleList(torch.nn.Sequential(torch.nn.Linear(2, 2)) for _ in range(2))
    assert [len(b) for b in layer_blocks(model)] == [1, 2, 2, 2]


@pytest.mark.parametrize("policy", ["propagate", "skip", "raise"])
@pytest.mark.parametrize("name", names("zeroth_order"))
def test_losses_that_are_not_finite_follow_the_policy(name: str, policy: str) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 5)
    before = [p.detach().clone() for p in layer.parameters()]
    optimizer = create(name, layer, lr=1e-2, on_nonfinite=policy)

    def broken() -> torch.Tensor:
        return layer(torch.ones(2, 6)).sum() * float("nan")

    if policy == "raise":
        with pytest.raises(GradientError, match="slopes must be finite, got"):
            optimizer.step(broken)
    else:
        optimizer.step(broken)
    finite = all(bool(torch.isfinite(p).all()) for p in layer.parameters())
    # A conservative step goes back from where the loss is NaN, but the way there is NaN.
    assert finite == (policy != "propagate")
    if policy == "propagate":
        return
    for p, old in zip(layer.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), old, rtol=0, atol=1e-6)  # there and back rounds
    assert optimizer.base.num_skipped >= 1
    losses = [float(optimizer.step(lambda: (layer(torch.ones(2, 6)) - 1).square().mean())) for _ in range(3)]
    assert all(math.isfinite(loss) for loss in losses)


def test_a_closure_that_fails_leaves_the_parameters() -> None:
    for make in (TwoSided, OneSided):
        w = torch.nn.Parameter(torch.ones(50))
        calls = []

        def closure(w: torch.nn.Parameter = w, calls: list[int] = calls) -> torch.Tensor:
            calls.append(1)
            if len(calls) == 2:
                raise RuntimeError("out of data")
            return (w * w).sum()

        with pytest.raises(RuntimeError, match="out of data"):
            ZerothOrder(SGD([w], lr=0.1), make(1e-3)).step(closure)
        torch.testing.assert_close(w.detach(), torch.ones(50), rtol=0, atol=1e-6)
