"""Official packages on the same gradients, where they are installed: one common rule, projector and map."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from gramcore.optim import (
    CAME,
    SGD,
    Adafactor,
    AdamMini,
    AdamW,
    BAdam,
    FusedBackward,
    Grams,
    Lion,
    apollo,
    apollo_mini,
    fira,
    galore,
    layer_blocks,
)

from tests.optim.helpers import make_params, run_optimizer
from tests.reference import optim as reference

pytestmark = pytest.mark.peer

SHAPES = [(70, 40), (40, 70), (48, 48)]


def peer(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def compare(ours: Any, theirs: Any, steps: int, tolerance: float, shapes: Any = SHAPES) -> None:
    """Distance between two runs over the same gradients, relative to the distance moved."""
    a, b, start = make_params(shapes), make_params(shapes), make_params(shapes)
    run_optimizer(ours(a), a, steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_optimizer(theirs(b), b, steps)
    for x, y, z in zip(a, b, start, strict=True):
        assert (x - y).norm() <= tolerance * (y - z).norm()


def test_came() -> None:
    official = peer("came_pytorch").CAME
    compare(lambda p: CAME(p, lr=1e-3), lambda p: official(p, lr=1e-3), 30, 1e-4)


def test_adam_mini_row_by_row() -> None:
    official = peer("adam_mini").Adam_mini

    def theirs(params: list[torch.nn.Parameter]) -> Any:
        named = [(f"mlp.{i}.weight", p) for i, p in enumerate(params)]
        return official(named, lr=1e-2, weight_decay=0.0, dim=40, n_heads=4, verbose=False)

    compare(lambda p: AdamMini(p, lr=1e-2, weight_decay=0.0), theirs, 30, 1e-4)


def test_galore_between_refreshes() -> None:
    # The signs of singular vectors cancel as long as the basis stays.
    official = peer("galore_torch").GaLoreAdamW
    group = {"rank": 8, "update_proj_gap": 100, "scale": 0.25, "proj_type": "std"}
    compare(
        lambda p: galore(p, lr=1e-2, rank=8, refresh_every=100, method="svd"),
        lambda p: official([{"params": p, **group}], lr=1e-2),
        30,
        1e-3,
    )


def test_fira_between_refreshes() -> None:
    # With another alpha than 1 the package multiplies what it takes from the residual too; the paper does not.
    official = peer("fira").FiraAdamW
    group = {"rank": 8, "update_proj_gap": 100, "alpha": 1.0, "proj_type": "std"}
    compare(
        lambda p: fira(p, lr=1e-2, rank=8, refresh_every=100, scale=1.0, method="svd"),
        lambda p: official([{"params": p, **group}], lr=1e-2),
        20,
        2e-3,
    )


@pytest.mark.parametrize("rank", [8, 1])
def test_apollo_with_the_packages_projections(rank: int) -> None:
    official = peer("apollo_torch").APOLLOAdamW
    kind = "channel" if rank > 1 else "tensor"
    group = {
        "rank": rank,
        "proj": "random",
        "scale_type": kind,
        "scale": 4.0,
        "update_proj_gap": 100,
        "proj_type": "std",
    }
    projections: list[torch.Tensor] = []

    def theirs(params: list[torch.nn.Parameter]) -> Any:
        optimizer = official([{"params": params, **group}], lr=1e-2)
        run_optimizer(optimizer, params, 1)
        for p in params:
            matrix = optimizer.state[p]["projector"].ortho_matrix
            projections.append((matrix.T if p.shape[0] >= p.shape[1] else matrix).contiguous())
        return optimizer

    def ours(params: list[torch.nn.Parameter]) -> Any:
        make = apollo(params, rank=8, scale=4.0, lr=1e-2) if rank > 1 else apollo_mini(params, scale=4.0, lr=1e-2)
        given = iter(projections)
        make.subspace.refresh = lambda g, generator: {"basis": next(given)}  # type: ignore[method-assign]
        return make

    a, b, start = make_params(SHAPES), make_params(SHAPES), make_params(SHAPES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_optimizer(theirs(b), b, 19, first=2)
    run_optimizer(ours(a), a, 20)
    for x, y, z in zip(a, b, start, strict=True):
        assert (x - y).norm() <= 1e-3 * (y - z).norm()


def test_grams_with_its_epsilon() -> None:
    official = peer("grams").Grams
    compare(
        lambda p: Grams(p, lr=1e-2, eps_mode="raw"),
        lambda p: official(p, lr=1e-2, eps=1e-6, weight_decay=0.0),
        30,
        1e-4,
    )


def test_grams_and_lion_of_pytorch_optimizer() -> None:
    module = peer("pytorch_optimizer")
    compare(lambda p: Grams(p, lr=1e-2), lambda p: module.Grams(p, lr=1e-2, eps=1e-6, weight_decay=0.0), 30, 1e-4)
    compare(
        lambda p: Lion(p, lr=1e-3, weight_decay=0.1),
        lambda p: module.Lion(p, lr=1e-3, weight_decay=0.1, weight_decouple=True),
        30,
        1e-4,
    )


def test_adafactor_of_torch() -> None:
    compare(lambda p: Adafactor(p, lr=1e-2), lambda p: torch.optim.Adafactor(p, lr=1e-2), 30, 1e-3)


def test_8_bit_adamw_of_bitsandbytes() -> None:
    # Its CPU codes are near the nearest, and never 0: gradients of one decade keep both away from there.
    official = peer("bitsandbytes").optim.AdamW8bit
    (a,), (b,), (start,) = (make_params([(128, 64)]) for _ in range(3))
    ours, theirs = AdamW([a], lr=1e-3, state="int8"), official([b], lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        g = torch.randn(a.shape, generator=generator) * 10 ** -torch.rand(a.shape, generator=generator)
        a.grad, b.grad = g.clone(), g.clone()
        ours.step()
        theirs.step()
    assert (a - b).norm() <= 0.01 * (b - start).norm()


def small_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))


def loss_of(model: torch.nn.Module, t: int) -> torch.Tensor:
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(t))
    return (model(x) - 1).square().mean()


@pytest.mark.parametrize("norm", [None, 0.05])
def test_lomo(norm: float | None) -> None:
    official = peer("lomo_optim").Lomo
    left, right = small_model(), small_model()
    theirs = official(right, lr=0.1, clip_grad_norm=norm)
    with FusedBackward(SGD(left.parameters(), lr=0.1), max_grad_norm=norm) as ours:
        for t in range(5):
            ours.backward(loss_of(left, t))
            if norm is not None:
                theirs.grad_norm(loss_of(right, t))
            theirs.fused_backward(loss_of(right, t), 0.1)
    for x, y in zip(left.parameters(), right.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def test_badam() -> None:
    official = peer("badam").BlockOptimizer
    left, right = small_model(), small_model()
    ours = BAdam(layer_blocks(left), switch_every=3, order="ascending", lr=1e-2, weight_decay=0.0)
    ours.param_groups[0]["steps_done"] = 1  # the package's first block has one step less
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = official(
            torch.optim.AdamW(right.parameters(), lr=1e-2, weight_decay=0.0),
            list(right.named_parameters()),
            block_prefix_list=[["0."], ["2."]],
            switch_block_every=3,
            start_block=0,
            switch_mode="ascending",
            verbose=0,
        )
        for t in range(8):
            for model, optimizer in ((left, ours), (right, theirs)):
                optimizer.zero_grad()
                loss_of(model, t).backward()
                optimizer.step()
    for x, y in zip(left.parameters(), right.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def test_8_bit_maps_of_bitsandbytes() -> None:
    functional = peer("bitsandbytes.functional")
    for signed in (True, False):
        theirs = functional.create_dynamic_map(signed=signed).double().numpy()
        np.testing.assert_allclose(reference.dynamic_map(8, signed=signed), theirs, rtol=1e-6, atol=1e-9)


def test_4_bit_maps_of_torchao() -> None:
    peer("torchao")
    from torchao.optim.subclass_4bit import OptimState4bit  # type: ignore[import-not-found]

    for signed, table in ((True, reference.SIGNED_4BIT), (False, reference.LINEAR_4BIT)):
        theirs = OptimState4bit.zeros((16, 128), signed, 128).qmap.double().numpy()
        np.testing.assert_allclose(table, theirs, rtol=1e-6, atol=1e-9)
