"""Structural tags: free text until a trigger, then a grammar, then free text again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gramcore._checks import check_int
from gramcore._core import grammar as _native

if TYPE_CHECKING:
    from gramcore.grammar.grammar import Grammar

__all__ = ["StructuralTag", "structural"]


@dataclass(frozen=True)
class StructuralTag:
    """One kind of structured part of a text.

    Attributes:
        begin: what opens the part; begins with one of the triggers.
        grammar: what stands inside.
        end: what closes it.
    """

    begin: str
    grammar: Grammar
    end: str


def structural(
    tags: Sequence[StructuralTag], triggers: Sequence[str], *, at_least: int = 0, at_most: int | None = None
) -> _native.Grammar:
    """Expression: ``(E_t rest_of_begin grammar end)* F`` where ``E_t`` ends with trigger t and holds none before, and
    the free text F holds none at all."""
    if not tags or not triggers:
        raise ValueError(f"tags and triggers must not be empty, got {len(tags)} tags and {len(triggers)} triggers")
    check_int("at_least", at_least, low=0)
    if at_most is not None:
        check_int("at_most", at_most, low=at_least)
    if "" in triggers:
        raise ValueError("triggers must not be empty texts, got ''")
    build = _native.Builder()
    anything = build.anything()
    one = build.conj([anything, build.complement(build.literal(b""))])  # at least one byte
    found = build.alt([build.literal(t.encode()) for t in triggers])
    has_trigger = build.cat([anything, found, anything])
    more = build.cat([anything, found, one])
    parts = []
    for trigger in triggers:
        bodies = []
        for tag in tags:
            if _trigger_of(tag, triggers) == trigger:
                rest = build.literal(tag.begin.encode()[len(trigger.encode()) :])
                inside = build.rule(tag.begin)
                build.define(inside, build.include(tag.grammar._native))
                bodies.append(build.cat([rest, build.call(inside), build.literal(tag.end.encode())]))
        if bodies:
            # Free text up to the first trigger: it ends with this one and no trigger ends earlier.
            up_to = build.conj([build.cat([anything, build.literal(trigger.encode())]), build.complement(more)])
            parts.append(build.cat([up_to, build.alt(bodies)]))
    free = build.complement(has_trigger)
    return build.finish(build.cat([build.repeat(build.alt(parts), at_least, at_most), free]))


def _trigger_of(tag: StructuralTag, triggers: Sequence[str]) -> str:
    matching = [t for t in triggers if tag.begin.startswith(t)]
    if len(matching) != 1:
        raise ValueError(f"begin of a tag must start with exactly one trigger, got {matching} for {tag.begin!r}")
    return matching[0]
