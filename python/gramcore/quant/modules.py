"""Modules over quantised weights, and :func:`quantize_`, which puts them into a model."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from gramcore._checks import check_choice
from gramcore.quant.base import ACTIVATIONS, Codec, QTensor, linear, restore
from gramcore.quant.packed import PackedTensor
from gramcore.quant.schemes import resolve
from gramcore.quant.table import TableTensor

__all__ = ["LayerReport", "QuantEmbedding", "QuantLinear", "QuantReport", "quantize_"]


class _Quantised(nn.Module):
    """Holds a :class:`QTensor`: its buffers are this module's, so ``state_dict`` and ``to`` see them."""

    def __init__(self, weight: QTensor) -> None:
        super().__init__()
        self._kind = type(weight)
        self._meta = weight.meta()
        for name, value in weight.buffers().items():
            self.register_buffer(name, value)
        self._names = tuple(weight.buffers())
        self._qweight: QTensor | None = weight

    @property
    def qweight(self) -> QTensor:
        """The quantised weight over this module's present buffers."""
        current = {name: getattr(self, name) for name in self._names}
        if self._qweight is None or any(value is not current[name] for name, value in self._qweight.buffers().items()):
            self._qweight = restore(self._meta, current)
        return self._qweight

    def get_extra_state(self) -> torch.Tensor:
        """What the buffers mean, as JSON in a tensor of bytes: a state of tensors alone suits every file format."""
        return torch.frombuffer(bytearray(json.dumps(self._meta, sort_keys=True).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: torch.Tensor) -> None:
        if not torch.equal(state.cpu(), self.get_extra_state()):
            raise ValueError(f"state must be of a layer quantised alike ({self._meta}), got {_shown(state)}")


def _shown(state: torch.Tensor) -> str:
    return bytes(state.to("cpu", torch.uint8).flatten().tolist()).decode(errors="replace")


class QuantLinear(_Quantised):
    """``y = x W^T + bias`` with a quantised ``W``: takes the place of ``nn.Linear``; gradients flow to ``x`` and bias.

    Args:
        weight: the quantised ``(N, K)`` matrix.
        bias: ``(N,)`` or None.
        activations: ``"int8"`` or ``"float32"``, see :func:`gramcore.quant.linear`.

    Example:
        >>> import torch
        >>> from gramcore.quant import IntCodec, QuantLinear
        >>> layer = QuantLinear(IntCodec(bits=8).quantize(torch.eye(4)))
        >>> layer(torch.ones(2, 4)).shape
        torch.Size([2, 4])
    """

    def __init__(self, weight: QTensor, bias: torch.Tensor | None = None, *, activations: str = "int8") -> None:
        super().__init__(weight)
        self.activations = check_choice("activations", activations, ACTIVATIONS)
        self.out_features, self.in_features = weight.shape
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    @classmethod
    def from_linear(
        cls, module: nn.Linear, codec: Codec, inputs: torch.Tensor | None = None, *, activations: str = "int8"
    ) -> QuantLinear:
        """Quantise the weight of ``module``; its bias is kept."""
        return cls(codec.quantize(module.weight, inputs), module.bias, activations=activations)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.qweight, self.bias, activations=self.activations)

    def extra_repr(self) -> str:
        bits = self.qweight.bits_per_weight()
        return f"in={self.in_features}, out={self.out_features}, {self._meta['kind']}, {bits:.2f} bits per weight"


