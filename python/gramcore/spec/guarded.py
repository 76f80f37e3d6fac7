"""Keeps a drafter's mistakes and delays away from the loop."""

from __future__ import annotations

import queue
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from gramcore.spec.base import Context, Drafter, DraftTree, IntArray, TargetRows

__all__ = ["GuardedDrafter"]

T = TypeVar("T")


class GuardedDrafter:
    """Calls a fork of a drafter; switches it off with a warning when it raises or needs more than ``timeout_s``.

    A drafter that declares ``bounded`` is called directly. Any other one runs in a thread of its own, so that one that
    never comes back costs ``timeout_s`` once; the thread is left behind.

    Args:
        drafter: left alone itself; None drafts nothing.
        timeout_s: ``> 0``; seconds for one call.
    """

    def __init__(self, drafter: Drafter | None, timeout_s: float) -> None:
        self._drafter = drafter
        self._timeout_s = timeout_s
        self._worker = _Worker() if drafter is not None and not drafter.bounded else None
        if self._worker is not None:
            weakref.finalize(self, self._worker.close)  # the thread ends with its owner at the latest
        if drafter is not None:
            self._drafter = self._call(lambda: _own(drafter))

    @property
    def alive(self) -> bool:
        """Whether drafts may still come."""
        return self._drafter is not None

    def propose(self, ctx: Context, budget: int) -> DraftTree | None:
        """The drafter's tree, or None when it is, or just was, switched off."""
        drafter = self._drafter
        return None if drafter is None else self._call(lambda: drafter.propose(ctx, budget))

    def observe(self, tokens: IntArray) -> None:
        """Tell the drafter what was committed."""
        drafter = self._drafter
        if drafter is not None:
            self._call(lambda: drafter.observe(tokens))

    def rollback(self, n: int) -> None:
        """Tell the drafter that the last ``n`` tokens are gone."""
        drafter = self._drafter
        if drafter is not None:
            self._call(lambda: drafter.rollback(n))

    def observe_hidden(self, states: Any) -> None:
        """Show the drafter hidden states of committed rows."""
        drafter = self._drafter
        if drafter is not None:
            self._call(lambda: drafter.observe_hidden(states))

    def observe_target(self, tree: DraftTree, rows: TargetRows) -> None:
        """Show the drafter the target's rows."""
        drafter = self._drafter
        if drafter is not None:
            self._call(lambda: drafter.observe_target(tree, rows))

    def close(self) -> None:
        """Let the thread end."""
        if self._worker is not None:
            self._worker.close()

    def _call(self, work: Callable[[], T]) -> T | None:
        started = time.perf_counter()
        try:
            result = work() if self._worker is None else self._worker.call(work, self._timeout_s)
        except queue.Empty:
            self._disable(f"took more than {self._timeout_s:g} s")
            return None
        except Exception as error:
            self._disable(f"raised {type(error).__name__}: {error}")
            return None
        if (spent := time.perf_counter() - started) > self._timeout_s:
            self._disable(f"took {spent:.2f} s, more than {self._timeout_s:g} s")
            return None
        return result

    def _disable(self, why: str) -> None:
        name = type(self._drafter).__name__
        warnings.warn(f"drafter {name} is switched off: it {why}", RuntimeWarning, stacklevel=2)
        self._drafter = None
        self.close()


def _own(drafter: Drafter) -> Drafter:
    made = drafter.fork()
    if not isinstance(made, Drafter):
        raise TypeError(f"fork must return a Drafter, got {type(made).__name__}")
    return made


class _Worker:
    """A thread that runs one piece of work at a time."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[object, Exception | None]] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="gramcore drafter", daemon=True).start()

    def call(self, work: Callable[[], T], timeout_s: float) -> T:
        """Its result or its exception; ``queue.Empty`` when it takes too long."""
        self._work.put(work)
        result, error = self._done.get(timeout=timeout_s)
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback names this frame: no cycle that keeps callers alive
        return result  # type: ignore[return-value]

    def close(self) -> None:
        self._work.put(None)

    def _serve(self) -> None:
        with torch.inference_mode():
            while (work := self._work.get()) is not None:
                try:
                    self._done.put((work(), None))
                except Exception as error:
                    self._done.put((None, error))
