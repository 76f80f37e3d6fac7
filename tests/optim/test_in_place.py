"""Steps of whole matrices in the engine against the same steps made of tensors."""

from __future__ import annotations

import gramcore
import pytest
import torch
from gramcore._core.optim import step_columns, step_lifted
from gramcore.optim import CAME, Adafactor, AdamMini, adam_mini, factored, frugal, grass, gwt
from gramcore.optim.in_place import MatrixJob

from tests.optim.helpers import make_params, run_optimizer

COORDINATES = ("columns", "rows", "randperm", "randk", "blockwise")

#: How parameters and moments are stored where steps are compared: dtype, options, and the distance allowed as a share
#: of the way moved.  The other way rounds updates and sums, codes and halves amplify that.
STORED = [
    (torch.float32, {}, 2e-5),
    (torch.float32, {"state": "bf16"}, 0.02),
    (torch.bfloat16, {}, 0.02),
    (torch.bfloat16, {"rounding": "compensated", "state": "bf16"}, 0.02),
    (torch.bfloat16, {"rounding": "stochastic"}, 0.5),
    (torch.float16, {}, 0.02),
]
CODED = [(torch.float32, {"state": s}, 0.05) for s in ("int8", "int4")]


def both_ways(make, shapes, dtype, bound, monkeypatch, patch) -> None:  # type: ignore[no-untyped-def]
    """Eight steps as they are and with ``patch`` applied end at the same place."""
    runs = []
    for patched in (False, True):
        if patched:
            monkeypatch.setattr(*patch)
        params = make_params(shapes, dtype)
        run_optimizer(make(params), params, 8)
        runs.append(params)
    for a, b, start in zip(*runs, make_params(shapes, dtype), strict=True):
        assert (a - b).float().norm() < bound * (a - start).float().norm()


