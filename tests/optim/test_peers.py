"""Official packages on the same gradients, where they are installed: one common rule, projector and map."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from gramcore.optim import CAME, AdamMini, galore

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
