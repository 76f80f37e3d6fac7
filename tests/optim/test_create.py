"""Optimizers by name, groups, memory figures, the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from gramcore.cli import main
from gramcore.optim import AdamW, create, param_groups, state_bytes
from gramcore.optim.by_name import names


@pytest.mark.parametrize("name", names("optimizer"))
def test_every_name_trains_a_module(name: str) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.LayerNorm(16), torch.nn.Linear(16, 4))
    optimizer = create(name.lower(), model, lr=1e-3)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = (model(torch.ones(4, 8)) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_names_come_with_what_defines_them_and_the_factory_defaults_otherwise() -> None:
    layer = torch.nn.Linear(512, 300)
    assert create("GaLore", layer).subspace.rank == 128
    assert create("AdamW-8bit", layer).param_groups[0]["state"] == "int8"
    assert create("SGD-momentum", layer).momentum == 0.9
    assert create("AdamW-8bit", layer, state="int4").param_groups[0]["state"] == "int4"


def test_what_works_around_an_optimizer_is_made_with_one() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))
    lomo = create("lomo", model, lr=0.5, max_grad_norm=1.0)
    assert (type(lomo.optimizer).__name__, lomo.max_grad_norm, lomo.optimizer.param_groups[0]["lr"]) == (
        "SGD",
        1.0,
        0.5,
    )
    released = create("LOMO", model, base="AdamW-8bit", lr=1e-3)
    assert released.optimizer.param_groups[0]["state"] == "int8"
    assert create("FSAM", model, rho=0.1, weight_decay=0.1).keep_frac == 0.1
    assert len(create("SAM", model, weight_decay=0.1).base.param_groups) == 2
    mkor = create("MKOR", model, lr=1e-3, update_every=3)
    assert (mkor.update_every, len(mkor.layers), mkor.base.param_groups[0]["lr"]) == (3, 2, 1e-3)
    assert len(create("BAdam", model, lr=1e-3).param_groups) == 2
    with pytest.raises(ValueError, match=r"gramcore\.optim\.LAWA"):
        create("LAWA", model)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"AdamW, .*got 'adamax'"):
        create("adamax", torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="did you mean 'AdamW-8bit'"):
        create("adamw8bit", torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"'fused'; .* options state, rounding"):
        create("AdamW", torch.nn.Linear(2, 2), fused=True)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_parameters_can_be_left_out_by_name(decay: float) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))
    for name in ("AdamW", "LOMO"):
        made = create(name, model, weight_decay=decay, exclude=lambda n, p: n == "0.weight" or p.numel() == 4)
        optimizer = getattr(made, "optimizer", made)
        kept = [p for group in optimizer.param_groups for p in group["params"]]
        assert [tuple(p.shape) for p in kept] == ([(4, 16), (16,)] if decay else [(16,), (4, 16)])
    with pytest.raises(TypeError, match="got a module Sequential; pass its parameters"):
        AdamW(model)
    with pytest.raises(ValueError, match="exclude must come with a module"):
        create("AdamW", list(model.parameters()), exclude=lambda n, p: False)


def test_groups_exempt_vectors_and_what_is_excluded() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.LayerNorm(16), torch.nn.Linear(16, 4))
    groups = param_groups(model, weight_decay=0.1, exclude=lambda name, p: name.startswith("2."))
    assert [len(g["params"]) for g in groups] == [1, 3]
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]


@pytest.mark.parametrize("name", names("optimizer"))
def test_memory_figures_equal_what_is_allocated(name: str) -> None:
    p = torch.nn.Parameter(torch.randn(96, 80))
    optimizer = create(name, [p], lr=1e-3)
    p.grad = torch.randn(96, 80)
    optimizer.step()
    held = sum(t.numel() * t.element_size() for t in optimizer.state[p].values() if isinstance(t, torch.Tensor))
    assert state_bytes(name, [(96, 80)]) == held


@pytest.mark.parametrize("name", names("zeroth_order"))
def test_memory_figures_of_zeroth_order_steps(name: str) -> None:
    layer = torch.nn.Linear(80, 96, bias=False)
    optimizer = create(name, layer, lr=1e-3)
    optimizer.step(lambda: layer(torch.ones(1, 80)).sum())
    assert state_bytes(name, [(96, 80)]) == optimizer.base.state_bytes()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    config = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 4, "vocab_size": 100, "architectures": ["LlamaForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for arguments, expected in ((["list"], "Loshchilov"), (["memory", str(tmp_path)], "bytes per parameter")):
        with pytest.raises(SystemExit) as stop:
            main(["optim", *arguments])
        assert stop.value.code == 0
        assert expected in capsys.readouterr().out
