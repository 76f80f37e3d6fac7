"""Slow, obvious twins of the optimizers, from the papers: one function per rule, on NumPy arrays of any float type.

``step(p, g, state, t, **numbers)`` returns the new parameter and changes ``state`` (a dict of arrays) in place.
The arrays' dtype decides the precision: float64 is the oracle, float32 the naive twin of the same type.
"""

from __future__ import annotations

from tests.reference.optim.codes import (
    LINEAR_4BIT,
    SIGNED_4BIT,
    bf16_stochastic,
    dynamic_map,
    gaussian,
    philox,
    rank1_codes,
    rank1_values,
    requantise,
    rounding_bits,
    rounding_word,
)
from tests.reference.optim.matrices import adafactor, adam_mini, came, cosmos, factor_4bit, mkor_factor
from tests.reference.optim.projected import apollo, apollo_mini, fira, frugal, galore, gradnorm_lorp, grass, gwt
from tests.reference.optim.rules import adamw, adamw_scale, grams, lion, sgd, sophia

__all__ = [
    "LINEAR_4BIT",
    "SIGNED_4BIT",
    "adafactor",
    "adam_mini",
    "adamw",
    "adamw_scale",
    "apollo",
    "apollo_mini",
    "bf16_stochastic",
    "came",
    "cosmos",
    "dynamic_map",
    "factor_4bit",
    "fira",
    "frugal",
    "galore",
    "gaussian",
    "gradnorm_lorp",
    "grams",
    "grass",
    "gwt",
    "lion",
    "mkor_factor",
    "philox",
    "rank1_codes",
    "rank1_values",
    "requantise",
    "rounding_bits",
    "rounding_word",
    "sgd",
    "sophia",
]
