"""The two protocols of the family: a :class:`Codec` turns a weight into a :class:`QTensor`; :func:`linear` uses it."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from gramcore._checks import check_choice
from gramcore.errors import FormatError

__all__ = ["ACTIVATIONS", "Codec", "QTensor", "check_inputs", "check_weight", "linear", "restore"]

#: How products treat activations.
ACTIVATIONS = ("int8", "float32")
_KINDS: dict[str, type[QTensor]] = {}


class QTensor(abc.ABC):
    """An immutable quantised weight of shape ``(N, K)``: plain buffers and a few numbers.

    Subclasses set ``kind`` (the name under which files know them) and ``version`` (of their buffers' meaning).
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    shape: tuple[int, int]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            _KINDS[cls.kind] = cls

    @abc.abstractmethod
    def buffers(self) -> dict[str, torch.Tensor]:
        """The tensors that hold the weight, by name."""

    @abc.abstractmethod
    def meta(self) -> dict[str, Any]:
        """What is needed besides the buffers, as JSON values."""

    @classmethod
    @abc.abstractmethod
    def from_buffers(cls, meta: Mapping[str, Any], buffers: Mapping[str, torch.Tensor]) -> QTensor:
        """The inverse of :meth:`buffers` and :meth:`meta`; checks both."""

    @abc.abstractmethod
    def dequantize(self) -> torch.Tensor:
        """fp32 values ``(N, K)``."""

    @abc.abstractmethod
    def matmul(self, x: torch.Tensor, bias: torch.Tensor | None, activations: str) -> torch.Tensor:
        """``x @ W.T + bias`` for checked ``x`` ``(..., K)``; differentiable in ``x`` and ``bias``."""

    def stored_bytes(self) -> int:
        """Bytes of all buffers: what the weight really occupies."""
        return sum(b.numel() * b.element_size() for b in self.buffers().values())

    def bits_per_weight(self) -> float:
        """Stored bits divided by ``N * K``, scales and padding included."""
        return 8.0 * self.stored_bytes() / (self.shape[0] * self.shape[1])


class Codec(abc.ABC):
    """A way to quantise: hyper-parameters only; the same codec serves any number of weights."""

    #: whether :meth:`quantize` needs activations
    needs_inputs: ClassVar[bool] = False

    @abc.abstractmethod
    def quantize(self, weight: torch.Tensor, inputs: torch.Tensor | None = None) -> QTensor:
        """Quantise ``weight`` ``(N, K)``; ``inputs`` ``(T, K)`` are sample activations for calibrated codecs."""


def linear(
    x: torch.Tensor, weight: QTensor, bias: torch.Tensor | None = None, *, activations: str = "int8"
) -> torch.Tensor:
    """``x @ dequantize(weight).T + bias`` computed from the packed form.

    Args:
        x: ``(..., K)``, float32, bfloat16 or float16.
        weight: a quantised ``(N, K)`` matrix.
        bias: ``(N,)`` or None.
        activations: ``"int8"`` rounds x to 8 bits in blocks of 32 columns (fastest); ``"float32"`` does not, for
            results that must not jump when the last bits of x change, as in lossless speculation on a float model.

    Returns:
        ``(..., N)`` in the dtype of ``x``.

    Raises:
        ValueError: sizes do not match.
        TypeError: dtype of ``x`` is not a floating-point type.

    Example:
        >>> import torch
        >>> from gramcore.quant import IntCodec, linear
        >>> weight = IntCodec(bits=4).quantize(torch.eye(32))
        >>> linear(torch.ones(1, 32), weight).round().unique().tolist()
        [1.0]
    """
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise TypeError(f"x must be float32, bfloat16 or float16, got {x.dtype}")
    if x.dim() == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x must have {weight.shape[1]} columns, got shape {tuple(x.shape)}")
    return weight.matmul(x, bias, check_choice("activations", activations, ACTIVATIONS))


def check_weight(weight: torch.Tensor) -> torch.Tensor:
    """A finite two-dimensional floating-point weight as contiguous fp32 on the CPU."""
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
        raise TypeError(
            f"weight must be a floating-point tensor, got {getattr(weight, 'dtype', type(weight).__name__)}"
        )
    if weight.dim() != 2 or 0 in weight.shape:
        raise ValueError(f"weight must be a non-empty matrix (N, K), got shape {tuple(weight.shape)}")
    if weight.device.type != "cpu":
        raise ValueError(f"weight must be on the CPU, got {weight.device}; move it with .cpu()")
    w = weight.detach().to(torch.float32).contiguous()
    if not bool(torch.isfinite(w).all()):
        bad = (~torch.isfinite(w)).nonzero()[0].tolist()
        raise ValueError(f"weight must be finite, got {float(w[bad[0], bad[1]])} at row {bad[0]}, column {bad[1]}")
    return w


def check_inputs(inputs: torch.Tensor | None, columns: int) -> torch.Tensor:
    """Sample activations ``(T, columns)`` as finite fp32 on the CPU."""
    if inputs is None:
        raise ValueError("inputs must be given for a calibrated codec, got None; pass sample activations (T, K)")
    if not inputs.is_floating_point() or inputs.dim() != 2 or inputs.shape[1] != columns or inputs.shape[0] == 0:
        raise ValueError(f"inputs must have {columns} columns and at least one row, got shape {tuple(inputs.shape)}")
    x = inputs.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(x).all()):
        raise ValueError("inputs must be finite, got NaN or infinity; check the calibration text")
    return x


def restore(meta: Mapping[str, Any], buffers: Mapping[str, torch.Tensor]) -> QTensor:
    """A quantised tensor from its saved form; ``meta`` is hostile until checked.

    Raises:
        FormatError: unknown kind or version, or buffers that do not fit.
    """
    kind, version = meta.get("kind"), meta.get("version")
    cls = _KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise FormatError(f"kind of a quantised tensor must be one of {', '.join(sorted(_KINDS))}, got {kind!r}")
    if version != cls.version:
        raise FormatError(f"version of {kind} tensors must be {cls.version}, got {version!r}; save the model again")
    try:
        return cls.from_buffers(meta, buffers)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise FormatError(f"quantised tensor of kind {kind} must be whole, got {error}") from error
