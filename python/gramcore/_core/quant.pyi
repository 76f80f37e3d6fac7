"""
Packed low-bit weights.
"""
from __future__ import annotations
import typing
__all__: list[str] = ['PackSpec', 'linear', 'pack', 'unpack']
class PackSpec:
    """
    Shape and format of a packed weight (N, K).
    """
    def __init__(self, n: typing.SupportsInt | typing.SupportsIndex, k: typing.SupportsInt | typing.SupportsIndex, bits: typing.SupportsInt | typing.SupportsIndex, group: typing.SupportsInt | typing.SupportsIndex, zero: typing.SupportsInt | typing.SupportsIndex, has_min: bool, scale_f32: bool) -> None:
        ...
    @property
    def groups(self) -> int:
        ...
    @property
    def packed_bytes(self) -> int:
        ...
def linear(spec: PackSpec, packed: typing.Any, x: typing.Any, bias: typing.Any | None, y: typing.Any, int8_activations: bool) -> None:
    ...
def pack(spec: PackSpec, codes: typing.Any, scales: typing.Any, mins: typing.Any | None, packed: typing.Any) -> None:
    ...
def unpack(spec: PackSpec, packed: typing.Any, codes: typing.Any, scales: typing.Any, mins: typing.Any | None) -> None:
    ...
