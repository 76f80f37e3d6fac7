"""What users put around a step: GradScaler, tensor learning rates, compiled models, Trainer, loss scales."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from gramcore.optim import SGD, AdamW, FusedBackward, GradientError, create, galore
from gramcore.optim.by_name import names

from tests.optim.helpers import make_params, run_optimizer, set_grads


def make_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))


def loss_of(model: torch.nn.Module, seed: int = 0) -> torch.Tensor:
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(seed))
    return (model(x) - 1).square().mean()


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("name", ["AdamW", "GaLore", "CAME"])
def test_grad_scaler(name: str, unscale: bool) -> None:
    scaled, plain = make_model(), make_model()
    a = create(name, scaled, lr=1e-2, max_grad_norm=0.05)
    b = create(name, plain, lr=1e-2, max_grad_norm=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    for t in range(4):
        a.zero_grad()
        scaler.scale(loss_of(scaled, t)).backward()
        if unscale:
            scaler.unscale_(a)
        scaler.step(a)
        scaler.update()
        b.zero_grad()
        loss_of(plain, t).backward()
        b.step()
        assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-5)
    for x, y in zip(scaled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)
    before = [p.detach().clone() for p in scaled.parameters()]
    a.zero_grad()
    scaler.scale(loss_of(scaled) * float("inf")).backward()
    scaler.step(a)
    old = scaler.get_scale()
    scaler.update()
    assert scaler.get_scale() == old / 2
    assert a.num_skipped == 1
    assert all(torch.equal(p, q) for p, q in zip(scaled.parameters(), before, strict=True))


def test_grad_scaler_steps_half_precision_parameters() -> None:
    (p,) = make_params([(64,)], torch.float16)
    start = p.detach().clone()
    optimizer = AdamW([p], lr=0.01, weight_decay=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    p.grad = torch.full_like(p, 8.0)
    scaler.scale(torch.ones(()))
    scaler.step(optimizer)
    torch.testing.assert_close(p.detach(), start - 0.01, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(optimizer.state[p]["exp_avg"], torch.full((64,), 0.2))  # of the gradient 8 / 4


def test_learning_rates_as_tensors_follow_schedulers() -> None:
    ours, theirs = make_params([(5,), (6, 8)]), make_params([(5,), (6, 8)])
    a, b = AdamW(ours, lr=torch.tensor(0.1)), AdamW(theirs, lr=0.1)
    schedulers = [torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.2, total_steps=6) for o in (a, b)]
    for t in range(1, 6):
        for optimizer, params, scheduler in ((a, ours, schedulers[0]), (b, theirs, schedulers[1])):
            set_grads(params, t)
            optimizer.step()
            scheduler.step()
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def test_compiled_models_train() -> None:
    plain, model = make_model(), make_model()
    compiled = torch.compile(model, backend="aot_eager")
    for m, call in ((plain, plain), (model, compiled)):
        optimizer = AdamW(m.parameters(), lr=1e-2)
        for t in range(3):
            optimizer.zero_grad()
            loss_of(call, t).backward()  # type: ignore[arg-type]
            optimizer.step()
    for x, y in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def test_trainer_takes_an_optimizer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    data = [{"input_ids": torch.arange(8) + i % 3, "labels": torch.arange(8) + i % 3} for i in range(16)]

    def train(make) -> list[torch.Tensor]:  # type: ignore[no-untyped-def]
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(config)
        optimizer = make(model)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1.0 / (1 + t))
        settings = transformers.TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=4,
            per_device_train_batch_size=4,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = transformers.Trainer(model=model, args=settings, train_dataset=data, optimizers=(optimizer, schedule))
        trainer.train()
        return [p.detach() for p in model.parameters()]

    ours = train(lambda m: create("AdamW", m, lr=1e-2, weight_decay=0.0))
    theirs = train(lambda m: torch.optim.AdamW(m.parameters(), lr=1e-2, weight_decay=0.0))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_loss_scale_of_fused_steps_halves_on_overflow_and_grows() -> None:
    scaled, plain = make_model(), make_model()
    a, b = SGD(scaled.parameters(), lr=0.1), SGD(plain.parameters(), lr=0.1)
    with (
        FusedBackward(a, max_grad_norm=0.05, clip_value=0.02, loss_scale=8.0, growth_every=2) as fused,
        FusedBackward(b, max_grad_norm=0.05, clip_value=0.02) as bare,
    ):
        for t in range(4):
            fused.backward(loss_of(scaled, t))
            bare.backward(loss_of(plain, t))
        assert fused.loss_scale == 32.0
        for x, y in zip(scaled.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-7)
        before = [p.detach().clone() for p in scaled.parameters()]
        fused.backward(loss_of(scaled) * float("inf"))
        assert fused.loss_scale == 16.0
        assert a.num_skipped == 1
        assert all(torch.equal(p, q) for p, q in zip(scaled.parameters(), before, strict=True))
    with pytest.raises(ValueError, match="max_grad_norm"):
        FusedBackward(a, loss_scale=8.0)
    strict = SGD(plain.parameters(), lr=0.1, on_nonfinite="raise")
    with FusedBackward(strict, max_grad_norm=1.0) as fused, pytest.raises(GradientError, match="finite"):
        fused.backward(loss_of(plain) * float("nan"))


def test_rank_above_both_sides_and_vectors_get_adam() -> None:
    params, twin = make_params([(5, 7), (9,)]), make_params([(5, 7), (9,)])
    numbers = {"lr": 1e-2, "eps": 1e-6, "eps_mode": "raw", "decay": "after", "weight_decay": 0.0}
    run_optimizer(galore(params, lr=1e-2, rank=64), params, 5)
    run_optimizer(AdamW(twin, **numbers), twin, 5)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(params, twin, strict=True))


@pytest.mark.parametrize("name", ["AdamW-8bit", "GaLore", "CAME"])
def test_copies_and_pickles_go_on_alike(name: str) -> None:
    model = make_model()
    optimizer = create(name, model, lr=1e-2, max_grad_norm=0.5, on_nonfinite="skip")
    loss_of(model).backward()
    optimizer.step()
    twin_model, twin = copy.deepcopy((model, optimizer))
    third_model, third = pickle.loads(pickle.dumps((model, optimizer)))
    for m, o in ((model, optimizer), (twin_model, twin), (third_model, third)):
        o.zero_grad()
        loss_of(m, 1).backward()
        o.step()
        assert all(torch.equal(a, b) for a, b in zip(m.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (lambda ps: torch.optim.AdamW(ps, lr=1e-2), lambda ps: AdamW(ps, lr=1e-2)),
        (lambda ps: torch.optim.SGD(ps, lr=1e-2, momentum=0.9), lambda ps: SGD(ps, lr=1e-2, momentum=0.9)),
    ],
)
def test_a_state_of_torch_is_taken_over(theirs, ours) -> None:  # type: ignore[no-untyped-def]
    left, right = make_params([(5,), (6, 8)]), make_params([(5,), (6, 8)])
    a, b = theirs(left), ours(right)
    run_optimizer(a, left, 3)
    b.load_state_dict(a.state_dict())
    for p, q in zip(left, right, strict=True):
        q.data.copy_(p)
    run_optimizer(a, left, 3, first=4)
    run_optimizer(b, right, 3, first=4)
    for p, q in zip(left, right, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_a_state_goes_to_its_own_algorithm_only() -> None:
    made, saved = {}, {}
    for name in names("optimizer"):
        params = make_params([(80, 90), (7,)])
        made[name] = create(name, params, lr=1e-3)
        run_optimizer(made[name], params, 1)
        saved[name] = made[name].state_dict()
    for mine, optimizer in made.items():
        for other, state in saved.items():
            same = optimizer.algorithm() == made[other].algorithm()
            stored = optimizer.param_groups[0]["state"] == made[other].param_groups[0]["state"]
            if same and stored and state["state"][0].keys() == saved[mine]["state"][0].keys():
                optimizer.load_state_dict(state)
            elif not same or not stored:
                wrong = "state_dict must hold moments stored as" if same else "state_dict must be one of"
                with pytest.raises(ValueError, match=wrong):
                    optimizer.load_state_dict(state)


def test_what_is_no_state_or_given_twice_is_refused() -> None:
    (p,) = make_params([(6, 8)])
    with pytest.raises(ValueError, match="must hold param_groups and state"):
        AdamW([p]).load_state_dict({"weights": 1})
    with pytest.raises(ValueError, match="betas must hold 2 numbers"):
        AdamW([p], betas=0.9)
    with pytest.warns(UserWarning, match="duplicate"), pytest.raises(ValueError, match="given once"):
        AdamW([p, p])


@pytest.mark.parametrize("name", names("optimizer"))
def test_a_state_of_another_package_is_refused_and_nothing_changes(name: str) -> None:
    params = make_params([(80, 90), (7,)])
    optimizer = create(name, params, lr=1e-3)
    run_optimizer(optimizer, params, 1)
    before = copy.deepcopy(optimizer.state_dict())
    others = make_params([(80, 90), (7,)])
    other = torch.optim.Adagrad(others)
    run_optimizer(other, others, 1)
    with pytest.raises(ValueError, match="must"):
        optimizer.load_state_dict(other.state_dict())
    now = optimizer.state_dict()
    assert now["param_groups"] == before["param_groups"]
    for i, values in before["state"].items():
        assert all(torch.equal(value, now["state"][i][key]) for key, value in values.items())


@pytest.mark.parametrize("name", names("optimizer"))
def test_parameters_without_elements_cost_nothing(name: str) -> None:
    params = make_params([(4, 0), (80, 90), (0,)])
    start = params[1].detach().clone()
    optimizer = create(name, params, lr=1e-2, max_grad_norm=1.0)
    run_optimizer(optimizer, params, 2)
    assert not optimizer.state[params[0]]
    assert not optimizer.state[params[2]]
    assert not torch.equal(params[1], start)
    fresh = create(name, params, lr=1e-2)
    fresh.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("name", names("optimizer"))
def test_maximizing_is_descending_along_the_negated_gradient(name: str) -> None:
    up, down = make_params([(80, 96), (96, 80), (7,)]), make_params([(80, 96), (96, 80), (7,)])
    a, b = create(name, up, lr=1e-2, maximize=True), create(name, down, lr=1e-2)
    for t in range(1, 4):
        set_grads(up, t)
        set_grads(down, t)
        for p in down:
            assert p.grad is not None
            p.grad.neg_()
        a.step()
        b.step()
    assert all(torch.equal(p, q) for p, q in zip(up, down, strict=True))


@pytest.mark.parametrize("name", names("optimizer"))
def test_groups_added_later_resume_exactly(name: str) -> None:
    params = make_params([(80, 96), (7,), (96, 80)])
    optimizer = create(name, params[:1], lr=1e-2)
    set_grads(params, 1)
    optimizer.step()
    optimizer.add_param_group({"params": params[1:], "lr": 5e-3})
    set_grads(params, 2)
    optimizer.step()
    twins = [torch.nn.Parameter(p.detach().clone()) for p in params]
    other = create(name, twins[:1], lr=1e-2)
    other.add_param_group({"params": twins[1:]})
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for made, some in ((optimizer, params), (other, twins)):
        set_grads(some, 3)
        made.step()
    assert all(torch.equal(p, q) for p, q in zip(params, twins, strict=True))


def test_a_state_of_another_shape_is_refused_and_nothing_changes() -> None:
    ours, other = make_params([(6, 8)]), make_params([(8, 6)])
    a, b = AdamW(ours), AdamW(other)
    run_optimizer(a, ours, 2)
    run_optimizer(b, other, 2)
    before = a.state[ours[0]]["exp_avg"].clone()
    with pytest.raises(ValueError, match="shape"):
        a.load_state_dict(b.state_dict())
    assert torch.equal(a.state[ours[0]]["exp_avg"], before)
