"""Names of ready-made codecs."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from gramcore.quant.base import Codec
from gramcore.quant.billm import BiLLM
from gramcore.quant.bipolar import BipolarInt
from gramcore.quant.dgq import DGQ
from gramcore.quant.finequant import FineQuant
from gramcore.quant.fp8 import Fp8
from gramcore.quant.gptq import GPTQ
from gramcore.quant.integer import IntCodec
from gramcore.quant.nupes import PowerCodec

__all__ = ["resolve", "scheme_names"]


def _integers() -> dict[str, Callable[[], Codec]]:
    def row(bits: int, group: int | None, symmetric: bool) -> Callable[[], Codec]:
        return lambda: IntCodec(bits=bits, group_size=group, symmetric=symmetric)

    table = {"int8": row(8, None, True), "int8_g32": row(8, 32, True)}
    for bits in (6, 5, 4, 3, 2):
        for group in (32, 64, 128):
            table[f"int{bits}_g{group}"] = row(bits, group, True)
            table[f"int{bits}_g{group}_asym"] = row(bits, group, False)
    return table


def _bipolar(bits: int, activation_bits: int) -> Callable[[], Codec]:
    return lambda: BipolarInt(bits=bits, activation_bits=activation_bits)


def _compensated(bits: int) -> Callable[[], Codec]:
    return lambda: GPTQ(bits=bits)


_SCHEMES: dict[str, Callable[[], Codec]] = {
    **_integers(),
    "finequant": FineQuant,
    "dgq": DGQ,
    **{f"gptq{bits}": _compensated(bits) for bits in (4, 3, 2)},
    "billm": BiLLM,
    "nupes4": lambda: PowerCodec(bits=4, steps=4),
    "nupes8": lambda: PowerCodec(bits=8, group_size=None),
    **{f"bipolar_w{w}a{a}": _bipolar(w, a) for w in range(1, 9) for a in range(8, 0, -1)},
    "fp8_e4m3": Fp8,
    "fp8_e5m2": lambda: Fp8(fmt="e5m2"),
}


#: How the names are formed, for messages: the whole list has more than a hundred.
_FAMILIES = (
    "int8, int8_g32, int2 to int6 with _g32, _g64 or _g128 and, with minima, _asym, finequant, dgq, gptq2 to gptq4, "
    "billm, nupes4, nupes8, bipolar_w1a1 to bipolar_w8a8, fp8_e4m3, fp8_e5m2"
)


def scheme_names() -> tuple[str, ...]:
    """Every name :func:`gramcore.quant.quantize_` accepts."""
    return tuple(_SCHEMES)


def resolve(scheme: str | Codec) -> Codec:
    """The codec itself, or the one of that name.

    Raises:
        ValueError: unknown name; the message says how names are formed and which are near.
        TypeError: neither a name nor a codec.
    """
    if isinstance(scheme, Codec):
        return scheme
    if not isinstance(scheme, str):
        raise TypeError(f"scheme must be a codec or a name, got {type(scheme).__name__}")
    if scheme not in _SCHEMES:
        low = scheme.lower()
        near = [name for name in _SCHEMES if low and name.startswith(low)] or difflib.get_close_matches(low, _SCHEMES)
        hint = f"; did you mean {', '.join(near[:3])}?" if near else ""
        raise ValueError(f"scheme must be one of {_FAMILIES} (scheme_names() lists all), got {scheme!r}{hint}")
    return _SCHEMES[scheme]()
