"""Structural tags written as JSON: formats that nest, as serving engines take them in ``response_format``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gramcore._core import grammar as _native
from gramcore.grammar.errors import GrammarTooComplex
from gramcore.grammar.structural import free_text, trigger_of, up_to_first

if TYPE_CHECKING:
    from gramcore.grammar.grammar import Grammar
    from gramcore.grammar.report import SchemaReport

__all__ = ["from_tag_format"]

_MAX_NESTING = 100
_TOO_DEEP = f"structural tag must nest at most {_MAX_NESTING} formats, got more"

#: keys of each format besides type: needed ones, and others with their defaults
_FORMATS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "const_string": (("value",), {}),
    "token": (("token",), {}),
    "json_schema": (("json_schema",), {"style": "json"}),
    "regex": (("pattern",), {}),
    "grammar": (("grammar",), {}),
    "any_text": ((), {"excludes": [], "excluded_str": []}),
    "sequence": (("elements",), {}),
    "or": (("elements",), {}),
    "tag": (("begin", "content", "end"), {}),
    "triggered_tags": (("triggers", "tags"), {"at_least_one": False, "stop_after_first": False, "excludes": []}),
    "tags_with_separator": (("tags", "separator"), {"at_least_one": False, "stop_after_first": False}),
}


def from_tag_format(text: str | Mapping[str, Any]) -> tuple[_native.Grammar, dict[str, SchemaReport]]:
    """See :meth:`gramcore.grammar.Grammar.from_structural_tag`; the reports are those of the schemas inside."""
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except RecursionError:
        raise GrammarTooComplex(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"structural tag must be JSON, got text that is none: {error}") from None
    if not isinstance(value, Mapping) or value.get("type") != "structural_tag" or "format" not in value:
        raise ValueError(f'structural tag must be {{"type": "structural_tag", "format": …}}, got {str(value)[:80]!r}')
    made = _Formats()
    return made.build.finish(made.format(value["format"], "format")), made.reports


class _Formats:
    def __init__(self) -> None:
        self.build = _native.Builder()
        self.reports: dict[str, SchemaReport] = {}

    def format(self, value: Any, where: str, kind: str | None = None) -> int:
        if where.count(".") > _MAX_NESTING:
            raise GrammarTooComplex(_TOO_DEEP)
        fields = self._fields(value, where, kind)
        made: int = getattr(self, f"_{fields.pop('type')}")(where=where, **fields)
        return made

    @staticmethod
    def _fields(value: Any, where: str, kind: str | None) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ValueError(f"structural tag must have an object at {where}, got {type(value).__name__}")
        found = value.get("type", kind)
        if not isinstance(found, str) or found not in _FORMATS or (kind is not None and found != kind):
            expected = kind or ", ".join(_FORMATS)
            raise ValueError(f"structural tag must have a format of type {expected} at {where}, got {found!r}")
        needed, others = _FORMATS[found]
        given = {k: v for k, v in value.items() if k != "type"}
        missing, unknown = [k for k in needed if k not in given], [k for k in given if k not in {*needed, *others}]
        if missing or unknown:
            raise ValueError(
                f"structural tag must have the keys {', '.join((*needed, *others))} of a {found} at {where}, "
                f"got {'no ' + missing[0] if missing else repr(unknown[0])}"
            )
        return {"type": found, **others, **given}

    def _part(self, grammar: Grammar) -> int:
        rule = self.build.rule("part")
        self.build.define(rule, self.build.include(grammar._native))
        return self.build.call(rule)

    def _const_string(self, where: str, value: Any) -> int:
        return self.build.literal(_text(value, f"{where}.value"))

    def _token(self, where: str, token: Any) -> int:
        if isinstance(token, int) and 0 <= token < 2**32:
            return self.build.token("", [(token, token)], False)
        return self.build.token(_text(token, f"{where}.token").decode(), [], False)

    def _json_schema(self, where: str, json_schema: Any, style: Any) -> int:
        from gramcore.grammar.grammar import Grammar

        if style != "json":
            raise ValueError(f"structural tag must have style json at {where}, got {style!r}")
        try:
            made = Grammar.from_json_schema(json_schema)
        except ValueError as error:
            raise ValueError(f"structural tag must have a JSON Schema at {where}.json_schema: {error}") from None
        if made.report is not None:
            self.reports[where] = made.report
        return self._part(made)

    def _regex(self, where: str, pattern: Any) -> int:
        return self.build.regex(_text(pattern, f"{where}.pattern").decode(), dot_all=False, ignore_case=False)

    def _grammar(self, where: str, grammar: Any) -> int:
        from gramcore.grammar.grammar import Grammar

        return self._part(Grammar.from_ebnf(_text(grammar, f"{where}.grammar").decode()))

    def _any_text(self, where: str, excludes: Any, excluded_str: Any) -> int:
        return free_text(self.build, _texts([*excludes, *excluded_str], f"{where}.excludes"))

    def _sequence(self, where: str, elements: Any) -> int:
        return self.build.cat([self.format(e, f"{where}.elements[{i}]") for i, e in enumerate(_list(elements, where))])

    def _or(self, where: str, elements: Any) -> int:
        return self.build.alt([self.format(e, f"{where}.elements[{i}]") for i, e in enumerate(_list(elements, where))])

    def _tag(self, where: str, begin: Any, content: Any, end: Any) -> int:
        return self.build.cat([self.build.literal(_text(begin, f"{where}.begin")), self._inside(where, content, end)])

    def _inside(self, where: str, content: Any, end: Any) -> int:
        """Content and end; free text goes on to the first end."""
        ends = _texts(end if isinstance(end, list) else [end], f"{where}.end")
        if isinstance(content, Mapping) and content.get("type") == "any_text" and all(ends):
            fields = self._fields(content, f"{where}.content", None)
            excluded = _texts([*fields["excludes"], *fields["excluded_str"]], f"{where}.content.excludes")
            return self.build.alt([up_to_first(self.build, e, ends, excluded) for e in ends])
        inside = self.format(content, f"{where}.content")
        return self.build.cat([inside, self.build.alt([self.build.literal(e) for e in ends])])

    def _triggered_tags(
        self, where: str, triggers: Any, tags: Any, at_least_one: Any, stop_after_first: Any, excludes: Any
    ) -> int:
        build, stops = self.build, _texts(triggers, f"{where}.triggers")
        excluded = _texts(excludes, f"{where}.excludes")
        if not stops or b"" in stops:
            raise ValueError(f"structural tag must have triggers that are not empty at {where}, got {triggers!r}")
        whole, behind = [], []
        for i, tag in enumerate(_list(tags, where)):
            place = f"{where}.tags[{i}]"
            fields = self._fields(tag, place, "tag")
            begin = _text(fields["begin"], f"{place}.begin")
            trigger = trigger_of(begin, stops)
            inside = self._inside(place, fields["content"], fields["end"])
            whole.append(build.cat([build.literal(begin), inside]))
            rest = build.cat([build.literal(begin[len(trigger) :]), inside])
            behind.append(build.cat([up_to_first(build, trigger, stops, excluded), rest]))
        free, first, later = free_text(build, [*stops, *excluded]), build.alt(whole), build.alt(behind)
        if stop_after_first:
            return first if at_least_one else build.alt([later, free])
        more = build.cat([build.repeat(later, 0, None), free])
        return build.cat([first, more]) if at_least_one else more

    def _tags_with_separator(
        self, where: str, tags: Any, separator: Any, at_least_one: Any, stop_after_first: Any
    ) -> int:
        build = self.build
        one = build.alt([self.format(t, f"{where}.tags[{i}]", "tag") for i, t in enumerate(_list(tags, where))])
        all_of_them = one
        if not stop_after_first:
            between = build.literal(_text(separator, f"{where}.separator"))
            all_of_them = build.cat([one, build.repeat(build.cat([between, one]), 0, None)])
        return all_of_them if at_least_one else build.repeat(all_of_them, 0, 1)


def _text(value: Any, where: str) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"structural tag must have a text at {where}, got {type(value).__name__}")
    return value.encode()


def _list(value: Any, where: str) -> Sequence[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError(f"structural tag must have a list that is not empty at {where}, got {value!r}")
    return value


def _texts(value: Any, where: str) -> list[bytes]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"structural tag must have a list of texts at {where}, got {value!r}")
    return [_text(v, where) for v in value]
