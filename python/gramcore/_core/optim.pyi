"""
Step engine of the optimizers.
"""
from __future__ import annotations
import collections.abc
import typing
__all__: list[str] = ['Noise', 'PackedFactor', 'best_product', 'factored_pass', 'factored_step', 'haar_moments', 'haar_step', 'multiply', 'project_line', 'rule_norms', 'scaled_squares', 'step', 'step_blocks', 'step_columns', 'step_lifted', 'step_product', 'step_rows', 'sum_squares']
class Noise:
    """
    Directions of a zeroth-order step: the sum over draws (id, amount) of amount times standard normal values that are a function of (seed, id, parameter, element).
    """
    def __init__(self, seed: typing.SupportsInt | typing.SupportsIndex, draws: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex]], keep: typing.SupportsFloat | typing.SupportsIndex = 1.0) -> None:
        ...
class PackedFactor:
    """
    The right side of products, in the order of their tiles.
    """
    def __init__(self, x: typing.Any, narrow: bool = False) -> None:
        """
        x: (inner, columns). narrow: round both sides to bf16 and multiply pairs; sums are fp32 always.
        """
def best_product(like: typing.Any) -> str:
    """
    What multiplies matrices stored as `like` fastest here: 'library', or a PackedFactor, 'wide' or 'narrow'.
    """
def factored_pass(x: typing.Any, row_means: typing.Any, column_means: typing.Any, moment: typing.Any = None, row: typing.Any = None, column: typing.Any = None, scale: typing.SupportsFloat | typing.SupportsIndex = 1.0, weight: typing.SupportsFloat | typing.SupportsIndex = 0.0, eps: typing.SupportsFloat | typing.SupportsIndex = 0.0, residual: bool = False) -> None:
    """
    With u = scale x row column: moment += weight (u - moment), then row and column means of u^2 + eps, or of (u - moment)^2 + eps with `residual`.
    """
def factored_step(numbers: collections.abc.Mapping[str, typing.SupportsFloat | typing.SupportsIndex], param: typing.Any, grad: typing.Any, state: collections.abc.Sequence[typing.Any], step: typing.SupportsInt | typing.SupportsIndex, id: typing.SupportsInt | typing.SupportsIndex = 0, remainder: typing.Any = None, stochastic: bool = False, seed: typing.SupportsInt | typing.SupportsIndex = 0) -> None:
    """
    A step of matrices with factored second moments. state: row and column means; with a momentum also the moment and the row and column means of its instability. numbers: scale, lr, weight_decay, clip, least_rms (< 0: none), weight1 to weight3 (of what is new in the moment, the means and the instability), eps, eps2.
    """
def haar_moments(hyper: collections.abc.Mapping[str, typing.SupportsFloat | typing.SupportsIndex], grad: typing.Any, moments: collections.abc.Sequence[typing.Any], level: typing.SupportsInt | typing.SupportsIndex, noise: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex] | None = None) -> float:
    """
    Folds the coarse Haar coefficients of rows into m and v; the sum of squares of N = m / (sqrt(v) + eps).
    """
def haar_step(param: typing.Any, grad: typing.Any, moments: collections.abc.Sequence[typing.Any], level: typing.SupportsInt | typing.SupportsIndex, lr: typing.SupportsFloat | typing.SupportsIndex, factor: typing.SupportsFloat | typing.SupportsIndex, eps: typing.SupportsFloat | typing.SupportsIndex, grad_scale: typing.SupportsFloat | typing.SupportsIndex = 1.0, decay: tuple[typing.SupportsFloat | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex] = (0.0, 0.0), remainder: typing.Any = None, noise: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex] | None = None) -> None:
    """
    p += decay[0] p; p -= lr factor (g - up(r) + up(m)) / (sqrt(v) + eps), run by run; p += decay[1] p.
    """
def multiply(a: typing.Any, b: PackedFactor, result: typing.Any) -> None:
    """
    result = a b, in fp32.
    """
def project_line(x: typing.Any, weights: typing.Any, result: typing.Any, along_rows: bool) -> float:
    """
    result = x weights, or its transpose times weights; returns the sum of squares of x.
    """
def rule_norms(hyper: collections.abc.Mapping[str, typing.SupportsFloat | typing.SupportsIndex], r: typing.Any, moments: collections.abc.Sequence[typing.Any], inputs: typing.Any, steps: typing.Any, scales: typing.Any = (), storage: str = '', noise: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex] | None = None) -> None:
    """
    Folds the rows of r into moments of its shape; the norms of the rows, and of N = m / (sqrt(v) + eps).
    """
