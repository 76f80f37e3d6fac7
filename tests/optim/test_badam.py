"""BAdam: one block at a time, fresh moments, resuming in the middle of a block."""

from __future__ import annotations

import copy

import pytest
import torch
from gramcore.optim import AdamW, BAdam

from tests.optim.helpers import make_params, set_grads


def make_blocks() -> list[list[torch.nn.Parameter]]:
    params = make_params([(6, 4), (4,), (6, 4), (4,), (6, 4), (4,)])
    return [params[i : i + 2] for i in range(0, 6, 2)]


@pytest.mark.parametrize(("order", "expected"), [("ascending", [0, 1, 2, 0]), ("descending", [2, 1, 0, 2])])
def test_each_block_is_adamw_from_fresh_moments(order: str, expected: list[int]) -> None:
    blocks, shadow = make_blocks(), make_blocks()
    optimizer = BAdam(blocks, switch_every=3, order=order, freeze=False, lr=1e-2)
    flat, flat_shadow = [p for b in blocks for p in b], [p for b in shadow for p in b]
    t = 0
    for block in expected:
        alone = AdamW(shadow[block], lr=1e-2)
        for _ in range(3):
            t += 1
            set_grads(flat, t)
            set_grads(flat_shadow, t)
            assert optimizer.active == block
            optimizer.step()
            alone.step()
            assert all(p.grad is not None for p in flat)
    assert all(torch.equal(a, b) for a, b in zip(flat, flat_shadow, strict=True))


def test_a_random_order_visits_every_block_each_round() -> None:
    blocks = make_blocks()
    optimizer = BAdam(blocks, switch_every=1, order="random", freeze=False, lr=1e-2, seed=3)
    visits = []
    for t in range(9):
        visits.append(optimizer.active)
        set_grads([p for b in blocks for p in b], t)
        optimizer.step()
    assert [sorted(visits[i : i + 3]) for i in (0, 3, 6)] == [[0, 1, 2]] * 3


def test_freezing_and_resuming() -> None:
    blocks = make_blocks()
    blocks[0][1].requires_grad_(False)
    optimizer = BAdam(blocks, switch_every=4, lr=1e-2)
    assert [[p.requires_grad for p in b] for b in blocks] == [[False, False], [False, False], [True, True]]
    for t in range(1, 7):
        set_grads(blocks[optimizer.active], t)
        optimizer.step()
    held = optimizer.state_bytes()
    assert held == 2 * 4 * (24 + 4) + 2 * 4
    copies = copy.deepcopy(blocks)
    resumed = BAdam(copies, switch_every=4, lr=1e-2)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert resumed.active == optimizer.active == 1
    for t in range(7, 12):
        for one, own in ((optimizer, blocks), (resumed, copies)):
            set_grads(own[one.active], t)
            one.step()
    assert all(torch.equal(a, b) for x, y in zip(blocks, copies, strict=True) for a, b in zip(x, y, strict=True))
    optimizer.close()
    assert [[p.requires_grad for p in b] for b in blocks] == [[True, False], [True, True], [True, True]]


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="switch_every"):
        BAdam(make_blocks(), switch_every=0)
    with pytest.raises(ValueError, match="order"):
        BAdam(make_blocks(), order="sideways")
    with pytest.raises(ValueError, match="empty"):
        BAdam([])
