"""Grammars in the dialect of Lark, as a scannerless grammar: terminals are expressions, rules call them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from gramcore._core import grammar as _native

__all__ = ["parse_lark"]

#: What ``%import common.NAME`` brings in.
_COMMON = {
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

_LEX = re.compile(
    r"""(?P<space>[ \t\r\f]+|//[^\n]*|(?<![^\s])\#[^\n]*)
    |(?P<newline>\n)
    |(?P<string>"(?:[^"\\\n]|\\.)*"i?)
    |(?P<regex>/(?!/)(?:[^/\\\n]|\\.)+/[imslux]*)
    |(?P<directive>%[a-z]+)
    |(?P<name>[!?]*_*[A-Za-z][A-Za-z0-9_]*)
    |(?P<number>-?[0-9]+)
    |(?P<arrow>->)
    |(?P<dots>\.\.)
    |(?P<sign>[|()\[\]{}:~?*+,.<>=])""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


@dataclass
class _Definition:
    """A rule or terminal: where its body is, its parameters, and its native rule."""

    body: int
    params: tuple[str, ...] = ()
    native: int = -1
    expression: int = -1
    busy: bool = False


@dataclass
class _Scope:
    """What names mean inside a template, and whether a terminal is being built."""

    arguments: dict[str, int] = field(default_factory=dict)
    terminal: bool = False


