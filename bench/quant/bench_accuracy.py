"""What schemes cost the packaged SmolLM2-135M: KL divergence from fp32 on held-out text, beside ggml's formats.

The file is already in 4 bits, so its weights are first moved off that grid: uniform noise of one step of Q4_1 is added,
and the noisy model is the original that everything is compared with.  All linear layers but the head are quantised.
Text is Python's own manual (pydoc topics): its beginning calibrates, its end is measured.  ggml's formats are expanded
to fp32 (rows are joined, as 576 columns are no whole blocks of 256) and do not round activations; ours round them to
int8.  Nothing is timed; figures compare methods on this model only.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from gramcore.model import load
from gramcore.quant import compare, quantize_, sample_texts
from gramcore.quant.schemes import resolve

from bench.harness import Bench

WINDOW, CALIBRATION, TOKENS = 512, 4096, 2048
GGML = ("Q4_K", "Q4_0", "Q3_K", "Q2_K")
SCHEMES = (
    *("int8", "int8_g32", "int6_g64_asym", "int5_g64_asym", "int4_g32", "int4_g64_asym", "int4_g32_asym", "finequant"),
    *("nupes4", "bipolar_w4a8", "fp8_e4m3", "dgq", "gptq4", "gptq3", "gptq2", "int3_g64_asym", "billm", "bipolar_w1a8"),
)
SELF = ("gptq4",)  # also calibrated on samples of the model


def run(bench: Bench) -> None:
    model, tokenizer = load("smollm2", bits=32)
    ids = _text(tokenizer)
    _leave_the_grid(model)
    pieces = [ids[i : i + WINDOW].unsqueeze(0) for i in range(0, CALIBRATION, WINDOW)]
    held_out = ids[-TOKENS:]

    def say(name: str, change: Callable[[Any], float]) -> None:
        changed = copy.deepcopy(model)
        bits = change(changed)
        d = compare(changed, model, held_out, window=WINDOW)
        bench.note(
            f"{name:<32} {bits:5.2f} bits  KL {d.kl:.4f}  perplexity {d.reference_perplexity:.2f} -> "
            f"{d.perplexity:.2f}  same top token {100 * d.agreement_frac:.1f} %"
        )

    def scheme(name: str, batches: list[torch.Tensor] | None) -> Callable[[Any], float]:
        return lambda m: quantize_(m, name, calibration=batches, progress=False).bits_per_weight

    for kind in GGML:
        say(f"ggml {kind}", functools.partial(_through_ggml, kind=kind))
    for name in SCHEMES:
        say(name, scheme(name, pieces if resolve(name).needs_inputs else None))
    own = sample_texts(model)
    for name in SELF:
        say(f"{name}, own samples", scheme(name, own))


def _text(tokenizer: Any) -> torch.Tensor:
    from pydoc_data.topics import topics

    return torch.tensor(tokenizer("\n".join(topics[key] for key in sorted(topics)))["input_ids"])


def _layers(model: Any) -> list[torch.nn.Linear]:
    return [m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]


def _leave_the_grid(model: Any) -> None:
    draws = torch.Generator().manual_seed(0)
    for layer in _layers(model):
        groups = layer.weight.data.reshape(layer.out_features, -1, 32)
        step = (groups.amax(2, keepdim=True) - groups.amin(2, keepdim=True)) / 15
        noisy = groups + step * (torch.rand(groups.shape, generator=draws) - 0.5)
        layer.weight.data = noisy.reshape(layer.weight.shape)


def _through_ggml(model: Any, kind: str) -> float:
    """Weights as the format keeps them; returns its bits per weight."""
    from gguf import GGMLQuantizationType, quants

    from bench.quant.ggml import TYPES, ggml_quantize

    stored = weights = 0
    for layer in _layers(model):
        data = ggml_quantize(layer.weight.data.reshape(1, -1), kind)
        values = quants.dequantize(data, GGMLQuantizationType(TYPES[kind]))
        layer.weight.data = torch.from_numpy(values.reshape(layer.weight.shape).copy())
        stored, weights = stored + data.size, weights + layer.weight.numel()
    return 8 * stored / weights
