"""What the rows of a forward cost on this machine, measured while decoding and remembered between requests."""

from __future__ import annotations

import functools
import math
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gramcore._checks import check_real
from gramcore.spec.base import FloatArray

__all__ = ["RowCosts", "row_costs"]

#: Rows at which ratios are kept; between them their logarithms are interpolated over that of the rows.
_KNOTS = np.array([2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 512], np.float64)
_DOUBLINGS = np.log2(_KNOTS)
#: Covariance of a random walk over doublings of rows: a ratio found at 8 rows also moves those of 4 and of 16.
_WALK = np.pad(np.minimum(_DOUBLINGS[:, None], _DOUBLINGS[None, :]), (1, 0))
_PLACES = np.concatenate([[0.0], _DOUBLINGS])
_FIRST_SLOPE = 0.04  # first guess: a row adds this much of a forward over one
_FIRST_DOUBT = 0.35  # its standard deviation per doubling, of the logarithm
_NOISE = 0.1  # standard deviation of one measurement
_FIRST_NOISE = 0.4  # of the first one of a size, which also pays for buffers
_LEVEL_DRIFT, _RATIO_DRIFT = 0.03, 0.005  # per measurement: a busier machine, a changed curve
_DRIFT = _RATIO_DRIFT**2 * _WALK
_NEW_REQUEST, _NEW_RANGE = 0.1, 0.05  # further doubt about the level after a pause, about ratios at another length
_CLIP = 2.5  # a measurement further off than so many standard deviations counts as that far off, once
_AT_LEAST = 0.1  # deviation of the knowledge that more rows never take less time
_SHORT = 256  # tokens of the first range of contexts; every further one is twice as long