@pytest.mark.parametrize("decay", ["before", "after"])
@pytest.mark.parametrize(
    "make",
    [
        *(lambda p, k=k, **o: frugal(p, projection=k, density=0.3, refresh_every=3, **o) for k in COORDINATES),
        *(lambda p, n=n, **o: gwt(p, level=n, **o) for n in (1, 2, 3, 4, 5)),
        *(lambda p, s=s, **o: grass(p, rank=9, selection=s, refresh_every=3, **o) for s in ("top", "uniform")),
    ],
)  # fmt: skip
def test_matrices_stepped_in_place(isa: str, make, decay: str, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    shapes = [(33, 130), (20, 64), (130, 33), (3, 1027)]
    numbers = {"lr": 1e-2, "scale": 0.7, "weight_decay": 0.1, "decay": decay, "max_grad_norm": 0.5}
    never = (MatrixJob, "plain", property(lambda _: False))
    both_ways(lambda ps: make(ps, **numbers), shapes, torch.float32, 2e-5, monkeypatch, never)


@pytest.mark.parametrize(
    ("kind", "dtype", "options", "bound"),
    [
        *((kind, *stored) for kind in ("columns", "randk", "rows", "gwt", "grass") for stored in STORED),
        *((kind, *coded) for kind in ("columns", "randk") for coded in CODED),
    ],
    ids=str,
)
def test_matrices_stepped_in_place_as_stored(kind, dtype, options, bound, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def make(ps: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        numbers = {"lr": 1e-1, "weight_decay": 0.1, **options}
        if kind == "gwt":
            return gwt(ps, eps=1e-3, **numbers)
        if kind == "grass":
            return grass(ps, rank=30, **numbers)
        return frugal(ps, projection=kind, **numbers)

    shapes = [(133, 130), (70, 650)]
    never = (MatrixJob, "plain", property(lambda _: False))
    both_ways(make, shapes, dtype, bound, monkeypatch, never)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("by_row", [True, False, None])
def test_lifted_steps_of_parts_of_a_matrix(isa: str, by_row: bool | None, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    whole, grads = (torch.randn(40, 1500, generator=generator).to(dtype) for _ in range(2))
    low = torch.randn(40, 1500, generator=generator).mul_(1e-3).to(dtype) if dtype is torch.bfloat16 else None
    for part in ((slice(3, 20), slice(0, 1500)), (slice(0, 40), slice(256, 1293)), (slice(5, 6), slice(128, 131))):
        w, g, before = whole.clone(), grads[part], whole[part].double()
        u = torch.randn(g.shape, generator=generator).to(dtype)
        phi = None if by_row is None else torch.rand(g.shape[0 if by_row else 1], generator=generator)
        remainder = None if low is None else low.clone()
        place = (part[0].start, part[1].start)
        kept = None if remainder is None else remainder[part]
        step_lifted(w[part], g, u, phi, bool(by_row), 0.3, (-0.1, 0.2), remainder=kept, place=place)
        if kept is not None:
            before = before + low[part].double()  # type: ignore[index]
        scale = torch.zeros(1) if phi is None else phi[:, None] if by_row else phi
        want = (before * 0.9 - 0.3 * (u.double() + scale.double() * g.double())) * 1.2
        got = w[part].double() + (0 if kept is None else kept.double())
        unit = {torch.float32: 2.0**-22, torch.bfloat16: 2.0**-15, torch.float16: 2.0**-10}[dtype]
        assert ((got - want).abs() <= unit * (want.abs() + 4)).all()
        w[part] = whole[part]
        assert torch.equal(w, whole)  # nothing around it was touched


def test_lifted_steps_round_by_place_whatever_the_panel() -> None:
    generator = torch.Generator().manual_seed(0)
    w, u = torch.ones(300, 2500, dtype=torch.bfloat16), torch.rand(300, 2500, generator=generator).mul_(0.004)
    noise, parts = (7, 3, 1), w.clone()
    step_lifted(w, u, u, None, True, 1.0, noise=noise)
    for rows, columns in ((slice(0, 100), slice(0, 2500)), (slice(100, 300), slice(0, 256))):
        step_lifted(parts[rows, columns], u[rows, columns], u[rows, columns].contiguous(), None, True, 1.0,
                    noise=noise, place=(rows.start, columns.start))  # fmt: skip
    step_lifted(parts[100:, 256:], u[100:, 256:], u[100:, 256:].contiguous(), None, True, 1.0, noise=noise,
                place=(100, 256))  # fmt: skip
    assert torch.equal(w, parts)
    moved = (1.0 - w.float()).double()
    # Below 1 the spacing is 2^-8: the variance of one element is at most 2^-18; false alarm 6e-7.
    assert abs(float((moved - u.double()).mean())) <= 5 * 2.0**-9 / w.numel() ** 0.5
    assert {float(x) for x in moved.unique()} <= {0.0, 2.0**-8, 2.0**-7}


def test_masks_of_entries_are_checked() -> None:
    w, g, m, v = torch.zeros(2, 10), torch.ones(2, 10), torch.zeros(2, 1), torch.zeros(2, 1)
    hyper = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
    for bad in ([[1, 0], [3, 0]], [[1, 0], [0, 0]], [[1, 0], [0, 4]], [[1, 0]]):
        with pytest.raises(ValueError, match="bits in each of 2 rows"):
            step_columns(hyper, hyper, w, g, [m, v], torch.tensor(bad, dtype=torch.uint8), 1, 1)
    assert not w.any()
    step_columns(hyper, hyper, w, g, [m, v], torch.tensor([[1, 0], [0, 2]], dtype=torch.uint8), 1, 1)
    assert m.all()


@pytest.mark.parametrize(("dtype", "options", "bound"), STORED, ids=str)
@pytest.mark.parametrize("rows", [0, 1, 11])
def test_adam_mini_in_place(isa: str, rows: int, dtype, options, bound, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    if "state" in options:
        options = {**options, "state": "fp32"}

    def make(ps: list[torch.nn.Parameter]) -> AdamMini:
        return AdamMini(ps, lr=1e-1, weight_decay=0.1, block_rows=rows, max_grad_norm=0.5, **options)

    shapes = [(33, 130), (22, 3, 5), (44,)]
    both_ways(make, shapes, dtype, bound, monkeypatch, (adam_mini, "_LARGEST_BLOCK", 0))


@pytest.mark.parametrize(("dtype", "options", "bound"), [s for s in STORED if "state" not in s[1]], ids=str)
@pytest.mark.parametrize("rule", [Adafactor, CAME, "AdaLomo"])
def test_factored_steps_in_place(isa: str, rule, dtype, options, bound, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def make(ps: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        numbers = {"lr": 1e-1, "weight_decay": 0.1, "max_grad_norm": 0.5, **options}
        if rule == "AdaLomo":
            return Adafactor(ps, relative_step=False, scale_parameter=False, clip=0.5, **numbers)
        return rule(ps, **numbers)

    shapes = [(33, 130), (130, 33), (1, 2100), (2100, 1), (2, 3, 9, 65)]
    never = (factored._Factored, "step_in_place", lambda *_, **__: False)
    both_ways(make, shapes, dtype, bound, monkeypatch, never)


def test_factored_steps_do_not_depend_on_threads() -> None:
    before = gramcore.num_threads()
    runs = []
    try:
        for threads in (1, 3):
            gramcore.set_num_threads(threads)
            params = make_params([(300, 700)])
            run_optimizer(CAME(params, lr=1e-2), params, 3)
            runs.append(params[0])
    finally:
        gramcore.set_num_threads(before)
    assert torch.equal(*runs)
