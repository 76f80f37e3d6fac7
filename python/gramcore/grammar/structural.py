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
    stops = [t.encode() for t in triggers]
    parts = []
    for trigger in stops:
        bodies = []
        for tag in tags:
            if trigger_of(tag.begin.encode(), stops) == trigger:
                rest = build.literal(tag.begin.encode()[len(trigger) :])
                inside = build.rule(tag.begin)
                build.define(inside, build.include(tag.grammar._native))
                bodies.append(build.cat([rest, build.call(inside), build.literal(tag.end.encode())]))
        if bodies:
            parts.append(build.cat([up_to_first(build, trigger, stops), build.alt(bodies)]))
    return build.finish(build.cat([build.repeat(build.alt(parts), at_least, at_most), free_text(build, stops)]))


def free_text(build: _native.Builder, excluded: Sequence[bytes]) -> int:
    """Any text in which none of these occurs."""
    anything = build.anything()
    if not excluded:
        return anything
    found = build.alt([build.literal(t) for t in excluded])
    return build.complement(build.cat([anything, found, anything]))


def up_to_first(build: _native.Builder, stop: bytes, stops: Sequence[bytes], excluded: Sequence[bytes] = ()) -> int:
    """Free text that ends with ``stop``: none of ``stops`` ends earlier, and none of ``excluded`` occurs before it."""
    anything = build.anything()
    one = build.conj([anything, build.complement(build.literal(b""))])  # at least one byte
    earlier = build.cat([anything, build.alt([build.literal(t) for t in stops]), one])
    text = build.conj([build.cat([anything, build.literal(stop)]), build.complement(earlier)])
    if not excluded:
        return text
    return build.conj([text, build.cat([free_text(build, excluded), build.literal(stop)])])


def trigger_of(begin: bytes, triggers: Sequence[bytes]) -> bytes:
    """The one trigger that ``begin`` starts with."""
    matching = [t for t in triggers if begin.startswith(t)]
    if len(matching) != 1:
        texts = [t.decode() for t in matching]
        raise ValueError(f"begin of a tag must start with exactly one trigger, got {texts} for {begin.decode()!r}")
    return matching[0]
