"""
Step engine of the optimizers.
"""
from __future__ import annotations
import collections.abc
import typing
__all__: list[str] = ['Noise', 'factored_pass', 'step', 'sum_squares']
class Noise:
    """
    Directions of a zeroth-order step: the sum over draws (id, amount) of amount times standard normal values that are a function of (seed, id, parameter, element).
    """
    def __init__(self, seed: typing.SupportsInt | typing.SupportsIndex, draws: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex]], keep: typing.SupportsFloat | typing.SupportsIndex = 1.0) -> None:
        ...
def factored_pass(x: typing.Any, row_means: typing.Any, column_means: typing.Any, moment: typing.Any = None, row: typing.Any = None, column: typing.Any = None, scale: typing.SupportsFloat | typing.SupportsIndex = 1.0, weight: typing.SupportsFloat | typing.SupportsIndex = 0.0, eps: typing.SupportsFloat | typing.SupportsIndex = 0.0, residual: bool = False) -> None:
    """
    With u = scale x row column: moment += weight (u - moment), then row and column means of u^2 + eps, or of (u - moment)^2 + eps with `residual`.
    """
def step(rule: str, hyper: collections.abc.Mapping[str, typing.SupportsFloat | typing.SupportsIndex], params: typing.Any, grads: typing.Any, slots: collections.abc.Sequence[typing.Any], steps: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], ids: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], scales: collections.abc.Sequence[typing.Any] = [], remainders: typing.Any = None, lr_scales: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] = [], stochastic: bool = False, seed: typing.SupportsInt | typing.SupportsIndex = 0, zero_grad: bool = False, noise: Noise | None = None, row: typing.Any = None, column: typing.Any = None, storage: str = '') -> None:
    """
    One step of `rule` over lists of CPU tensors, in place.
    """
def sum_squares(tensors: typing.Any) -> float:
    """
    Sum of squares of a list of CPU tensors; infinite or NaN when an element is.
    """
