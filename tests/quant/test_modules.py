"""``quantize_`` and the modules it puts in place."""

from __future__ import annotations

import copy

import pytest
import torch
from gramcore.quant import IntCodec, QuantEmbedding, QuantLinear, quantize_, scheme_names
from gramcore.quant.schemes import resolve
from torch import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 64, bias=False))
        self.lm_head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lm_head(self.body(x))


def test_quantize_replaces_linear_layers_and_reports() -> None:
    model, x = Net(), torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
    before = model(x)
    report = quantize_(model, "int8", progress=False)
    assert [type(m) for m in model.body] == [QuantLinear, nn.ReLU, QuantLinear]
    assert type(model.lm_head) is nn.Linear
    assert report.skipped == ["lm_head"]
    assert [r.name for r in report.layers] == ["body.0", "body.2"]
    assert all(8 < r.bits_per_weight < 12 and r.error < 0.01 for r in report.layers)
    assert (model(x) - before).abs().max() < 0.05 * before.abs().max()
    assert "body.2" in str(report)
    assert "left alone: lm_head" in str(report)


def test_overrides_and_skip() -> None:
    model = Net()
    quantize_(model, "int4_g32", skip=("body.2",), overrides={"lm_head": IntCodec(bits=8)}, progress=False)
    assert type(model.body[2]) is nn.Linear
    assert model.lm_head.qweight.bits == 8
    assert model.body[0].qweight.bits == 4


def test_a_failure_leaves_the_model_as_it_was() -> None:
    model = Net()
    model.body[2].weight.data[3, 4] = float("inf")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="weight must be finite, got inf at row 3, column 4"):
        quantize_(model, "int4_g32", progress=False)
    assert type(model.body[0]) is nn.Linear
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_state_dict_round_trip() -> None:
    first, second = Net(), Net()
    for p in second.parameters():
        p.data.zero_()
    for model in (first, second):
        quantize_(model, "int4_g32_asym", progress=False)
    second.load_state_dict(first.state_dict())
    x = torch.randn(3, 64)
    assert torch.equal(first(x), second(x))
    other = Net()
    quantize_(other, "int8", progress=False)
    with pytest.raises((ValueError, RuntimeError)):
        other.load_state_dict(first.state_dict())


def test_embedding_returns_rows_and_shares_with_a_head() -> None:
    table = IntCodec(bits=8).quantize(torch.randn(30, 64))
    embedding, head = QuantEmbedding(table), QuantLinear(table)
    ids = torch.tensor([[1, 29], [0, 1]])
    assert torch.equal(embedding(ids), table.dequantize()[ids])
    assert embedding.packed.data_ptr() == head.packed.data_ptr()
    assert QuantEmbedding(table, torch.bfloat16)(ids).dtype == torch.bfloat16


def test_deepcopy_and_repr() -> None:
    layer = QuantLinear(IntCodec().quantize(torch.randn(16, 32)), torch.ones(16))
    again = copy.deepcopy(layer)
    x = torch.randn(2, 32)
    assert torch.equal(again(x), layer(x))
    assert "4.50 bits per weight" in repr(layer)


@pytest.mark.parametrize("name", scheme_names())
def test_every_scheme_name(name: str) -> None:
    codec = resolve(name)
    w = torch.randn(20, 128, generator=torch.Generator().manual_seed(2))
    q = codec.quantize(w, torch.randn(64, 128) if codec.needs_inputs else None)
    assert float((q.dequantize() - w).norm() / w.norm()) < 1.0


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"scheme must be one of int8, .* got 'int5'"):
        quantize_(Net(), "int5")
    with pytest.raises(TypeError, match="scheme must be a codec or a name"):
        quantize_(Net(), 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"model must have nn\.Linear layers"):
        quantize_(nn.ReLU(), "int8")
    with pytest.raises(ValueError, match="bits must be one of 2, 3, 4, 5, 6, 7, 8, got 9"):
        IntCodec(bits=9)
    with pytest.raises(ValueError, match="group_size must be 32, 64, 128 or None"):
        IntCodec(group_size=16)
    with pytest.raises(ValueError, match="symmetric must be True for 8 bits"):
        IntCodec(bits=8, symmetric=False)
    with pytest.raises(ValueError, match="search must be in"):
        IntCodec(search=-1)


def test_rounding_is_the_nearest_and_search_never_hurts() -> None:
    w = torch.randn(32, 128, generator=torch.Generator().manual_seed(3))
    for bits in (2, 3, 4):
        for symmetric in (True, False):
            plain = IntCodec(bits=bits, symmetric=symmetric).quantize(w)
            searched = IntCodec(bits=bits, symmetric=symmetric, search=20).quantize(w)
            assert (searched.dequantize() - w).norm() <= (plain.dequantize() - w).norm()
            if not symmetric:
                _, scales, _ = plain.unpack()
                half = 0.5 * scales.repeat_interleave(32, 1) + 2e-3 * w.abs().max()
                assert ((plain.dequantize() - w).abs() <= half).all()


def test_extreme_magnitudes_keep_their_precision() -> None:
    w = torch.randn(16, 64, generator=torch.Generator().manual_seed(4))
    for size in (1e-30, 1e-6, 1.0, 1e6, 1e30):
        q = IntCodec(bits=8).quantize(w * size)
        exact = (w * size).double()
        assert float((q.dequantize().double() - exact).norm() / exact.norm()) < 0.01
