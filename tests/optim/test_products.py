"""The engine's products against fp64, and steps of the projected optimizers through each kind of product."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from gramcore._core import optim
from gramcore.optim import apollo, fira, galore, galore_plus, panels

from tests.optim.helpers import make_params, run_optimizer

SHAPES = [(1, 1, 1), (5, 7, 3), (48, 16, 32), (49, 17, 33), (100, 300, 70), (97, 515, 260), (13, 256, 300), (400, 3, 5)]


def has_pairs() -> bool:
    try:
        optim.PackedFactor(torch.ones(1, 1), True)
    except ValueError:
        return False
    return True


def matrix(rows: int, columns: int, dtype: torch.dtype, by_columns: bool, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if by_columns:
        return torch.randn(columns, rows, generator=generator).to(dtype).T
    return torch.randn(rows, columns, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("narrow", [False, True])
def test_products_are_those_of_fp64(isa: str, narrow: bool, dtype: torch.dtype) -> None:
    if narrow and (not has_pairs() or dtype is torch.float16):
        pytest.skip("no dot products of bf16 pairs at this level, or of this type")
    for (rows, inner, columns), left, right in itertools.product(SHAPES, (False, True), (False, True)):
        a, b = matrix(rows, inner, dtype, left, 0), matrix(inner, columns, dtype, right, 1)
        result = torch.full((rows, columns), 7.0)
        optim.multiply(a, optim.PackedFactor(b, narrow), result)
        if narrow:
            a, b = a.bfloat16(), b.bfloat16()
        want, size = a.double() @ b.double(), a.double().abs() @ b.double().abs()
        assert ((result - want).abs() <= 2e-6 * size).all()


@pytest.mark.parametrize("by_row", [True, False, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_along_a_product_are_those_along_the_formed_matrix(
    isa: str, dtype: torch.dtype, by_row: bool | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    whole, grads = (torch.randn(140, 1100, generator=generator).to(dtype) for _ in range(2))
    for part in ((slice(3, 120), slice(0, 1100)), (slice(0, 140), slice(256, 1093)), (slice(5, 6), slice(512, 515))):
        w, g = whole.clone(), grads[part]
        a, b = matrix(g.shape[0], 60, torch.float32, False, 2), matrix(60, g.shape[1], dtype, True, 3)
        phi = None if by_row is None else torch.rand(g.shape[0 if by_row else 1], generator=generator)
        place, decay = (part[0].start, part[1].start), (-0.1, 0.2)
        noise = (7, 3, 1) if dtype is torch.bfloat16 else None
        optim.step_product(
            w[part], g, a, optim.PackedFactor(b), phi, bool(by_row), 0.3, decay, noise=noise, place=place
        )
        formed, other = torch.empty(g.shape), whole.clone()
        optim.multiply(a, optim.PackedFactor(b), formed)
        optim.step_lifted(other[part], g, formed, phi, bool(by_row), 0.3, decay, noise=noise, place=place)
        assert torch.equal(w, other)
        assert not torch.equal(w[part], whole[part])
        w[part] = whole[part]
        assert torch.equal(w, whole)  # nothing around it was touched


def test_products_refuse_what_does_not_fit() -> None:
    packed, x = optim.PackedFactor(torch.ones(3, 4)), torch.ones(2, 3)
    with pytest.raises(ValueError, match="a must have 3 columns"):
        optim.multiply(torch.ones(2, 4), packed, torch.ones(2, 4))
    with pytest.raises(ValueError, match="result must have 2 rows of 4"):
        optim.multiply(x, packed, torch.ones(2, 3))
    with pytest.raises(ValueError, match="rows or columns have no gaps"):
        optim.PackedFactor(torch.ones(6, 8)[::2, ::2])
    with pytest.raises(ValueError, match="x must have a row at least"):
        optim.PackedFactor(torch.ones(0, 4))
    with pytest.raises(ValueError, match="multiple of 256"):
        optim.step_product(torch.ones(2, 4), torch.ones(2, 4), x, packed, None, True, 1.0, place=(0, 128))
    with pytest.raises(ValueError, match="shape of the lifted matrix"):
        optim.step_product(torch.ones(2, 5), torch.ones(2, 5), x, packed, None, True, 1.0)


@pytest.mark.parametrize("kind", ["wide", "narrow"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [galore, galore_plus, fira, apollo])
def test_projected_steps_through_every_kind_of_product(make: Any, dtype: torch.dtype, kind: str, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    if kind == "narrow" and (not has_pairs() or dtype is torch.float16):
        pytest.skip("no dot products of bf16 pairs at this level, or of this type")
    shapes, runs = [(700, 90), (90, 700), (130, 64)], []

    class Kinds:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getattr__(self, name: str) -> Any:
            return getattr(optim, name)

        def best_product(self, like: torch.Tensor) -> str:
            return self.name

    for name in ("library", kind):
        monkeypatch.setattr(panels._core, "optim", Kinds(name))
        params = make_params(shapes, dtype)
        run_optimizer(make(params, lr=1.0, rank=24, weight_decay=0.1, max_grad_norm=0.5), params, 4)
        runs.append(params)
    exact = kind == "wide" and dtype is torch.float32
    for a, b, start in zip(*runs, make_params(shapes, dtype), strict=True):
        moved = (a - start).float().norm()
        assert (a - b).float().norm() < (1e-4 if exact else 0.05) * moved
