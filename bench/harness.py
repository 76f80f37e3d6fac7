"""The benchmark harness: verify first, time second, compare in the same run.

A benchmark module (``bench/<family>/bench_<thing>.py``) has one function ``run(bench: Bench) -> None``. It makes its
inputs from a fixed seed, calls ``bench.case(...)`` once per named problem and passes the contenders: ours and each
peer, as closures over the same inputs.  The harness checks every contender against the reference result, interleaves
their repetitions so that drift of the machine hits all alike, and prints p20/p50/p80, rates, and ratios.

    python -m bench quant            # all benchmarks of a family
    python -m bench optim.adamw --csv results.csv
"""

from __future__ import annotations

import csv
import gc
import importlib.metadata
import math
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gramcore
import numpy as np

__all__ = ["Bench", "Contender", "Limits", "Result", "peer_version"]

MIN_REPETITIONS = 20


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        name: ``"gramcore"`` for ours, else the peer with its version.
        run: does the work once; its return value is given to the case's check.
        setup: called before every repetition, outside the timing (for in-place work).
    """

    name: str
    run: Callable[[], Any]
    setup: Callable[[], None] | None = None


@dataclass(frozen=True)
class Result:
    """Timing of one contender in one case; times in microseconds per unit of work."""

    case: str
    contender: str
    p20_us: float
    p50_us: float
    p80_us: float
    bytes_moved: float
    flops: float
    repetitions: int
    ratio: float  # ours / this contender's time inverted: > 1 means gramcore is faster
    limit_frac: float  # fraction of the machine's limit this contender reaches; nan when no limit was declared


@dataclass
class Limits:
    """What the machine can do with the threads in use, measured in this process.

    Attributes:
        read_gb_s, copy_gb_s, triad_gb_s: memory bandwidth, GB/s.
        gop_s: 10^9 operations per second by kind (``fp32``, ``bf16``, ``int8``, ``int8_tile``), multiplications and
            additions counted apart; kinds the processor has no instruction for are absent.
    """

    read_gb_s: float
    copy_gb_s: float
    triad_gb_s: float
    gop_s: Mapping[str, float]

    @classmethod
    def measure(cls, num_bytes: int = 256 << 20) -> Limits:
        """Best of several passes over buffers larger than the caches (NumPy and the native probe)."""
        from gramcore import _core

        read, copy, triad = _core.measure_bandwidth(num_bytes, 5)
        rates = zip(("fp32", "bf16", "int8", "int8_tile"), _core.measure_compute(5), strict=True)
        return cls(read / 1e9, copy / 1e9, triad / 1e9, {kind: rate / 1e9 for kind, rate in rates if rate})


@dataclass
class Bench:
    """Collects cases of one benchmark module, prints a table per case and keeps rows for the CSV file."""

    family: str
    name: str
    repetitions: int = MIN_REPETITIONS
    least: int = MIN_REPETITIONS  # repetitions that are always made; a whole answer of a model may need fewer
    max_seconds: float = 20.0  # per case and contender; repetitions stop there once the least number is done
    results: list[Result] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _limits: Limits | None = None

    @property
    def limits(self) -> Limits:
        """Bandwidth limits, measured on first use in this run."""
        if self._limits is None:
            self._limits = Limits.measure()
            x = self._limits
            rates = ", ".join(f"{kind} {rate:.0f} GOP/s" for kind, rate in x.gop_s.items())
            print(
                f"limits in this run, {gramcore.num_threads()} thread(s): read {x.read_gb_s:.1f} GB/s, "
                f"copy {x.copy_gb_s:.1f} GB/s, triad {x.triad_gb_s:.1f} GB/s, {rates}"
            )
        return self._limits

    def case(
        self,
        case: str,
        contenders: Sequence[Contender],
        *,
        check: Callable[[str, Any], None],
        bytes_moved: float = 0.0,
        flops: float = 0.0,
        units: float = 1.0,
        limit_bytes_per_s: float | None = None,
        operations: str | None = None,
    ) -> list[Result]:
        """Verify and time the contenders; the first one is ours.

        Args:
            case: the problem's name, for example ``"fp32 125M"``.
            check: called as ``check(contender_name, output)`` once per contender before timing; raises if wrong.
            bytes_moved: bytes that must cross memory for one run; gives GB/s and the fraction of the limit.
            flops: floating-point operations of one run.
            units: work items in one run (queries, tokens); times are reported per item.
            limit_bytes_per_s: bandwidth this case is bound by; default the measured read bandwidth.
            operations: kind of ``Limits.gop_s`` that bounds ``flops``; the limit is then the longer of the time the
                bytes and the time the operations need (roofline).
        """
        for c in contenders:
            if c.setup:
                c.setup()
            check(c.name, c.run())
        times = self._time(contenders)
        ours = _percentile(times[contenders[0].name], 50)
        bound_s = bytes_moved / (limit_bytes_per_s or self.limits.read_gb_s * 1e9) if bytes_moved else 0.0
        if operations is not None:
            bound_s = max(bound_s, flops / (self.limits.gop_s[operations] * 1e9))
        rows = []
        for c in contenders:
            p20, p50, p80 = (_percentile(times[c.name], q) for q in (20, 50, 80))
            fraction = bound_s / p50 if bound_s else math.nan
            rows.append(
                Result(
                    case=case,
                    contender=c.name,
                    p20_us=p20 * 1e6 / units,
                    p50_us=p50 * 1e6 / units,
                    p80_us=p80 * 1e6 / units,
                    bytes_moved=bytes_moved / units,
                    flops=flops / units,
                    repetitions=len(times[c.name]),
                    ratio=p50 / ours,
                    limit_frac=fraction,
                )
            )
        self.results += rows
        self._print(case, rows)
        return rows

    def note(self, text: str) -> None:
        """A fact that belongs beside the table (an accuracy, a size, a peer that could not run)."""
        self.notes.append(text)
        print(f"  note: {text}")

    def _time(self, contenders: Sequence[Contender]) -> dict[str, list[float]]:
        times: dict[str, list[float]] = {c.name: [] for c in contenders}
        batch = {c.name: _calibrate(c) for c in contenders}
        started = time.perf_counter()
        gc.collect()
        gc.disable()
        try:
            while True:
                for c in contenders:
                    times[c.name].append(_once(c, batch[c.name]))
                done = min(len(t) for t in times.values())
                late = time.perf_counter() - started > self.max_seconds * len(contenders)
                if done >= self.repetitions or (late and done >= self.least):
                    return times
        finally:
            gc.enable()

    def _print(self, case: str, rows: Sequence[Result]) -> None:
        print(f"{self.family}/{self.name}: {case}")
        for r in rows:
            rate = f"{r.bytes_moved / r.p50_us / 1e3:8.1f} GB/s" if r.bytes_moved else ""
            compute = f"{r.flops / r.p50_us / 1e3:9.1f} GFLOP/s" if r.flops else ""
            limit = f"{100 * r.limit_frac:5.0f} % of limit" if not math.isnan(r.limit_frac) else ""
            print(
                f"  {r.contender:<34} {r.p50_us:12.3f} us (p20 {r.p20_us:.3f}, p80 {r.p80_us:.3f}) "
                f"{rate}{compute} {limit}  time ratio to ours {r.ratio:6.2f}"
            )

    def write_csv(self, path: Path) -> None:
        """Append one row per result with hardware, versions and commit."""
        stamp = environment()
        new = not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow([*stamp, "family", "benchmark", *Result.__dataclass_fields__])
            for r in self.results:
                values = [getattr(r, name) for name in Result.__dataclass_fields__]
                cells = [f"{v:.6g}" if isinstance(v, float) else v for v in values]
                writer.writerow([*stamp.values(), self.family, self.name, *cells])


def environment() -> Mapping[str, str]:
    """Hardware, software and commit of this run."""
    root = Path(__file__).resolve().parents[1]
    commit = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit or "unknown",
        "cpu": gramcore.cpu_info()[0].strip(),
        "level": gramcore.cpu_level(),
        "threads": str(gramcore.num_threads()),
        "python": platform.python_version(),
    }


def peer_version(package: str) -> str | None:
    """``"package 1.2.3"`` if installed, else None: a benchmark then says that this peer is absent."""
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return None


def _percentile(values: Sequence[float], q: float) -> float:
    return float(np.percentile(np.asarray(values), q))


def _once(contender: Contender, batch: int) -> float:
    if contender.setup:
        contender.setup()
    started = time.perf_counter()
    for _ in range(batch):
        contender.run()
    return (time.perf_counter() - started) / batch


def _calibrate(contender: Contender) -> int:
    """Runs per timing so that one takes at least 200 us; in-place work with a setup runs once."""
    if contender.setup:
        _once(contender, 1)
        return 1
    batch = 1
    if _once(contender, 1) > 20e-3:
        return batch
    while batch < 1 << 20:
        # The quicker of two: a first call may find caches full of another contender's data.
        if min(_once(contender, batch) for _ in range(2)) * batch > 200e-6:
            return batch
        batch *= 4
    return batch