class RowCosts:
    """C(n): seconds of a target forward over ``n`` rows, by number of sequences and range of context lengths.

    ``log C(n) = level + ratio(n)`` with ``ratio(1) = 0``, followed by a Kalman filter: the level wanders quickly
    (another program takes a core), the ratios slowly; single outliers are clipped. What is not measured yet is
    inferred from neighbouring row counts, and in a new range of contexts from the nearest known one. Around 20 us per
    measurement. Safe to share between threads.

    A length policy uses those that all requests of the process on one model share, :func:`row_costs`. Give
    ``CostModelLength(costs=...)`` an object of your own to keep them apart or to carry them from one model object to
    another, call :meth:`reset` to forget, and use :meth:`fixed` for runs that can be repeated.

    Differs from paper: measured while decoding, not before.
    Reference: cost c of Leviathan et al. 2022, arXiv:2211.17192, section 3.4, as a function of the rows.

    >>> costs = RowCosts()
    >>> for _ in range(20):
    ...     costs.observe(1, 0.010)
    ...     costs.observe(8, 0.022)
    >>> round(float(costs.ratio(8)), 1), costs.measured
    (2.2, 40)
    """

    def __init__(self) -> None:
        self._given: tuple[FloatArray, FloatArray] | None = None
        self._lock = threading.Lock()
        self.reset()

    @classmethod
    def fixed(cls, seconds: Mapping[int, float]) -> RowCosts:
        """Costs that are given and never measured: what a policy decides then depends on the text alone.

        Args:
            seconds: rows ``>= 1`` -> time ``> 0`` in any unit, with an entry for one row; interpolated linearly, and
                continued beyond the last two. :func:`measure_cost` makes such a table.

        >>> RowCosts.fixed({1: 1.0, 9: 2.0}).ratio([5, 17]).tolist()
        [1.5, 3.0]
        """
        if 1 not in seconds or any(rows < 1 for rows in seconds):
            raise ValueError(f"seconds must be given for row counts >= 1 and for 1, got {sorted(seconds)}")
        made = cls()
        rows = sorted(seconds)
        made._given = (
            np.array(rows, np.float64),
            np.array([check_real("seconds", seconds[r], low=0, low_open=True) for r in rows]),
        )
        return made

    @property
    def learns(self) -> bool:
        """Whether measurements change anything."""
        return self._given is None

    def reset(self) -> None:
        """Forget all measurements."""
        with self._lock:
            self._filters: dict[tuple[int, int], _Filter] = {}
            self._draft_s: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
            self.measured = 0

    def new_request(self) -> None:
        """Time has passed: how busy the machine is may have changed."""
        with self._lock:
            for known in self._filters.values():
                known.doubt_level(_NEW_REQUEST)

    def observe(self, rows: int, seconds: float, *, context: int = 0, batch: int = 1) -> None:
        """Take note of one forward.

        Args:
            rows: ``>= batch``, of all sequences together.
            seconds: ``> 0``.
            context: length of the longest sequence.
            batch: number of sequences.
        """
        if self._given is not None or not seconds > 0:
            return
        with self._lock:
            self._filter(context, batch).update(rows / batch, seconds)
            self.measured += 1

    def seconds(self, rows: npt.ArrayLike, *, context: int = 0, batch: int = 1) -> FloatArray:
        """Expected time of forwards over ``rows`` rows; arguments as for :meth:`observe`."""
        wanted = np.asarray(rows, np.float64)
        if self._given is not None:
            return _continued(wanted, *self._given)
        with self._lock:
            known = self._filter(context, batch)
            return np.exp(known.mean[0] + known.log_ratios(wanted / batch))

    def plain_seconds(self, *, context: int = 0, batch: int = 1) -> float:
        """Expected time of a forward with one row per sequence."""
        if self._given is not None:
            return float(self.seconds(batch))
        with self._lock:
            return math.exp(self._filter(context, batch).mean[0])

    def ratio(self, rows: npt.ArrayLike, *, context: int = 0, batch: int = 1) -> FloatArray:
        """Time of forwards over ``rows`` rows in times of one with a row per sequence."""
        return self.seconds(rows, context=context, batch=batch) / self.seconds(batch, context=context, batch=batch)

    def plain_doubt(self, *, context: int = 0, batch: int = 1) -> float:
        """Standard deviation of the logarithm of the time of a plain step: large until one was measured."""
        if self._given is not None:
            return 0.0
        with self._lock:
            return math.sqrt(self._filter(context, batch).cov[0, 0])

    def draft_seconds(self, drafter: Any) -> float | None:
        """Time of one call of that drafter (the object ``generate`` was given), or None; 0 for given costs."""
        return self._draft_s.get(drafter) if self._given is None else 0.0

    def observe_draft(self, drafter: Any, seconds: float) -> None:
        """Take note of one call of that drafter; a moving average over some twenty."""
        if self._given is None:
            with self._lock:
                before = self._draft_s.get(drafter, seconds)
                self._draft_s[drafter] = before + (seconds - before) / 20

    def _filter(self, context: int, batch: int) -> _Filter:
        """Of this range, made from the nearest one at first."""
        place = ((max(context, 1) - 1) // _SHORT).bit_length(), batch
        if place not in self._filters:
            near = min(self._filters, key=lambda p: (abs(p[1] - batch), abs(p[0] - place[0])), default=None)
            self._filters[place] = _Filter(None if near is None else self._filters[near])
        return self._filters[place]


class _Filter:
    """Level (logarithm of the seconds of one row) and log ratios at the knots, with their covariance."""

    def __init__(self, near: _Filter | None) -> None:
        #: Sizes measured; whether the last measurement was too long (1) or too short (-1) to be believed at once.
        self._off: dict[float, int] = {} if near is None else dict.fromkeys(near._off, 0)
        if near is None:
            self.mean = np.concatenate([[0.0], np.log1p(_FIRST_SLOPE * (_KNOTS - 1))])
            self.cov = _FIRST_DOUBT**2 * _WALK
            self.cov[0, 0] = 100.0
        else:
            self.mean, self.cov = near.mean.copy(), near.cov + _NEW_RANGE**2 * _WALK
            self.cov[0, 0] += 9 * _NEW_REQUEST**2

    def doubt_level(self, deviation: float) -> None:
        """At least so much."""
        self.cov[0, 0] = max(self.cov[0, 0], deviation**2)

    def log_ratios(self, rows: FloatArray) -> FloatArray:
        line = self.mean.copy()
        line[0] = 0.0
        return np.interp(np.log2(rows), _PLACES, line)

    def update(self, rows: float, seconds: float) -> None:
        noise = _NOISE if rows in self._off else _FIRST_NOISE
        if self.cov[1, 1] < _FIRST_DOUBT**2:
            self.cov += _DRIFT
        self.cov[0, 0] += _LEVEL_DRIFT**2
        seen = _weights(rows)
        off = math.log(seconds) - float(seen @ self.mean)
        limit = _CLIP * math.sqrt(float(seen @ self.cov @ seen) + noise**2)
        side = 0 if abs(off) <= limit else 1 if off > 0 else -1
        if side and side == self._off.get(rows):  # twice the same way: a change, sooner of the load than of the curve
            self.cov += (off / 3) ** 2 * _WALK
            self.cov[0, 0] += off**2
        elif side:
            off = side * limit
        self._off[rows] = side
        self._learn(seen, off, noise)
        lowest = int(np.argmin(self.mean[1:])) + 1
        if self.mean[lowest] < 0:
            unit = np.zeros(len(self.mean))
            unit[lowest] = 1.0
            self._learn(unit, -float(self.mean[lowest]), _AT_LEAST)

    def _learn(self, seen: FloatArray, off: float, noise: float) -> None:
        shared = self.cov @ seen
        variance = float(seen @ shared) + noise**2
        self.mean += shared * (off / variance)
        self.cov -= np.outer(shared, shared) / variance


@functools.lru_cache(maxsize=1024)
def _weights(rows: float) -> FloatArray:
    """What a forward over so many rows shows: the level, and the ratios of the knots around it."""
    seen = np.zeros(len(_KNOTS) + 1)
    seen[0] = 1.0
    if rows > 1:
        place = float(np.interp(math.log2(rows), _PLACES, np.arange(len(_PLACES))))
        low = min(int(place), len(_KNOTS) - 1)
        for knot, weight in ((low, low + 1 - place), (low + 1, place - low)):
            seen[knot] += weight if knot else 0.0
    return seen


def _continued(at: FloatArray, rows: FloatArray, seconds: FloatArray) -> FloatArray:
    """Linear interpolation, continued by the slope of the last two points."""
    inside = np.interp(at, rows, seconds)
    slope = max(0.0, (seconds[-1] - seconds[-2]) / (rows[-1] - rows[-2])) if len(rows) > 1 else 0.0
    return inside + slope * np.maximum(at - rows[-1], 0.0)


#: By model object, as long as that lives.
_shared: weakref.WeakKeyDictionary[Any, RowCosts] = weakref.WeakKeyDictionary()
_shared_lock = threading.Lock()


def row_costs(model: Any) -> RowCosts:
    """The row costs that all requests of this process on ``model`` share; they end with the model.

    Args:
        model: a :class:`Host`, or the object its ``model_key`` names: the transformers model, the native decoder.

    >>> class Model: ...
    >>> model = Model()
    >>> row_costs(model) is row_costs(model), row_costs(model) is row_costs(Model())
    (True, False)
    """
    key = getattr(model, "model_key", model)
    with _shared_lock:
        if key not in _shared:
            _shared[key] = RowCosts()
        return _shared[key]
