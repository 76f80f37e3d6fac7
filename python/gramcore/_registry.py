"""One row per algorithm: the single source for conformance tests, benchmarks and the README table.

A family declares its rows in its ``catalogue`` with :func:`register`; :func:`rows` imports all catalogues and
returns them.  ``factory`` is ``"module:attribute"`` so that listing rows imports nothing heavy.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FAMILIES", "Row", "register", "rows"]

#: Families in reading order.  A family appears here when its first algorithm does.
FAMILIES: tuple[str, ...] = ("ngram", "optim", "quant", "spec", "grammar", "dist")


@dataclass(frozen=True)
class Row:
    """One algorithm.

    Attributes:
        name: the paper's or the field's name, unique in its family.
        family: one of :data:`FAMILIES`.
        protocol: the conformance suite that drives it, for example ``"optimizer"``, ``"drafter"``, ``"codec"``.
        factory: ``"package.module:attribute"`` (dotted for a class method), called with
            ``test_kwargs`` by the conformance suite.
        summary: what it does, at most ten words.
        paper: ``"authors year, arXiv:id"`` or ``""`` for standard techniques.
        facts: declared properties on which conformance tests branch, for example ``{"lossless": True}``.
        test_kwargs: keyword arguments that make a small instance.
    """

    name: str
    family: str
    protocol: str
    factory: str
    summary: str
    paper: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    test_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Any:
        """Import and return the factory."""
        module, _, attribute = self.factory.partition(":")
        return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))


_rows: dict[tuple[str, str], Row] = {}


def register(*new: Row) -> None:
    """Add rows; a second row of the same family and name is an error."""
    for row in new:
        key = (row.family, row.name)
        if key in _rows and _rows[key] != row:
            raise ValueError(f"registry row must be unique, got a second {row.family}/{row.name}")
        _rows[key] = row


def rows(family: str | None = None, protocol: str | None = None) -> list[Row]:
    """All rows, in family order, or those of one family or protocol."""
    for name in FAMILIES:
        importlib.import_module(f"gramcore.{name}.catalogue")
    order = {name: i for i, name in enumerate(FAMILIES)}
    chosen = [r for r in _rows.values() if family in (None, r.family) and protocol in (None, r.protocol)]
    return sorted(chosen, key=lambda r: (order[r.family], r.protocol, r.name.lower()))
