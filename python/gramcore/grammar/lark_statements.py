"""The statements of a grammar in Lark's dialect: which names it defines, and where their bodies stand."""

from __future__ import annotations

from typing import Any

from gramcore._core import grammar as _native
from gramcore.grammar.lark_tokens import COMMON, Definition, Token, fail, lex

__all__ = ["Statements"]


class Statements:
    """Reads the tokens of a grammar: rules, terminals, ``%import`` and ``%ignore``; bodies are passed over."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._build = _native.Builder()
        self._tokens = lex(text)
        self._at = 0
        self._names: dict[str, Definition] = {}
        self._ignored: list[int] = []  # where the bodies of %ignore stand

    def _fail(self, expected: str, at: int, got: str) -> Any:
        raise fail(self._text, expected, at, got)

    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _next(self, kind: str, text: str | None = None, expected: str = "") -> Token:
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

    def _read_statements(self) -> None:
        while self._peek().kind != "end":
            if self._take("newline") or self._take("llguidance"):  # its options are not about texts
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
            self._fail("%ignore, %import, %json, %regex or %llguidance", token.at, repr(token.text))
        self._skip_line()

    def _import(self, token: Token) -> None:
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
            if name not in COMMON:
                self._fail(f"an import of one of {', '.join(sorted(COMMON))}", token.at, repr(name))
            definition = Definition(-1, expression=self._build.regex(COMMON[name]))
            self._names[alias or name] = definition

    def _definition(self) -> None:
        token = self._next("name", expected="a rule or terminal name")
        name = token.text.lstrip("!?")
        params: list[str] = []
        if self._take("sign", "{"):
            while not self._take("sign", "}"):
                params.append(self._next("name", expected="a parameter name").text)
                self._take("sign", ",")
        made = Definition(-1, tuple(params))
        if self._take("sign", "["):
            self._attributes(made)
        if self._take("sign", "."):
            self._next("number", expected="a priority")
        self._next("sign", ":", "':' behind the name")
        if name in self._names:
            self._fail("one definition of each name", token.at, f"{name!r} again")
        made.body = self._at
        self._names[name] = made
        self._skip_line()

    def _attributes(self, made: Definition) -> None:
        """``[capture, lazy, suffix="text", stop=/expression/]`` behind a rule's name."""
        while not self._take("sign", "]"):
            key = self._next("name", expected="an attribute")
            if key.text == "lazy":
                made.lazy = True
            elif key.text in ("suffix", "stop") and self._peek().text == "=":
                self._at += 1
                if key.text == "stop":
                    made.stop = self._at
                else:
                    made.suffix = self._at
                if self._peek().kind not in ("string", "regex", "name"):
                    self._fail("a text, an expression or a terminal", self._peek().at, repr(self._peek().text))
                self._at += 1
            elif key.text in ("capture", "stop_capture"):  # what is captured is no matter of the texts
                if self._take("sign", "="):
                    self._next("string", expected="a name in quotes")
            else:
                expected = "one of the attributes lazy, suffix, stop, capture (tokens are not counted by a grammar)"
                self._fail(expected, key.at, repr(key.text))
            if self._peek().text != "]":
                self._next("sign", ",", "',' or ']'")

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
