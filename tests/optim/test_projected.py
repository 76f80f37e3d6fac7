"""Subspaces: their algebra, captured energy, and what the compositions keep in memory."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from gramcore.optim import (
    apollo,
    apollo_mini,
    fira,
    frugal,
    galore,
    galore_plus,
    grass,
    gwt,
    panels,
)
from gramcore.optim import subspace as subspace_module
from gramcore.optim.coordinates import ColumnSubspace, EntrySubspace, HaarSubspace, RowSampleSubspace
from gramcore.optim.lift import _growth
from gramcore.optim.subspace import (
    HeadSubspace,
    Subspace,
    SvdSubspace,
    generator_for,
    top_basis,
)

from tests.optim.helpers import make_params, run_optimizer

KIND = ("columns", "rows", "randperm", "randk", "blockwise")
ORTHONORMAL = [
    SvdSubspace(3, "svd"),
    SvdSubspace(3, "gram"),
    SvdSubspace(3),
    HeadSubspace(3, 2),
    ColumnSubspace(0.3, 1),
    ColumnSubspace(0.3, 0),
    EntrySubspace(0.3),
    RowSampleSubspace(3, "top"),
    RowSampleSubspace(3, "uniform"),
    HaarSubspace(2),
]


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (16, 16)])
@pytest.mark.parametrize("subspace", ORTHONORMAL, ids=lambda s: type(s).__name__)
def test_orthonormal_subspaces(subspace: Subspace, shape: tuple[int, int]) -> None:
    g = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    basis = subspace.refresh(g, generator_for(0, 0, 0))
    r = subspace.down(basis, g)
    assert tuple(r.shape) == subspace.low_shape(g.shape)
    back = subspace.up(basis, r, g.shape)
    torch.testing.assert_close(subspace.down(basis, back), r, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(subspace.down(basis, g - back), torch.zeros_like(r), rtol=0, atol=2e-5)
    assert back.norm() == pytest.approx(r.norm().item(), rel=1e-4)


def test_haar_is_undone_by_its_inverse() -> None:
    haar = HaarSubspace(3)
    g = torch.randn(5, 19)
    a, details = haar.decompose(g)
    torch.testing.assert_close(haar.compose(a, details, 19), g)


@pytest.mark.parametrize("shape", [(200, 96), (96, 96), (300, 200)])  # the last is wide enough to skip the Gram matrix
@pytest.mark.parametrize("method", ["iterate", "gram"])
def test_cheap_bases_capture_the_energy_of_the_svd(shape: tuple[int, int], method: str) -> None:
    generator = torch.Generator().manual_seed(3)
    u, _ = torch.linalg.qr(torch.randn(shape, generator=generator))
    v, _ = torch.linalg.qr(torch.randn(shape[1], shape[1], generator=generator))
    g = u @ torch.diag(1.0 / torch.arange(1, shape[1] + 1)) @ v.T  # spectrum of gradients: a power law
    exact = (g @ top_basis(g, 24, "svd", generator)).norm() ** 2
    cheap = (g @ top_basis(g, 24, method, generator_for(0, 0, 0))).norm() ** 2
    assert cheap >= 0.995 * exact
    assert cheap <= 1.001 * exact


@pytest.mark.parametrize("columns", [1, 127, 128, 300])
def test_gram_matrices_by_halves(columns: int) -> None:
    g = torch.randn(50, columns, generator=torch.Generator().manual_seed(columns))
    torch.testing.assert_close(subspace_module._gram(g), g.T @ g, rtol=1e-5, atol=1e-4)


def test_weighted_row_sampling_is_unbiased() -> None:
    g = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 13)[:, None]
    subspace = RowSampleSubspace(4, "norm")
    draws = torch.stack(
        [
            subspace.up(basis, subspace.down(basis, g), g.shape)
            for basis in (subspace.refresh(g, generator_for(0, 0, i)) for i in range(3000))
        ]
    )
    sigma = draws.std(dim=0) / len(draws) ** 0.5
    assert ((draws.mean(dim=0) - g).abs() <= 5.5 * sigma + 1e-5).all()  # 60 entries, false alarm 3e-6


@pytest.mark.parametrize(
    ("make", "elements"),
    [
        (lambda p: galore(p, rank=8), 2 * 8 * 96 + 8 * 64),
        (lambda p: fira(p, rank=8), 2 * 8 * 96 + 8 * 64 + 1),
        (lambda p: apollo(p, rank=8), 2 * 8 * 96 + 8 * 64 + 1),
        (lambda p: apollo_mini(p), 2 * 96 + 64 + 1),
        (lambda p: galore_plus(p, rank=8, heads=4), 2 * 8 * 96 + 8 * 64),
        (lambda p: frugal(p, density=0.25), 2 * 96 * 16 + 2 * 16),
        (lambda p: frugal(p, density=0.25, projection="randk"), 2 * 96 * 16 + 96 * 8 // 4),
        (lambda p: frugal(p, density=0.25, projection="randperm"), 2 * 96 * 16 + 2 * 16),
        (lambda p: frugal(p, density=0.25, projection="random"), 2 * 96 * 16 + 64 * 16),
        (lambda p: gwt(p, level=2), 2 * 96 * 16 + 1),
        (lambda p: grass(p, rank=8), 2 * 8 * 64 + 3 * 8),
    ],
)
def test_elements_of_state(make, elements: int) -> None:  # type: ignore[no-untyped-def]
    params = make_params([(96, 64)])
    optimizer = make(params)
    run_optimizer(optimizer, params, 1)
    assert optimizer.state_bytes() == 4 * elements + 4  # and the step count


@pytest.mark.parametrize("projection", [*KIND, "svd", "random"])
def test_every_frugal_projection_descends(projection: str) -> None:
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.randn(80, 100))
    target = torch.randn(80, 100)
    optimizer = frugal([p], lr=0.02, density=0.25, projection=projection, refresh_every=7)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (p - target).square().mean()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize("state", ["bf16", "int8", "int4"])
def test_low_bit_moments_follow_fp32(state: str) -> None:
    full, low = make_params([(160, 130)]), make_params([(160, 130)])
    run_optimizer(galore(full, rank=64, refresh_every=5), full, 12)
    run_optimizer(galore(low, rank=64, refresh_every=5, state=state), low, 12)
    moved = (full[0] - make_params([(160, 130)])[0]).norm()
    assert (full[0] - low[0]).norm() < {"bf16": 0.02, "int8": 0.1, "int4": 0.6}[state] * moved


def test_groups_can_be_exempt_and_small_matrices_are() -> None:
    a, b, c = make_params([(40, 30), (40, 30), (4, 30)])
    optimizer = galore([{"params": [a, c]}, {"params": [b], "project": False}], rank=8)
    run_optimizer(optimizer, [a, b, c], 1)
    assert "basis" in optimizer.state[a]
    assert "basis" not in optimizer.state[b]
    assert "basis" not in optimizer.state[c]


def test_a_gradient_that_is_not_finite_keeps_the_basis() -> None:
    (p,) = make_params([(40, 30)])
    optimizer = galore([p], rank=8, refresh_every=1)
    run_optimizer(optimizer, [p], 1)
    basis = optimizer.state[p]["basis"].clone()
    p.grad = torch.full_like(p, float("nan"))
    optimizer.step()
    assert torch.equal(optimizer.state[p]["basis"], basis)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "compensated"])
@pytest.mark.parametrize("state", ["fp32", "bf16", "int8", "int4"])
@pytest.mark.parametrize("make", [galore, galore_plus, fira, apollo])
def test_panels_step_as_one_panel_does(make, state, rounding, dtype, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    shapes = [(700, 30), (30, 700), (520, 90)]
    runs = []
    for elements in (1 << 18, 1):
        monkeypatch.setattr(panels, "_ELEMENTS", elements)
        params = make_params(shapes, dtype)
        params[2] = torch.nn.Parameter(params[2].detach().T.contiguous().T)  # dense, columns first
        optimizer = make(params, lr=1.0, rank=6, weight_decay=0.1, state=state, rounding=rounding, max_grad_norm=0.5)
        run_optimizer(optimizer, params, 4)
        runs.append(params)
    for a, b, start in zip(*runs, make_params(shapes, dtype), strict=True):
        moved = (a - start).float().norm()
        # Panels draw other bits for stochastic rounding, and products may add up in another order.
        bound = 1e-4 if dtype is torch.float32 and state in ("fp32", "int8") and rounding != "stochastic" else 0.1
        assert 0 < (a - b).float().norm() + 1e-9 < bound * moved


def test_growth_is_limited_from_the_limited_norm() -> None:
    """Fira, eq. 12: S_t <- S_t / |S_t| * gamma |S_{t-1}| where |S_t| / |S_{t-1}| > gamma = 1.01."""
    norm = torch.zeros(())
    limited = [now / _growth(now, norm) for now in (1.0, 2.0, 4.0, 1.02, 0.5, 0.504)]
    assert limited == pytest.approx([1.0, 1.01, 1.01**2, 1.02, 0.5, 0.504], rel=1e-6)


@pytest.mark.parametrize("make", [gwt, frugal, grass], ids=lambda f: f.__name__)
def test_rows_of_a_matrix_are_rounded_by_bits_of_their_own(make: Any) -> None:
    w = torch.nn.Parameter(torch.ones(32, 512, dtype=torch.bfloat16))
    optimizer = make([w], lr=1e-3, rounding="stochastic", **({"rank": 16} if make is grass else {}))
    w.grad = torch.ones_like(w)  # every row is the same but for its bits
    optimizer.step()
    moved = [row for row in w.detach() if (row != 1).any()]
    assert len(moved) >= 16
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(moved, 2))
