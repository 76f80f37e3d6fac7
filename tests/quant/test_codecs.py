"""The papers' codecs against slow twins, files, evaluation and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gramcore.cli import main
from gramcore.errors import FormatError
from gramcore.quant import (
    DGQ,
    BiLLM,
    BipolarInt,
    Codec,
    FineQuant,
    Fp8,
    Fp8Linear,
    IntCodec,
    PowerCodec,
    QuantEmbedding,
    QuantLinear,
    compare,
    fp8_round,
    linear,
    load_quantized_,
    perplexity,
    quantize_,
    save_quantized,
)
from gramcore.quant.base import restore
from torch import nn

from tests.reference.quant import bipolar_values, fp8_values, power_error, write_model


def gaussian(n: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", range(2, 9))
def test_bipolar_codes_are_the_nearest_odd_multiples(bits: int) -> None:
    w = gaussian(9, 70)
    q = BipolarInt(bits=bits).quantize(w)
    values = np.array(bipolar_values(bits), dtype=np.float64)
    dense, (_, double_step, _) = q.dequantize().double().numpy(), q.unpack()
    for row in range(9):
        for column in range(70):
            step = float(double_step[row, column // 32]) / 2
            nearest = np.abs(float(w[row, column]) - step * values).min()
            assert np.abs(values - dense[row, column] / step).min() < 1e-3
            assert abs(float(w[row, column]) - dense[row, column]) <= nearest + 1e-5


def test_one_bipolar_bit_is_the_sign_times_the_mean_magnitude() -> None:
    w = gaussian(9, 70)
    dense = BipolarInt(bits=1).quantize(w).dequantize()
    assert torch.equal(dense >= 0, w >= 0)
    for first in (0, 32, 64):
        want = w[:, first : first + 32].abs().mean(1)
        torch.testing.assert_close(dense[:, first : first + 32].abs().mean(1), want, rtol=1e-3, atol=0)
    zeros = BipolarInt(bits=1).quantize(torch.zeros(2, 40)).dequantize()
    assert torch.equal(zeros, torch.zeros(2, 40))


def test_fp8_rounding_is_the_nearest_value_of_the_format() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(3000) * 10.0 ** rng.integers(-8, 6, 3000)).astype(np.float32)
    for fmt in ("e4m3", "e5m2"):
        values = fp8_values(fmt)
        x_all = np.concatenate([x, values.astype(np.float32), [0.0, 1e9, -1e9]]).astype(np.float32)
        got = fp8_round(torch.from_numpy(x_all), fmt).numpy().astype(np.float64)
        clipped = np.clip(x_all.astype(np.float64), values[0], values[-1])
        best = np.abs(clipped[:, None] - values[None, :]).min(axis=1)
        np.testing.assert_allclose(np.abs(got - clipped), best, rtol=1e-6, atol=1e-12)
    dtype = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
    for fmt, kind in dtype.items():  # ties to even: torch's own cast
        inside = torch.from_numpy(x).clamp(-400, 400)
        assert torch.equal(fp8_round(inside, fmt), inside.to(kind).float())


def test_stochastic_rounding_is_unbiased() -> None:
    # 40,000 draws per value: the mean's standard deviation is step * 0.5 / 200; 5 of them: false alarm < 1e-5 in all.
    for value, step in ((1.03, 0.125), (3.9, 0.25), (-0.017, 2.0**-9)):
        x = torch.full((40_000,), value)
        got = fp8_round(x, stochastic=True, generator=torch.Generator().manual_seed(1))
        assert abs(float(got.double().mean()) - value) < 5 * step * 0.5 / 200 + 1e-6
        assert len(got.unique()) == 2


def test_fp8_training_follows_fp32_and_counts_its_losses() -> None:
    torch.manual_seed(0)
    x, target = torch.randn(256, 16), torch.randn(256, 4)
    losses = []
    for make in (nn.Linear, Fp8Linear):
        torch.manual_seed(1)
        layer = make(16, 4)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        for _ in range(50):
            optimizer.zero_grad()
            loss = (layer(x) - target).square().mean()
            loss.backward()
            optimizer.step()
        losses.append(float(loss.detach()))
    assert abs(losses[1] - losses[0]) < 0.02 * losses[0]
    stats = layer.stats
    assert stats.steps == 50
    assert 0 < stats.input_error < 0.04
    assert 0 < stats.weight_error < 0.04
    assert 0 < stats.grad_error < 0.08
    assert 0 <= stats.grad_underflow_frac < 0.01


def test_fp8_layers_count_gradients_that_vanish_and_no_zeros() -> None:
    layer = Fp8Linear(2, 4)
    layer(torch.ones(1, 2)).backward(torch.tensor([[1.0, 0.0, 1e-12, 0.5]]))  # e5m2 reaches 2^-32 of its largest
    assert layer.stats.grad_underflow_frac == 0.25
    layer(torch.ones(1, 2)).backward(torch.ones(1, 4))
    assert layer.stats.grad_underflow_frac == 0.125  # the mean over steps


def test_finequant_cuts_groups_only_where_ranges_vary() -> None:
    smooth = torch.ones(8, 512)
    spiky = gaussian(8, 512)
    spiky[:, ::97] *= 40
    assert FineQuant().group_size(smooth) is None
    assert FineQuant().group_size(spiky) == 32
    coarse = IntCodec(bits=4, group_size=None).quantize(spiky).dequantize()
    fine = FineQuant().quantize(spiky).dequantize()
    assert (fine - spiky).norm() < 0.8 * (coarse - spiky).norm()


def test_dgq_weights_are_int8_multiples_of_a_channel_scale() -> None:
    # Weights so small that scales stay in fp32.
    w, x = 1e-3 * gaussian(12, 300), gaussian(64, 300, 1)
    q = DGQ(group_size=64, smoothing=0).quantize(w, x)
    codes, scales, mins = q.unpack()
    for row in range(12):
        # scales are integer multiples 1 .. 127 of one number per row: find it among scale / k
        smallest = float(scales[row].min())
        fits = [
            s
            for k in range(1, 128)
            if (s := smallest / k) > 0
            and all(abs(float(v) / s - round(float(v) / s)) < 1e-3 for v in scales[row])
            and float((q.dequantize()[row].abs() / s).max()) <= 127.01
        ]
        assert fits
        zero = -mins[row] / scales[row]
        assert torch.allclose(zero, zero.round(), atol=1e-3)
    assert int(codes.max()) <= 15


def test_dgq_output_error_is_below_plain_rounding_for_uneven_inputs() -> None:
    w, x = gaussian(32, 256), gaussian(400, 256, 1)
    x[:, ::16] *= 4
    exact = x @ w.T
    error = {
        name: float((x @ q.dequantize().T - exact).norm())
        for name, q in (
            ("dgq", DGQ(group_size=128, smoothing=0).quantize(w, x)),
            ("smooth", DGQ(group_size=128).quantize(w, x)),
            ("rtn", IntCodec(bits=4, group_size=128, symmetric=False).quantize(w)),
        )
    }
    assert error["smooth"] < error["dgq"] < error["rtn"]


def test_smoothed_weights_divide_their_inputs() -> None:
    w, x = gaussian(20, 100), gaussian(200, 100, 1)
    x[:, 3] = 0
    x[:, 40:] *= 5
    q = DGQ().quantize(w, x)
    size = x.abs().mean(0)
    want = q.buffers()["inverse"]
    powers = [(size / size.mean()).clamp_min(0.01) ** -a for a in (0.25, 0.5)]
    assert any(torch.allclose(want, p) for p in powers)
    unsmoothed = DGQ(smoothing=0).quantize(w / want, x * want)
    assert torch.equal(q.dequantize(), unsmoothed.dequantize() * want)
    assert torch.equal(linear(x, q), linear(x * want, unsmoothed))
    assert isinstance(DGQ().quantize(w, torch.zeros(3, 100)).dequantize(), torch.Tensor)
    with pytest.raises(FormatError, match="inverse must be 100 float32 values"):
        restore(q.meta(), {**q.buffers(), "inverse": torch.ones(99)})


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.embed = nn.Embedding(50, 32)
        self.body = nn.Linear(32, 32)
        self.norm = nn.LayerNorm(32)
        self.lm_head = nn.Linear(32, 50, bias=False)

    def forward(self, ids: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.lm_head(self.norm(self.body(self.embed(ids)))))


IDS = torch.arange(40) * 7 % 50


@pytest.mark.parametrize("scheme", ["int4_g32", "int8", "fp8_e4m3", "finequant", "dgq"])
def test_files_bring_back_the_same_model(scheme: str, tmp_path: Path) -> None:
    model, path = Tiny(), tmp_path / "m.safetensors"
    quantize_(model, scheme, calibration=[IDS.unsqueeze(0)], progress=False)
    save_quantized(model, path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    again = Tiny()
    for p in again.parameters():
        p.data.zero_()
    load_quantized_(again, path)
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    assert type(again.body) is QuantLinear


@pytest.mark.parametrize("codec", [IntCodec(bits=8), Fp8()], ids=["int8", "fp8"])
def test_shared_tables_are_stored_once(codec: Codec, tmp_path: Path) -> None:
    model = Tiny()
    table = codec.quantize(model.lm_head.weight)
    model.embed, model.lm_head = QuantEmbedding(table), QuantLinear(table, activations="float32")
    save_quantized(model, tmp_path / "m")
    assert (tmp_path / "m").stat().st_size < table.stored_bytes() + 4 * 32 * 40 + 3000
    again = Tiny()
    load_quantized_(again, tmp_path / "m")
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    assert again.lm_head.activations == "float32"


def test_hostile_files_are_refused_and_leave_the_model_alone(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model, path = Tiny(), tmp_path / "m"
    quantize_(model, "int4_g32", progress=False)
    save_quantized(model, path)
    raw, tensors = path.read_bytes(), load_file(path)
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])["__metadata__"]
    fresh = Tiny()
    before = {n: v.clone() for n, v in fresh.state_dict().items()}

    def refused(message: str) -> None:
        with pytest.raises(FormatError, match=message):
            load_quantized_(fresh, path)
        assert all(torch.equal(before[n], v) for n, v in fresh.state_dict().items())

    for length in (0, 4, 8, 100, size + 7, len(raw) - 1):
        path.write_bytes(raw[:length])
        refused("must be a whole safetensors file")
    layers = json.loads(header["layers"])
    for changed, message in (
        ({"version": "9"}, "version 1, got"),
        ({"format": "x"}, "format must be"),
        ({"layers": "{"}, "metadata must be whole"),
        ({"layers": "[]"}, "metadata must be whole"),
        ({"shared": '{"a": "b"}'}, "metadata must be whole"),
        ({"layers": json.dumps({"nowhere": layers["body"]})}, "layers must be those of this model"),
        ({"layers": json.dumps({"body": {**layers["body"], "module": "os"}})}, "module of a layer must be"),
    ):
        save_file(tensors, path, metadata={**header, **changed})
        refused(message)
    for field, value in (("n", 31), ("bits", 99), ("kind", "x"), ("version", 7), ("k", -5)):
        entry = {**layers["body"], "meta": {**layers["body"]["meta"], field: value}}
        save_file(tensors, path, metadata={**header, "layers": json.dumps({"body": entry})})
        refused("quantised tensor|version of packed|layer 'body'")
    save_file({n: t for n, t in tensors.items() if n != "norm.weight"}, path, metadata=header)
    refused("a difference at 'norm.weight'")
    with pytest.raises(FileNotFoundError, match="quantised model must exist"):
        load_quantized_(fresh, tmp_path / "none")


def test_perplexity_and_divergence_by_hand() -> None:
    model = Tiny().eval()
    with torch.no_grad():
        log_p = model(IDS[:20].unsqueeze(0)).logits[0].log_softmax(-1)
    expected = float(-log_p[torch.arange(19), IDS[1:20]].mean().exp().log())
    assert perplexity(model, IDS[:20]) == pytest.approx(np.exp(expected), rel=1e-5)
    d = compare(model, model, IDS, window=8)
    assert d.kl == pytest.approx(0, abs=1e-6)
    assert d.agreement_frac == 1
    assert d.num_tokens == 39
    assert d.perplexity == pytest.approx(d.reference_perplexity)
    with pytest.raises(ValueError, match="ids must be one sequence"):
        perplexity(model, IDS[:1])


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.model.test_load import tiny

    write_model(tmp_path / "m.gguf", tiny("Llama", False))
    (tmp_path / "t.txt").write_text("ab ba abab " * 40)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["quantize", *arguments])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    model, text, saved = str(tmp_path / "m.gguf"), str(tmp_path / "t.txt"), str(tmp_path / "q.safetensors")
    status, out, _ = run(model, "--scheme", "int8", "--text", text, "--out", saved)
    assert status == 0
    assert "perplexity" in out
    assert "14 layers" in out
    assert Path(saved).exists()
    assert run(model, "--scheme", "list")[1].startswith("int8")
    status, _, err = run(model, "--scheme", "dgq")
    assert status == 2
    assert "--text must be given" in err
    status, out, _ = run(model, "--scheme", "gptq4", "--self-calibrate", "--text", text, "--max-tokens", "160")
    assert status == 0
    assert "14 layers" in out
    status, _, err = run(model, "--scheme", "int9")
    assert status == 2
    assert "scheme must be one of" in err


def test_bad_arguments() -> None:
    for make, message in (
        (lambda: FineQuant(bits=3), "bits must be 4 or 8"),
        (lambda: FineQuant(alpha=1.0), "alpha must be in"),
        (lambda: DGQ(group_size=16), "group_size must be 32, 64 or 128"),
        (lambda: DGQ(smoothing=1.5), "smoothing must be in"),
        (lambda: BipolarInt(bits=9), "bits must be in"),
        (lambda: Fp8(fmt="e3m4"), "fmt must be one of e4m3, e5m2"),
        (lambda: fp8_round(torch.zeros(1), "e1"), "fmt must be one of"),
        (lambda: DGQ().quantize(torch.zeros(2, 64), torch.full((2, 64), float("nan"))), "inputs must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_power_exponent_is_near_the_best_of_a_grid() -> None:
    w = gaussian(6, 64)
    for bits in (3, 4, 8):
        q = PowerCodec(bits=bits, group_size=64).quantize(w)
        grid = [sum(power_error(row, bits, a) for row in w.numpy()) for a in np.linspace(0.2, 1, 81)]
        ours = float((q.dequantize() - w).double().square().sum())
        assert ours <= 1.1 * min(grid)
        assert ours == pytest.approx(sum(power_error(row, bits, q.exponent) for row in w.numpy()), rel=1e-3)


def test_power_scale_refinement_never_hurts() -> None:
    w = gaussian(16, 100)
    plain, refined = (PowerCodec(bits=3, steps=steps).quantize(w).dequantize() for steps in (0, 5))
    assert (refined - w).norm() <= (plain - w).norm()


def test_codec_arguments_of_power_and_binary() -> None:
    for make, message in (
        (lambda: PowerCodec(bits=9), "bits must be in"),
        (lambda: PowerCodec(group_size=16), "group_size must be 32, 64, 96, 128 or None"),
        (lambda: PowerCodec(steps=-1), "steps must be in"),
        (lambda: BiLLM(block=4), "block must be in"),
        (lambda: BiLLM(block=100), "block must be a multiple of 32"),
        (lambda: BiLLM(salient=16), "salient must be in"),
        (lambda: BiLLM(block=64, salient=64), "block - salient must be in"),
        (lambda: BiLLM(damping=0), "damping must be in"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