def parse_lark(text: str) -> _native.Grammar:
    """See :meth:`gramcore.grammar.Grammar.from_lark`."""
    return _Parser(text).run()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._build = _native.Builder()
        self._tokens: list[_Token] = []
        self._at = 0
        self._names: dict[str, _Definition] = {}
        self._ignored: list[int] = []  # where the bodies of %ignore stand
        self._between = -1  # what may stand between terminals
        self._pending: list[tuple[int, int]] = []  # native rules whose bodies are still to be parsed
        self._instances: dict[tuple[str, tuple[int, ...]], int] = {}

    def run(self) -> _native.Grammar:
        self._lex()
        self._statements()
        if "start" not in self._names:
            raise ValueError("grammar must define a rule named start, got none; rename the start rule")
        parts = [self._at_body(at, _Scope(terminal=True)) for at in self._ignored]
        self._between = self._build.repeat(self._build.alt(parts), 0, None) if parts else self._build.literal(b"")
        start = self._reference(self._names["start"], "start")
        while self._pending:
            native, body = self._pending.pop()
            self._build.define(native, self._at_body(body, _Scope()))
        return self._build.finish(self._build.cat([self._between, start]))

    # ------------------------------------------------------------------ tokens

    def _fail(self, expected: str, at: int, got: str) -> Any:
        line = self._text.count("\n", 0, at) + 1
        column = at - (self._text.rfind("\n", 0, at) + 1) + 1
        raise ValueError(f"grammar must have {expected} at line {line}, column {column}, got {got}")

    def _lex(self) -> None:
        at = 0
        while at < len(self._text):
            found = _LEX.match(self._text, at)
            if found is None:
                self._fail("a rule, a terminal or a directive", at, repr(self._text[at : at + 12]))
            assert found is not None
            kind = str(found.lastgroup)
            if kind == "directive" and found[0] == "%json":
                at = self._lex_json(found.end(), at)
                continue
            if kind != "space":
                self._tokens.append(_Token(kind, found[0], at))
            at = found.end()
        self._tokens.append(_Token("end", "", at))

    def _lex_json(self, at: int, start: int) -> int:
        while at < len(self._text) and self._text[at].isspace():
            at += 1
        try:
            _, end = json.JSONDecoder().raw_decode(self._text, at)
        except ValueError as error:
            self._fail("a JSON Schema behind %json", at, str(error))
        self._tokens.append(_Token("json", self._text[at:end], start))
        return end

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _next(self, kind: str, text: str | None = None, expected: str = "") -> _Token:
        token = self._peek()
        if token.kind != kind or (text is not None and token.text != text):
            self._fail(expected or repr(text or kind), token.at, repr(token.text) if token.text else "the end")
        self._at += 1
        return token

    def _take(self, kind: str, text: str | None = None) -> bool:
        token = self._peek()
        if token.kind == kind and (text is None or token.text == text):
            self._at += 1
            return True
        return False

    # ------------------------------------------------------------------ statements

    def _statements(self) -> None:
        while self._peek().kind != "end":
            if self._take("newline"):
                continue
            if self._peek().kind == "directive":
                self._directive()
            else:
                self._definition()

    def _directive(self) -> None:
        token = self._next("directive")
        if token.text == "%ignore":
            self._ignored.append(self._at)
        elif token.text == "%import":
            self._import(token)
        else:
            self._fail("%ignore, %import or %json", token.at, repr(token.text))
        self._skip_line()

    def _import(self, token: _Token) -> None:
        parts = [self._next("name", expected="a module name").text]
        names = []
        while self._take("sign", "."):
            parts.append(self._next("name", expected="a terminal name").text)
        if self._take("sign", "("):
            while not self._take("sign", ")"):
                names.append(self._next("name", expected="a terminal name").text)
                self._take("sign", ",")
        else:
            names.append(parts.pop())
        alias = self._next("name", expected="a name").text if self._take("arrow") else None
        if parts != ["common"] or (alias and len(names) > 1):
            self._fail("an import from common", token.at, repr(".".join([*parts, *names])))
        for name in names:
            if name not in _COMMON:
                self._fail(f"an import of one of {', '.join(sorted(_COMMON))}", token.at, repr(name))
            definition = _Definition(-1, expression=self._build.regex(_COMMON[name]))
            self._names[alias or name] = definition

    def _definition(self) -> None:
        token = self._next("name", expected="a rule or terminal name")
        name = token.text.lstrip("!?")
        params: list[str] = []
        if self._take("sign", "{"):
            while not self._take("sign", "}"):
                params.append(self._next("name", expected="a parameter name").text)
                self._take("sign", ",")
        if self._take("sign", "."):
            self._next("number", expected="a priority")
        self._next("sign", ":", "':' behind the name")
        if name in self._names:
            self._fail("one definition of each name", token.at, f"{name!r} again")
        self._names[name] = _Definition(self._at, tuple(params))
        self._skip_line()

    def _skip_line(self) -> None:
        """To the end of a statement: a line break that no alternative follows."""
        while self._peek().kind != "end":
            if self._take("newline"):
                ahead = self._at
                while self._tokens[ahead].kind == "newline":
                    ahead += 1
                if self._tokens[ahead].text != "|":
                    return
            else:
                self._at += 1

    # ------------------------------------------------------------------ expressions

    def _at_body(self, at: int, scope: _Scope) -> int:
        saved, self._at = self._at, at
        body = self._alternatives(scope)
        token = self._peek()
        if token.kind not in ("newline", "end"):
            self._fail("'|', another item or the end of the line", token.at, repr(token.text))
        self._at = saved
        return body

    def _alternatives(self, scope: _Scope) -> int:
        kids = []
        while True:
            self._lines()
            items = []
            while self._starts_item():
                items.append(self._item(scope))
            if self._take("arrow"):
                self._next("name", expected="an alias")
            kids.append(self._build.cat(items))
            ahead = self._at
            while self._tokens[ahead].kind == "newline":
                ahead += 1
            if self._tokens[ahead].text != "|":
                return self._build.alt(kids)
            self._at = ahead + 1

    def _lines(self) -> None:
        while self._take("newline"):
            pass

    def _starts_item(self) -> bool:
        token = self._peek()
        return token.kind in ("string", "regex", "name", "json") or token.text in ("(", "[", "<")

    def _item(self, scope: _Scope) -> int:
        e = self._atom(scope)
        while True:
            if self._take("sign", "?"):
                e = self._build.repeat(e, 0, 1)
            elif self._take("sign", "*"):
                e = self._build.repeat(e, 0, None)
            elif self._take("sign", "+"):
                e = self._build.repeat(e, 1, None)
            elif self._take("sign", "~"):
                low = int(self._next("number", expected="a count").text)
                high = int(self._next("number", expected="a count").text) if self._take("dots") else low
                e = self._build.repeat(e, low, high)
            elif self._take("sign", "{"):
                low = int(self._next("number", expected="a count").text)
                high_or_none: int | None = low
                if self._take("sign", ","):
                    high_or_none = int(self._next("number").text) if self._peek().kind == "number" else None
                self._next("sign", "}")
                e = self._build.repeat(e, low, high_or_none)
            else:
                return e

    def _atom(self, scope: _Scope) -> int:
        token = self._peek()
        if token.text in ("(", "["):
            self._at += 1
            e = self._alternatives(scope)
            self._lines()
            self._next("sign", ")" if token.text == "(" else "]", "the closing bracket")
            return e if token.text == "(" else self._build.repeat(e, 0, 1)
        if token.kind in ("string", "regex"):
            self._at += 1
            return self._lexeme(self._terminal_text(token), scope)
        if token.kind == "json":
            from gramcore.grammar.grammar import Grammar

            self._at += 1
            inside = self._build.include(Grammar.from_json_schema(token.text)._native)
            return self._lexeme(inside, scope)
        if token.kind != "name":
            self._fail("a name, a text, an expression or a group", token.at, repr(token.text))
        self._at += 1
        if token.text in scope.arguments:
            return scope.arguments[token.text]
        definition = self._names.get(token.text) or self._fail("a defined name", token.at, repr(token.text))
        if definition.params:
            return self._template(token, definition, scope)
        if _is_terminal(token.text):
            return self._lexeme(self._terminal(token, definition), scope)
        if scope.terminal:
            self._fail("terminals only inside a terminal", token.at, f"rule {token.text!r}")
        return self._reference(definition, token.text)

    def _lexeme(self, e: int, scope: _Scope) -> int:
        """A terminal where a rule uses it: ignored text may follow."""
        return e if scope.terminal else self._build.cat([e, self._between])

    def _terminal_text(self, token: _Token) -> int:
        if token.kind == "regex":
            body, flags = token.text[1:].rsplit("/", 1)
            if set(flags) - set("isu"):
                self._fail("the flags i, s or u", token.at, repr(flags))
            return self._regex(body.replace("\\/", "/"), token, "s" in flags, "i" in flags)
        ignore_case = token.text.endswith("i")
        first = _unquote(token.text)
        if self._peek().kind == "dots":
            self._at += 1
            last = _unquote(self._next("string", expected="a text behind '..'").text)
            if len(first) != 1 or len(last) != 1 or first > last:
                self._fail("a range of single characters", token.at, f"{first!r}..{last!r}")
            return self._regex(f"[{re.escape(first)}-{re.escape(last)}]", token, False, False)
        if ignore_case:
            return self._regex(re.escape(first), token, False, True)
        return self._build.literal(first.encode())

    def _regex(self, body: str, token: _Token, dot_all: bool, ignore_case: bool) -> int:
        try:
            return self._build.regex(body, dot_all=dot_all, ignore_case=ignore_case)
        except ValueError as error:
            self._fail("a regular expression", token.at, f"/{body}/: {error}")
            raise

    def _terminal(self, token: _Token, definition: _Definition) -> int:
        if definition.expression < 0:
            if definition.busy:
                self._fail("terminals that do not use themselves", token.at, repr(token.text))
            definition.busy = True
            definition.expression = self._at_body(definition.body, _Scope(terminal=True))
        return definition.expression

    def _reference(self, definition: _Definition, name: str) -> int:
        if definition.native < 0:
            definition.native = self._build.rule(name)
            self._pending.append((definition.native, definition.body))
        return self._build.call(definition.native)

    def _template(self, token: _Token, definition: _Definition, scope: _Scope) -> int:
        self._next("sign", "{", "'{' with the arguments")
        arguments = []
        while not self._take("sign", "}"):
            arguments.append(self._alternatives(scope))
            self._take("sign", ",")
        if len(arguments) != len(definition.params):
            self._fail(f"{len(definition.params)} arguments of {token.text!r}", token.at, str(len(arguments)))
        key = (token.text, tuple(arguments))
        if key not in self._instances:
            if len(self._instances) > 1000:
                self._fail("at most 1000 uses of templates", token.at, "more")
            rule = self._instances[key] = self._build.rule(token.text)
            inner = _Scope(dict(zip(definition.params, arguments, strict=True)))
            self._build.define(rule, self._at_body(definition.body, inner))
        return self._build.call(self._instances[key])


def _is_terminal(name: str) -> bool:
    return name.lstrip("_")[:1].isupper()


def _unquote(text: str) -> str:
    body = text[: -1 if text.endswith("i") else None]
    return str(json.loads(_json_escapes(body)))


def _json_escapes(body: str) -> str:
    """A Python-like string literal as JSON: only the escapes that JSON lacks are rewritten."""
    return re.sub(
        r"\\(x[0-9a-fA-F]{2}|.)",
        lambda m: f"\\u00{m[1][1:]}" if m[1][0] == "x" and len(m[1]) == 3 else m[0] if m[1] in '"\\/bfnrtu' else m[1],
        body,
    )
