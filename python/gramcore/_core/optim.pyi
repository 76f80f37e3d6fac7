"""
Step engine of the optimizers.
"""
from __future__ import annotations
import collections.abc
import typing
__all__: list[str] = ['Noise', 'step', 'sum_squares']
class Noise:
    """
    Directions of a zeroth-order step: the sum over draws (id, amount) of amount times standard normal values that are a function of (seed, id, parameter, element).
    """
    def __init__(self, seed: typing.SupportsInt | typing.SupportsIndex, draws: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex]], keep: typing.SupportsFloat | typing.SupportsIndex = 1.0) -> None:
        ...
def step(rule: str, hyper: collections.abc.Mapping[str, typing.SupportsFloat | typing.SupportsIndex], params: typing.Any, grads: typing.Any, slots: collections.abc.Sequence[typing.Any], steps: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], ids: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], scales: collections.abc.Sequence[typing.Any] = [], remainders: typing.Any = None, lr_scales: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] = [], stochastic: bool = False, seed: typing.SupportsInt | typing.SupportsIndex = 0, zero_grad: bool = False, noise: Noise | None = None) -> None:
    """
    One step of `rule` over lists of CPU tensors, in place.
    """
def sum_squares(tensors: typing.Any) -> float:
    """
    Sum of squares of a list of CPU tensors; infinite or NaN when an element is.
    """
