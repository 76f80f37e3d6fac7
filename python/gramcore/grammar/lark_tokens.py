"""The tokens of Lark's dialect, what names in it stand for, and the terminals of its module ``common``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from gramcore._core import grammar as _native
from gramcore.grammar.errors import GrammarTooComplex

__all__ = [
    "COMMON",
    "MAX_NESTING",
    "Definition",
    "Scope",
    "Token",
    "fail",
    "is_terminal",
    "lex",
    "place_of",
    "some_chunks",
    "substring_chunks",
    "token_ids",
    "unquote",
]

#: What ``%import common.NAME`` brings in.
COMMON = {
    "DIGIT": "[0-9]",
    "HEXDIGIT": "[0-9a-fA-F]",
    "INT": "[0-9]+",
    "SIGNED_INT": "[+-]?[0-9]+",
    "DECIMAL": r"[0-9]+\.[0-9]*|\.[0-9]+",
    "FLOAT": r"[0-9]+[eE][+-]?[0-9]+|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?",
    "SIGNED_FLOAT": r"[+-]?([0-9]+[eE][+-]?[0-9]+|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?)",
    "NUMBER": r"[0-9]+|[0-9]+[eE][+-]?[0-9]+|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?",
    "SIGNED_NUMBER": r"[+-]?([0-9]+|[0-9]+[eE][+-]?[0-9]+|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?)",
    "ESCAPED_STRING": r'"([^"\\\n]|\\.)*"',
    "LCASE_LETTER": "[a-z]",
    "UCASE_LETTER": "[A-Z]",
    "LETTER": "[a-zA-Z]",
    "WORD": "[a-zA-Z]+",
    "CNAME": "[_a-zA-Z][_a-zA-Z0-9]*",
    "WS_INLINE": "[ \\t]+",
    "WS": "[ \\t\\f\\r\\n]+",
    "CR": "\\r",
    "LF": "\\n",
    "NEWLINE": "(\\r?\\n)+",
    "SH_COMMENT": "#[^\\n]*",
    "CPP_COMMENT": "//[^\\n]*",
    "C_COMMENT": r"/\*([^*]|\*+[^*/])*\*+/",
    "SQL_COMMENT": "--[^\\n]*",
}

#: Groups, terminals and templates inside each other: each takes some of the interpreter's stack.
MAX_NESTING = 100

_LEX = re.compile(
    r"""(?P<space>[ \t\r\f]+|//[^\n]*|(?<![^\s])\#[^\n]*)
    |(?P<newline>\n)
    |(?P<special><(?:\[[^\]\n]*\]|[^<>\s"]+)>)
    |(?P<string>"(?:[^"\\\n]|\\.)*"i?)
    |(?P<regex>/(?!/)(?:[^/\\\n]|\\.)+/[imslux]*)
    |(?P<directive>%[a-z]+)
    |(?P<name>[!?]*_*[A-Za-z](?:[A-Za-z0-9_]|-(?=[A-Za-z]))*)
    |(?P<number>-?[0-9]+)
    |(?P<arrow>->)
    |(?P<dots>\.\.)
    |(?P<sign>[|()\[\]{}:~?*+,.&=])""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    at: int


@dataclass
class Definition:
    """A rule or terminal: where its body is, its parameters, and its native rule."""

    body: int
    params: tuple[str, ...] = ()
    lazy: bool = False  # as few bytes as possible
    suffix: int = -1  # where the text stands that ends it, and belongs to it or does not
    stop: int = -1
    native: int = -1
    expression: int = -1
    busy: bool = False


@dataclass
class Scope:
    """What names mean inside a template, and whether a terminal is being built."""

    arguments: dict[str, int] = field(default_factory=dict)
    terminal: bool = False


_JSON = ("%json", "%regex", "%llguidance")


def place_of(text: str, at: int) -> str:
    return f"line {text.count(chr(10), 0, at) + 1}, column {at - text.rfind(chr(10), 0, at)}"


def fail(text: str, expected: str, at: int, got: str) -> ValueError:
    """What is wrong at a place of a grammar."""
    return ValueError(f"grammar must have {expected} at {place_of(text, at)}, got {got}")


def lex(text: str) -> list[Token]:
    """The tokens, and an end token; JSON behind ``%json``, ``%regex`` and ``%llguidance`` is one token."""
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        found = _LEX.match(text, at)
        if found is None:
            raise fail(text, "a rule, a terminal or a directive", at, repr(text[at : at + 12]))
        kind = str(found.lastgroup)
        if kind == "directive" and found[0] in _JSON:
            start = at
            at = found.end()
            while at < len(text) and text[at].isspace():
                at += 1
            try:
                _, end = json.JSONDecoder().raw_decode(text, at)
            except RecursionError:
                raise GrammarTooComplex(
                    f"JSON must nest at most 900 levels, got more at {place_of(text, at)}"
                ) from None
            except ValueError as error:
                what = "a JSON Schema" if found[0] == "%json" else "a JSON object"
                raise fail(text, f"{what} behind {found[0]}", at, str(error)) from None
            tokens.append(Token("regex_json" if found[0] == "%regex" else found[0][1:], text[at:end], start))
            at = end
            continue
        if kind != "space":
            tokens.append(Token(kind, found[0], at))
        at = found.end()
    tokens.append(Token("end", "", at))
    return tokens


def token_ids(text: str) -> tuple[list[tuple[int, int]], bool] | None:
    """The ranges of ids in ``<[7-9,12]>`` and whether the others are meant; None where it is not such a text."""
    body = text[2:-2]
    if body == "*":
        return [], True
    ranges = []
    for part in body.removeprefix("^").split(","):
        found = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?", part)
        if found is None or int(found[2] or found[1]) < int(found[1]):
            return None
        ranges.append((int(found[1]), int(found[2] or found[1])))
    return ranges, body.startswith("^")


def substring_chunks(options: str) -> list[str] | None:
    """The chunks that ``%regex`` options name: listed, words and single other characters, or characters."""
    value = json.loads(options)
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((kind, text),) = value.items()
    if kind == "substring_chunks" and isinstance(text, list) and all(isinstance(c, str) for c in text):
        return text
    if kind not in ("substring_words", "substring_chars") or not isinstance(text, str):
        return None
    return re.findall(r"\w+|\W", text) if kind == "substring_words" else list(text)


def is_terminal(name: str) -> bool:
    """Whether a name is one of a terminal."""
    return name.lstrip("_!?")[:1].isupper()


def unquote(text: str) -> str:
    """The text of a string token."""
    body = text[: -1 if text.endswith("i") else None]
    return str(json.loads(_json_escapes(body)))


def _json_escapes(body: str) -> str:
    """A Python-like string literal as JSON: only the escapes that JSON lacks are rewritten."""
    return re.sub(
        r"\\(x[0-9a-fA-F]{2}|.)",
        lambda m: f"\\u00{m[1][1:]}" if m[1][0] == "x" and len(m[1]) == 3 else m[0] if m[1] in '"\\/bfnrtu' else m[1],
        body,
    )


def some_chunks(build: _native.Builder, chunks: list[str]) -> int:
    """Any of the chunks in a row, from one of them on."""
    suffixes = [build.literal(b"")]
    for chunk in reversed(chunks):
        suffixes.append(build.repeat(build.cat([build.literal(chunk.encode()), suffixes[-1]]), 0, 1))
    return build.alt(suffixes)
