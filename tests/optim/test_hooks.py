"""What gathers statistics or perturbs around backward passes: contexts that are undone on exit."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from gramcore.optim import (
    MKOR,
    SAM,
    SGD,
    ImportancePull,
    LoraLayer,
    LoraPerturbation,
    Sophia,
    lora_layers,
    path_importance,
    sample_labels,
)
from gramcore.optim.subspace import generator_for

from tests.optim.helpers import make_params
from tests.reference import optim as reference


def make_model(bias: bool = True) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 16, bias), torch.nn.Tanh(), torch.nn.Linear(16, 3, bias))


def loss_of(model: torch.nn.Module, seed: int = 0) -> torch.Tensor:
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(seed))
    return (model(x) - 1).square().mean()


def num_hooks(model: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules()) + sum(
        len(p._post_accumulate_grad_hooks or ()) for p in model.parameters()
    )


# ------------------------------------------------------------------ Sophia


def test_gauss_newton_bartlett_folds_and_gives_gradients_back() -> None:
    (p,) = make_params([(30,)])
    optimizer = Sophia([p], betas=(0.96, 0.5))
    p.grad = torch.full((30,), 7.0)
    with optimizer.gauss_newton_bartlett(batch=4):
        assert p.grad is None
        (p * p).sum().backward()
    torch.testing.assert_close(optimizer.state[p]["hessian"], 0.5 * 4 * (2 * p.detach()).square())
    assert torch.equal(p.grad, torch.full((30,), 7.0))
    before = optimizer.state[p]["hessian"].clone()
    with pytest.raises(RuntimeError, match="does not require grad"), optimizer.gauss_newton_bartlett(batch=4):
        (p.detach() * p.detach()).sum().backward()
    assert torch.equal(optimizer.state[p]["hessian"], before)
    assert torch.equal(p.grad, torch.full((30,), 7.0))


def test_hutchinson_by_differences_is_hutchinson() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 1))
    x, kept = torch.randn(20, 6), torch.nn.Parameter(torch.ones(3))  # one parameter without a gradient
    optimizer = Sophia([*model.parameters(), kept], betas=(0.9, 0.0))
    before = [p.detach().clone() for p in model.parameters()]
    model[0].weight.grad = torch.ones(9, 6)

    def closure() -> None:
        model(x).exp().mean().backward()

    optimizer.hutchinson_difference(closure, seed=5)
    assert model[0].weight.grad.eq(1).all()
    assert model[0].bias.grad is None
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))

    def loss(*values: torch.Tensor) -> torch.Tensor:
        names = [name for name, _ in model.named_parameters()]
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x.double(),)).exp().mean()

    probes = [torch.randn(p.shape, generator=generator_for(5, i, 0)).double() for i, p in enumerate(before)]
    _, products = torch.autograd.functional.hvp(loss, tuple(b.double() for b in before), tuple(probes))
    for p, u, hu in zip(model.parameters(), probes, products, strict=True):
        torch.testing.assert_close(optimizer.state[p]["hessian"].double(), u * hu, rtol=1e-2, atol=1e-3)
    assert not optimizer.state[kept]

    def fails() -> None:
        closure()
        raise RuntimeError("stop")

    hessian = optimizer.state[model[0].weight]["hessian"].clone()
    with pytest.raises(RuntimeError, match="stop"):
        optimizer.hutchinson_difference(fails, seed=6)
    with pytest.raises(ValueError, match="backward"):
        optimizer.hutchinson_difference(lambda: None, seed=6)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert torch.equal(optimizer.state[model[0].weight]["hessian"], hessian)


def test_hutchinson_is_exact_in_the_mean_for_a_diagonal_quadratic() -> None:
    (p,) = make_params([(30,)])
    scale = torch.arange(1.0, 31.0)
    optimizer = Sophia([p], betas=(0.96, 0.0))
    total = torch.zeros(30)
    generator = torch.Generator().manual_seed(0)
    draws = 400
    for _ in range(draws):
        with optimizer.hutchinson(generator=generator):
            ((scale * p * p).sum() / 2).backward(create_graph=True)
        total += optimizer.state[p]["hessian"]
    assert p.grad is None
    # u^2 has mean 1 and variance 2: five sigma over 30 entries, false alarm 2e-5.
    assert ((total / draws / scale - 1).abs() < 5 * (2 / draws) ** 0.5).all()
    with pytest.raises(ValueError, match="create_graph"), optimizer.hutchinson():
        (p * p).sum().backward()


def test_labels_follow_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    n = 40_000
    labels = sample_labels(logits.expand(200, n // 200, 4), generator=torch.Generator().manual_seed(1))
    assert labels.shape == (200, n // 200)
    expected = n * torch.softmax(logits, 0)
    chi2 = ((torch.bincount(labels.flatten(), minlength=4) - expected) ** 2 / expected).sum().item()
    assert chi2 < 30.7  # 3 degrees of freedom: false alarm 1e-6


# ------------------------------------------------------------------ FSAM


def test_fisher_masks_come_from_sums_of_squares() -> None:
    model = make_model()
    sam = SAM(SGD(model.parameters(), lr=0.0), keep_frac=0.2)
    loss_of(model, 9).backward()
    kept = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    want = {n: torch.zeros_like(p) for n, p in model.named_parameters() if p.ndim == 2}
    with sam.fisher():
        for i in range(5):
            loss_of(model, i).backward()
            assert all(p.grad is None for p in model.parameters() if p.ndim == 2)
    assert all(torch.equal(p.grad, k) for p, k in zip([model[0].weight, model[2].weight], kept[::2], strict=True))
    assert num_hooks(model) == 0
    for i in range(5):
        model.zero_grad()
        loss_of(model, i).backward()
        for n, p in model.named_parameters():
            if n in want and p.grad is not None:
                want[n] += p.grad.square()
    scores = torch.cat([w.flatten() for w in want.values()])
    limit = scores.topk(round(0.2 * scores.numel())).values[-1]
    for n, p in model.named_parameters():
        if n in want:
            assert torch.equal(sam._masks[p], want[n] >= limit)


# ------------------------------------------------------------------ MKOR


@pytest.mark.parametrize("bias", [True, False])
def test_mkor_keeps_the_inverse_of_the_averaged_factors(bias: bool) -> None:
    model = make_model(bias)
    optimizer = MKOR(model, SGD(model.parameters(), lr=0.05), update_every=2)
    sizes = {"0": (16, 6 + bias), "2": (3, 16 + bias)}
    factors = {n: [np.eye(s) for s in pair] for n, pair in sizes.items()}
    for t in range(6):
        inputs, outputs = {}, {}
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(t))
        h = model[0](x)
        y = model[2](model[1](h))
        inputs["0"], inputs["2"] = x, model[1](h).detach()
        outputs["0"], outputs["2"] = torch.autograd.grad((y - 1).square().mean(), [h, y])
        optimizer.base.zero_grad()
        with optimizer.collecting():
            loss_of(model, t).backward()
        assert num_hooks(model) == 0
        kept = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        start = model[2].weight.detach().clone()
        optimizer.step()
        assert all(torch.equal(p.grad, k) for p, k in zip(model.parameters(), kept, strict=True) if p.grad is not None)
        for name in sizes:
            if t % 2 == 0:
                a = inputs[name].mean(0).double().numpy()
                a = np.append(a, 1.0) if bias else a
                g = outputs[name].sum(0).double().numpy()
                factors[name] = [reference.mkor_factor(f, v, 0.9) for f, v in zip(factors[name], (g, a), strict=True)]
            for ours, exact in zip(optimizer.factors[name], factors[name], strict=True):
                np.testing.assert_allclose(ours.numpy(), np.linalg.inv(exact), rtol=1e-3, atol=1e-3)
        grad = kept[2 if bias else 1].double().numpy()
        whole = np.column_stack([grad, kept[3].double().numpy()]) if bias else grad
        u = np.linalg.solve(factors["2"][0], whole) @ np.linalg.inv(factors["2"][1])
        u *= np.linalg.norm(whole) / np.linalg.norm(u)
        want = start.double().numpy() - 0.05 * u[:, :16]
        np.testing.assert_allclose(model[2].weight.detach().numpy(), want, rtol=1e-4, atol=1e-5)


def test_mkor_paper_form_resumes_and_stays_finite() -> None:
    model = make_model()
    optimizer = MKOR(model, SGD(model.parameters(), lr=0.05), update="paper", update_every=1, max_entry=3.0)
    first = loss_of(model).item()
    for t in range(30):
        optimizer.base.zero_grad()
        with optimizer.collecting():
            loss_of(model, t).backward()
        optimizer.step()
    assert loss_of(model).item() < first
    for left, right in optimizer.factors.values():
        for factor in (left, right):
            assert torch.linalg.eigvalsh(factor).min() > 0
    other = copy.deepcopy(model)
    resumed = MKOR(other, SGD(other.parameters(), lr=0.05), update="paper", update_every=1, max_entry=3.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for m, o in ((model, optimizer), (other, resumed)):
        o.base.zero_grad()
        with o.collecting():
            loss_of(m, 50).backward()
        o.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    with pytest.raises(ValueError, match="state_dict"):
        resumed.load_state_dict({**optimizer.state_dict(), "factors": {}})
    with pytest.raises(ValueError, match="Linear"):
        MKOR(torch.nn.Tanh(), optimizer.base)


# ------------------------------------------------------------------ LoRA-GGPO


def make_lora() -> tuple[LoraLayer, SGD]:
    torch.manual_seed(0)
    module = torch.nn.Linear(12, 10, bias=False)
    module.weight.requires_grad_(False)
    a, b = torch.nn.Parameter(torch.randn(3, 12)), torch.nn.Parameter(torch.randn(10, 3))
    module.register_forward_hook(lambda m, x, y: y + 0.5 * x[0] @ a.T @ b.T)
    return LoraLayer(module, module.weight, a, b, 0.5), SGD([a, b], lr=0.1)


@pytest.mark.parametrize("form", ["variance", "deviation"])
def test_lora_noise_has_the_deviations_of_the_paper(form: str) -> None:
    layer, optimizer = make_lora()
    x = torch.randn(7, 12)
    clean = layer.module(x).detach()
    merged = (layer.weight + 0.5 * layer.b @ layer.a).detach().double()
    with LoraPerturbation([layer], optimizer, sigma=0.2, beta=0.3, form=form, seed=5) as noise:
        layer.module(x).square().mean().backward()
        gradient = 0.5 * (layer.b @ layer.a.grad + layer.b.grad @ layer.a).detach().double()  # type: ignore[operator,union-attr]
        w2, g2 = merged.square().sum(1), gradient.square().sum(1)
        want = ((0.04 / 12) * (w2 + 0.3 * g2)).sqrt() if form == "variance" else (0.2 * w2.sqrt() + 0.3 * g2) / 12**0.5
        np.testing.assert_allclose(noise.deviations(0).numpy(), want.numpy(), rtol=1e-4)
        e = torch.randn(10, 12, generator=generator_for(5, 0, 0)) * noise.deviations(0)[:, None]
        torch.testing.assert_close(layer.module(x).detach(), clean + x @ e.T, rtol=1e-4, atol=1e-4)
        again = layer.module(x).detach()
        torch.testing.assert_close(layer.module(x).detach(), again)  # the same within a step
        optimizer.step()
        assert not torch.allclose(layer.module(x), again)
        layer.module.eval()
        assert layer.module(x).shape == clean.shape
        state = noise.state_dict()
    assert len(layer.module._forward_hooks) == 1  # the adapter's own
    resumed = LoraPerturbation([layer], optimizer)
    resumed.load_state_dict(state)
    assert resumed.num_steps == 1
    assert torch.equal(resumed.grad_norms[0], noise.grad_norms[0])
    with pytest.raises(ValueError, match="none"):
        LoraPerturbation([], optimizer)


def test_lora_layers_of_peft() -> None:
    peft = pytest.importorskip("peft")
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4))
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=6, target_modules=["0", "2"]))
    layers = lora_layers(wrapped)
    assert [tuple(layer.b.shape) for layer in layers] == [(8, 2), (4, 2)]
    assert layers[0].scale == 3.0
    optimizer = SGD([p for p in wrapped.parameters() if p.requires_grad], lr=0.1)
    with LoraPerturbation(layers, optimizer):
        wrapped(torch.ones(2, 8)).sum().backward()
        optimizer.step()


# ------------------------------------------------------------------ hierarchical regularisation


def test_path_importance_is_the_path_integral() -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    start = model[0].weight.detach().clone()
    omega = torch.zeros_like(start)
    with path_importance(model, optimizer, damping=1e-2) as importance:
        for t in range(4):
            optimizer.zero_grad()
            loss_of(model, t).backward()
            before = model[0].weight.detach().clone()
            optimizer.step()
            omega -= model[0].weight.grad * (model[0].weight.detach() - before)
    want = omega.clamp_min(0) / ((model[0].weight.detach() - start).square() + 1e-2)
    torch.testing.assert_close(importance["0.weight"], want, rtol=1e-5, atol=1e-7)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_importance_pull_follows_its_equation() -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    importance = {n: torch.rand(p.shape) for n, p in model.named_parameters() if p.ndim == 2}
    anchors = {n: torch.zeros_like(importance[n]) for n in importance}
    pull = ImportancePull(model, optimizer, importance, strength=0.3, anchors=anchors)
    norms = {n: x.norm() for n, x in importance.items()}
    for t in range(3):
        optimizer.zero_grad()
        loss_of(model, t).backward()
        free = {n: p.detach() - 0.1 * p.grad for n, p in model.named_parameters() if p.grad is not None}
        optimizer.step()
        for n, p in model.named_parameters():
            want = free[n]
            if n in importance:
                c = norms[n] / (sum(norms.values()) / len(norms))  # type: ignore[arg-type]
                want = want - 2 * 0.1 * 0.3 * c * importance[n] * want
            torch.testing.assert_close(p.detach(), want, rtol=1e-5, atol=1e-6)
    pull.close()
    assert not optimizer._optimizer_step_post_hooks
    with pytest.raises(ValueError, match="names and shapes"):
        ImportancePull(model, optimizer, {"0.weight": torch.ones(2)}, strength=1.0)
