"""What works around an optimizer: fused backward, SAM, zeroth order, averaging, masks, layer selection."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from gramcore._registry import rows
from gramcore.optim import (
    LAWA,
    SAM,
    SGD,
    Adafactor,
    AdamW,
    FusedBackward,
    FusedOptimizer,
    SparseMask,
    adam_mini_groups,
    signal_to_noise,
    spectrum_freeze,
    spectrum_select,
)

from tests.optim.helpers import make_params


def make_model(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))


def loss_of(model: torch.nn.Module, seed: int = 0) -> torch.Tensor:
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(seed))
    return (model(x) - 1).square().mean()


@pytest.mark.parametrize("row", rows(protocol="optimizer_tool"), ids=lambda r: r.name)
def test_every_tool_documents_itself(row) -> None:  # type: ignore[no-untyped-def]
    text = row.load().__doc__ or ""
    assert "Args:" in text
    assert "Example" in text or row.name == "Spectrum"


@pytest.mark.parametrize(
    ("rule", "numbers"),
    [(SGD, {"lr": 0.1}), (Adafactor, {"lr": 0.1, "relative_step": False}), (AdamW, {"lr": 0.01, "state": "bf16"})],
)
@pytest.mark.parametrize("max_grad_norm", [None, 0.05])
def test_fused_backward_equals_backward_then_step(
    rule: type[FusedOptimizer], numbers: dict[str, object], max_grad_norm: float | None
) -> None:
    a, b = make_model(), make_model()
    fused_rule = rule(a.parameters(), **numbers)  # type: ignore[call-arg]
    plain = rule(b.parameters(), max_grad_norm=max_grad_norm, **numbers)  # type: ignore[call-arg]
    with FusedBackward(fused_rule, max_grad_norm=max_grad_norm) as fused:
        for t in range(5):
            fused.backward(loss_of(a, t))
            plain.zero_grad()
            loss_of(b, t).backward()
            plain.step()
            assert all(p.grad is None for p in a.parameters())
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-7)
    loss_of(a).backward()
    assert all(p.grad is not None for p in a.parameters())  # the hooks are gone


def test_fused_backward_holds_one_gradient_at_a_time() -> None:
    model = torch.nn.Sequential(*[torch.nn.Linear(8, 8) for _ in range(5)])
    alive = []
    with FusedBackward(SGD(model.parameters(), lr=0.1)) as fused:
        for p in model.parameters():
            p.register_post_accumulate_grad_hook(
                lambda _: alive.append(sum(q.grad is not None for q in model.parameters()))
            )
        fused.backward(model(torch.ones(1, 8)).sum())
    assert max(alive) == 0  # ours ran first and freed it


def test_fused_backward_skips_what_is_not_finite_and_tied_weights_step_once() -> None:
    (p,) = make_params([(4,)])
    before = p.detach().clone()
    optimizer = SGD([p], lr=0.1, on_nonfinite="skip")
    with FusedBackward(optimizer, max_grad_norm=1.0) as fused:
        fused.backward((p * float("inf")).sum())
    assert torch.equal(p, before)
    assert optimizer.num_skipped == 1
    with pytest.raises(ValueError, match="on_nonfinite"):
        FusedBackward(optimizer)
    tied = torch.nn.Parameter(torch.ones(2))
    with FusedBackward(SGD([tied], lr=0.1)) as fused:
        fused.backward((tied * 2).sum() + (tied * 3).sum())
    torch.testing.assert_close(tied.detach(), torch.full((2,), 0.5))


def test_sam_follows_its_definition() -> None:
    a, b = make_model(), make_model()
    sam = SAM(SGD(a.parameters(), lr=0.1), rho=0.2)

    def closure() -> torch.Tensor:
        loss = loss_of(a)
        loss.backward()
        return loss

    for _ in range(3):
        sam.step(closure)
        b.zero_grad()
        loss_of(b).backward()
        params = list(b.parameters())
        norm = torch.cat([p.grad.flatten() for p in params if p.grad is not None]).norm()
        moves = [0.2 * p.grad / norm for p in params if p.grad is not None]
        with torch.no_grad():
            for p, e in zip(params, moves, strict=True):
                p.add_(e)
            b.zero_grad()
        loss_of(b).backward()
        with torch.no_grad():
            for p, e in zip(params, moves, strict=True):
                p.sub_(e)
                p.sub_(0.1 * p.grad if p.grad is not None else 0)
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def test_fsam_perturbs_the_entries_of_largest_squared_gradient() -> None:
    model = make_model()
    sam = SAM(SGD(model.parameters(), lr=0.0), rho=1.0, keep_frac=0.1, refresh_every=2)
    start = [p.detach().clone() for p in model.parameters()]
    seen: list[list[torch.Tensor]] = []

    def closure() -> torch.Tensor:
        seen.append([p.detach().clone() for p in model.parameters()])
        loss = loss_of(model)
        loss.backward()
        return loss

    sam.step(closure)
    moved = [(p - s) != 0 for p, s in zip(seen[1], start, strict=True)]
    assert sum(int(m.sum()) for m in moved) == round(0.1 * (6 * 16 + 16 * 3))
    assert not moved[1].any()
    assert not moved[3].any()
    assert all(torch.equal(p, s) for p, s in zip(model.parameters(), start, strict=True))
    again = SAM(SGD(model.parameters(), lr=0.0), keep_frac=0.1)
    again.load_state_dict(copy.deepcopy(sam.state_dict()))
    assert again.state_dict()["masks"].keys() == sam.state_dict()["masks"].keys()


def test_lawa_is_the_mean_of_the_window() -> None:
    (p,) = make_params([(9,)])
    lawa = LAWA([p], every=2, window=3)
    kept = []
    for t in range(1, 12):
        p.data.add_(float(t))
        lawa.step()
        if t % 2 == 0:
            kept.append(p.detach().numpy().copy())
    np.testing.assert_allclose(lawa.mean()[0].numpy(), np.mean(kept[-3:], axis=0), rtol=1e-5)
    own = p.detach().clone()
    with pytest.raises(RuntimeError), lawa.averaged():
        raise RuntimeError
    assert torch.equal(p, own)
    again = LAWA([p], every=2, window=3)
    with pytest.raises(ValueError, match="snapshot"):
        again.mean()
    again.load_state_dict(lawa.state_dict())
    assert torch.equal(again.mean()[0], lawa.mean()[0])


def test_masked_weights_stay_zero_until_densified() -> None:
    model = make_model()
    optimizer = AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
    mask = SparseMask(model, optimizer, sparsity_frac=0.5, exclude=("2",))
    assert set(mask.masks) == {"0"}
    hidden = ~mask.masks["0"]
    assert int(hidden.sum()) == 48
    for t in range(4):
        optimizer.zero_grad()
        loss_of(model, t).backward()
        optimizer.step()
        assert not model[0].weight[hidden].any()  # type: ignore[index]
        assert not optimizer.state[model[0].weight]["exp_avg"][hidden].any()  # type: ignore[index]
    mask.densify()
    loss_of(model).backward()
    optimizer.step()
    assert model[0].weight[hidden].all()  # type: ignore[index]


def test_spectrum_ranks_within_types() -> None:
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"lm_head": torch.nn.Linear(12, 20, bias=False)})
    model["layers"] = torch.nn.ModuleList(
        torch.nn.ModuleDict({"q_proj": torch.nn.Linear(12, 12, bias=False), "norm": torch.nn.LayerNorm(12)})
        for _ in range(4)
    )
    ratios = {i: signal_to_noise(layer["q_proj"].weight) for i, layer in enumerate(model["layers"])}  # type: ignore[arg-type,index]
    best = sorted(ratios, key=lambda i: -ratios[i])[:2]
    want = {"lm_head.weight", *(f"layers.{i}.q_proj.weight" for i in best)}
    assert set(spectrum_select(model, fraction=0.5)) == want
    assert set(spectrum_freeze(model, fraction=0.5)) == want
    assert {n for n, p in model.named_parameters() if p.requires_grad} == want
    with pytest.raises(ValueError, match="meta"):
        signal_to_noise(torch.empty(3, 3, device="meta"))


def test_adam_mini_groups_cut_queries_by_head() -> None:
    model = torch.nn.ModuleDict(
        {"q_proj": torch.nn.Linear(8, 16), "mlp": torch.nn.Linear(8, 12, bias=False), "norm": torch.nn.LayerNorm(8)}
    )
    groups = adam_mini_groups(model, num_heads=4, weight_decay=0.1)
    rows_of = {p: g["block_rows"] for g in groups for p in g["params"]}
    assert rows_of[model["q_proj"].weight] == 4  # type: ignore[index]
    assert rows_of[model["mlp"].weight] == 1  # type: ignore[index]
    assert rows_of[model["norm"].weight] == 0  # type: ignore[index]
    decay_of = {p: g["weight_decay"] for g in groups for p in g["params"]}
    assert all(decay == (0.1 if p.ndim == 2 else 0.0) for p, decay in decay_of.items())