class QuantEmbedding(_Quantised):
    """Rows of a packed table by id: takes the place of ``nn.Embedding``; may share its bytes with a head.

    Args:
        weight: the packed ``(V, D)`` table.
        dtype: of the rows it returns.
    """

    def __init__(self, weight: PackedTensor | TableTensor, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(weight)
        self.num_embeddings, self.embedding_dim = weight.shape
        self.dtype = dtype

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        table = self.qweight
        assert isinstance(table, PackedTensor | TableTensor)
        return table.rows(ids.to(torch.int64)).to(self.dtype)


@dataclass(frozen=True)
class LayerReport:
    """One layer: its name, shape, stored bits per weight and relative RMS error of its weight."""

    name: str
    shape: tuple[int, int]
    bits_per_weight: float
    error: float
    stored_bytes: int


@dataclass
class QuantReport:
    """Result of :func:`quantize_`: what was quantised, how well, and what was left alone."""

    layers: list[LayerReport] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight over all quantised layers."""
        weights = sum(r.shape[0] * r.shape[1] for r in self.layers)
        return 8.0 * sum(r.stored_bytes for r in self.layers) / max(1, weights)

    @property
    def error(self) -> float:
        """Relative RMS weight error, layers weighted by size."""
        weights = sum(r.shape[0] * r.shape[1] for r in self.layers)
        total = sum(r.error**2 * r.shape[0] * r.shape[1] for r in self.layers)
        return float((total / max(1, weights)) ** 0.5)

    def __str__(self) -> str:
        lines = [
            f"{r.name:<48} {r.shape[0]:>6}x{r.shape[1]:<6} {r.bits_per_weight:6.2f} bits  error {r.error:.4f}"
            for r in self.layers
        ]
        total = f"{len(self.layers)} layers, {self.bits_per_weight:.2f} bits per weight, error {self.error:.4f}"
        return "\n".join([*lines, total, *(f"left alone: {name}" for name in self.skipped)])


def quantize_(
    model: nn.Module,
    scheme: str | Codec,
    *,
    calibration: Iterable[Any] | Callable[[nn.Module], None] | None = None,
    skip: Iterable[str] = ("lm_head",),
    overrides: Mapping[str, str | Codec] | None = None,
    activations: str = "int8",
    progress: bool = True,
) -> QuantReport:
    """Replace every ``nn.Linear`` of ``model`` by a :class:`QuantLinear`, in place.

    Layers are prepared one by one and put in place at the end: when anything fails (a weight that is not finite, not
    enough memory), the model is as it was.

    Args:
        model: any module with ``nn.Linear`` inside, transformers models included.
        scheme: a codec or the name of one, see :func:`gramcore.quant.scheme_names`.
        calibration: for codecs that need activations: batches (tensors of token ids, or dicts of keyword arguments)
            to run through the model, or a function that runs them.
        skip: names, or dotted tails or parts of names, of layers to leave alone.
        overrides: name (as in ``skip``) -> scheme for particular layers; the first match counts.
        activations: ``"int8"`` or ``"float32"``, see :func:`gramcore.quant.linear`.
        progress: show a progress bar.

    Returns:
        A report: stored bits and weight error per layer.

    Raises:
        ValueError: unknown scheme, nothing to quantise, calibration missing, weights that are not finite.

    Example:
        >>> import torch
        >>> from gramcore.quant import quantize_
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
        >>> report = quantize_(model, "int8", progress=False)
        >>> len(report.layers), round(report.bits_per_weight, 1) < 10
        (2, True)
    """
    from gramcore.quant.calibrate import collect_inputs

    codec = resolve(scheme)
    special = [(name, resolve(value)) for name, value in (overrides or {}).items()]
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    skipped = [name for name in layers if any(_matches(name, s) for s in skip)]
    plan = {
        name: next((c for key, c in special if _matches(name, key)), codec) for name in layers if name not in skipped
    }
    if not plan:
        raise ValueError(f"model must have nn.Linear layers outside skip, got {len(layers)} of them, all skipped")
    wanted = [name for name, c in plan.items() if c.needs_inputs]
    if wanted and calibration is None:
        raise ValueError(f"calibration must be given for {type(plan[wanted[0]]).__name__}, got None; pass token ids")
    inputs = collect_inputs(model, {n: layers[n] for n in wanted}, calibration) if wanted else {}
    report = QuantReport(skipped=skipped)
    ready: dict[str, QuantLinear] = {}
    for name, c in tqdm(plan.items(), desc="quantising", disable=not progress, leave=False):
        ready[name] = QuantLinear.from_linear(layers[name], c, inputs.pop(name, None), activations=activations)
        report.layers.append(_layer_report(name, layers[name].weight, ready[name].qweight))
    for name, module in ready.items():
        model.set_submodule(name, module.train(layers[name].training))
    _mark(model, scheme)
    return report


def _mark(model: nn.Module, scheme: str | Codec) -> None:
    """Where transformers is loaded, its models learn how to save themselves."""
    transformers = sys.modules.get("transformers")
    if transformers is not None and isinstance(model, transformers.PreTrainedModel):
        from gramcore.quant.pretrained import mark

        mark(model, scheme if isinstance(scheme, str) else None)


def _layer_report(name: str, weight: torch.Tensor, q: QTensor) -> LayerReport:
    w = weight.detach().float()
    norm = float(w.norm())
    error = float((q.dequantize() - w).norm()) / norm if norm else 0.0
    return LayerReport(name, q.shape, q.bits_per_weight(), error, q.stored_bytes())


def _matches(name: str, pattern: str) -> bool:
    return f".{pattern}." in f".{name}."