def scaled_squares(x: typing.Any, row: typing.Any = None, column: typing.Any = None, scale: typing.SupportsFloat | typing.SupportsIndex = 1.0) -> float:
    """
    Sum of (scale x row column)^2.
    """
def step(rule: str, hyper: collections.abc.Mapping[str, typing.SupportsFloat | typing.SupportsIndex], params: typing.Any, grads: typing.Any, slots: collections.abc.Sequence[typing.Any], steps: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], ids: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], scales: collections.abc.Sequence[typing.Any] = [], remainders: typing.Any = None, lr_scales: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] = [], stochastic: bool = False, seed: typing.SupportsInt | typing.SupportsIndex = 0, zero_grad: bool = False, noise: Noise | None = None, row: typing.Any = None, column: typing.Any = None, storage: str = '') -> None:
    """
    One step of `rule` over lists of CPU tensors, in place.
    """
def step_blocks(param: typing.Any, grad: typing.Any, m: typing.Any, v: typing.Any, lr: typing.SupportsFloat | typing.SupportsIndex, weights: tuple[typing.SupportsFloat | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex], scale2: typing.SupportsFloat | typing.SupportsIndex, eps: typing.SupportsFloat | typing.SupportsIndex, grad_scale: typing.SupportsFloat | typing.SupportsIndex = 1.0, decay: tuple[typing.SupportsFloat | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex] = (0.0, 0.0), remainder: typing.Any = None, noise: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex] | None = None) -> None:
    """
    Adam with one second moment per equal run of elements: m += weights[0] (g - m), v += weights[1] (mean g^2 - v), p += decay[0] p; p -= lr m / (sqrt(v) scale2 + eps); p += decay[1] p.
    """
def step_columns(inside: collections.abc.Mapping[str, typing.SupportsFloat | typing.SupportsIndex], outside: collections.abc.Mapping[str, typing.SupportsFloat | typing.SupportsIndex], param: typing.Any, grad: typing.Any, moments: collections.abc.Sequence[typing.Any], chosen: typing.Any, width: typing.SupportsInt | typing.SupportsIndex, step: typing.SupportsInt | typing.SupportsIndex, scales: typing.Any = (), storage: str = '', remainder: typing.Any = None, noise: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex] | None = None) -> None:
    """
    Adam on `width` columns of each row of a matrix, with moments (rows, width); sign descent on the others. `chosen`: int64 columns of all rows, or uint8 (rows, ceil(columns / 8)) with a bit per column, lowest first.
    """
def step_lifted(param: typing.Any, grad: typing.Any, lifted: typing.Any, phi: typing.Any, by_row: bool, lr: typing.SupportsFloat | typing.SupportsIndex, decay: tuple[typing.SupportsFloat | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex] = (0.0, 0.0), remainder: typing.Any = None, noise: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex] | None = None, place: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex] = (0, 0)) -> None:
    """
    p += decay[0] p; p -= lr (lifted + phi grad); p += decay[1] p, for a part of a matrix that begins at `place` (row, column); phi holds a number per row, or per column, or is None for zeros.
    """
def step_product(param: typing.Any, grad: typing.Any, a: typing.Any, b: PackedFactor, phi: typing.Any, by_row: bool, lr: typing.SupportsFloat | typing.SupportsIndex, decay: tuple[typing.SupportsFloat | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex] = (0.0, 0.0), remainder: typing.Any = None, noise: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex] | None = None, place: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex] = (0, 0)) -> None:
    """
    As step_lifted with lifted = a b, which is never formed as a whole.
    """
def step_rows(rule: str, hyper: collections.abc.Mapping[str, typing.SupportsFloat | typing.SupportsIndex], param: typing.Any, grad: typing.Any, slots: collections.abc.Sequence[typing.Any], index: typing.Any, step: typing.SupportsInt | typing.SupportsIndex, id: typing.SupportsInt | typing.SupportsIndex = 0, stochastic: bool = False, seed: typing.SupportsInt | typing.SupportsIndex = 0, remainder: typing.Any = None) -> None:
    """
    One step of `rule` on the rows `index` of a matrix, in place; slots (len(index), columns).
    """
def sum_squares(tensors: typing.Any) -> float:
    """
    Sum of squares of a list of CPU tensors; infinite or NaN when an element is.
    """
