"""Grammars in the dialect of Lark, as a scannerless grammar: terminals are expressions, rules call them."""

from __future__ import annotations

import re

from gramcore._core import grammar as _native
from gramcore.grammar.errors import GrammarTooComplex
from gramcore.grammar.lark_statements import Statements
from gramcore.grammar.lark_tokens import (
    MAX_NESTING,
    Definition,
    Scope,
    Token,
    is_terminal,
    place_of,
    some_chunks,
    substring_chunks,
    token_ids,
    unquote,
)
from gramcore.grammar.report import SchemaReport

__all__ = ["parse_lark"]


def parse_lark(text: str) -> tuple[_native.Grammar, dict[str, SchemaReport]]:
    """See :meth:`gramcore.grammar.Grammar.from_lark`; the reports are those of the schemas inside."""
    parser = _Parser(text)
    return parser.run(), parser.reports


class _Parser(Statements):
    """Makes expressions and rules of what the statements define."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._between = -1  # what may stand between terminals
        self._pending: list[Definition] = []  # rules whose bodies are still to be parsed
        self.reports: dict[str, SchemaReport] = {}  # of %json, by place
        self._depth = 0  # of groups, terminals inside terminals and templates under way
        self._instances: dict[tuple[str, tuple[int, ...]], int] = {}

    def run(self) -> _native.Grammar:
        self._read_statements()
        if "start" not in self._names:
            raise ValueError("grammar must define a rule named start, got none; rename the start rule")
        parts = [self._at_body(at, Scope(terminal=True)) for at in self._ignored]
        self._between = self._build.repeat(self._build.alt(parts), 0, None) if parts else self._build.literal(b"")
        start = self._reference(self._names["start"], "start")
        while self._pending:
            definition = self._pending.pop()
            self._build.define(definition.native, self._rule_body(definition))
        return self._build.finish(self._build.cat([self._between, start]))

    def _rule_body(self, definition: Definition) -> int:
        if not definition.lazy and definition.suffix < 0 and definition.stop < 0:
            return self._at_body(definition.body, Scope())
        build, terminal = self._build, Scope(terminal=True)
        text = self._at_body(definition.body, terminal)
        if definition.stop >= 0:
            stop = self._at_atom(definition.stop)
            if self._tokens[definition.stop].text != '""':
                stopped = build.cat([text, stop, build.anything()])
                text = build.conj([text, build.complement(stopped)])
        else:
            if definition.suffix >= 0:
                text = build.cat([text, self._at_atom(definition.suffix)])
            more = build.conj([build.anything(), build.complement(build.literal(b""))])
            text = build.conj([text, build.complement(build.cat([text, more]))])
        return self._lexeme(text, Scope())

    def _at_atom(self, at: int) -> int:
        saved, self._at = self._at, at
        e = self._atom(Scope(terminal=True))
        self._at = saved
        return e

    # ------------------------------------------------------------------ expressions

    def _at_body(self, at: int, scope: Scope) -> int:
        saved, self._at = self._at, at
        body = self._alternatives(scope)
        token = self._peek()
        if token.kind not in ("newline", "end"):
            self._fail("'|', another item or the end of the line", token.at, repr(token.text))
        self._at = saved
        return body

    def _alternatives(self, scope: Scope) -> int:
        kids = []
        while True:
            self._lines()
            items = []
            while self._starts_item():
                items.append(self._item(scope))
            both = [self._build.cat(items)]
            while scope.terminal and self._take("sign", "&"):
                items = [self._item(scope)]
                while self._starts_item():
                    items.append(self._item(scope))
                both.append(self._build.cat(items))
            if self._take("arrow"):
                self._next("name", expected="an alias")
            kids.append(self._build.conj(both) if len(both) > 1 else both[0])
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
        return token.kind in ("string", "regex", "name", "json", "regex_json", "special") or token.text in (
            "(",
            "[",
            "~",
        )

    def _item(self, scope: Scope) -> int:
        e = self._atom(scope)
        while True:
            if self._take("sign", "?"):
                e = self._build.repeat(e, 0, 1)
            elif self._take("sign", "*"):
                e = self._build.repeat(e, 0, None)
            elif self._take("sign", "+"):
                e = self._build.repeat(e, 1, None)
            elif self._peek().text == "~" and self._tokens[self._at + 1].kind == "number":
                self._at += 1
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

    def _atom(self, scope: Scope) -> int:
        self._depth += 1
        if self._depth > MAX_NESTING:
            place = place_of(self._text, self._peek().at)
            raise GrammarTooComplex(
                f"grammar must nest at most {MAX_NESTING} groups and terminals, got more at {place}"
            )
        made = self._one_atom(scope)
        self._depth -= 1
        return made

    def _one_atom(self, scope: Scope) -> int:
        token = self._peek()
        if token.text in ("(", "["):
            self._at += 1
            e = self._alternatives(scope)
            self._lines()
            self._next("sign", ")" if token.text == "(" else "]", "the closing bracket")
            return e if token.text == "(" else self._build.repeat(e, 0, 1)
        if token.text == "~" and scope.terminal:
            self._at += 1
            return self._build.complement(self._atom(scope))
        if token.kind in ("string", "regex"):
            self._at += 1
            return self._lexeme(self._terminal_text(token), scope)
        if token.kind == "regex_json":
            self._at += 1
            return self._lexeme(self._substring(token), scope)
        if token.kind == "special":
            if scope.terminal:
                self._fail("special tokens in rules only", token.at, repr(token.text))
            self._at += 1
            return self._lexeme(self._special(token), scope)
        if token.kind == "json":
            self._at += 1
            return self._lexeme(self._schema(token), scope)
        if token.kind != "name":
            self._fail("a name, a text, an expression or a group", token.at, repr(token.text))
        self._at += 1
        if token.text in scope.arguments:
            return scope.arguments[token.text]
        definition = self._names.get(token.text) or self._fail("a defined name", token.at, repr(token.text))
        if definition.params:
            return self._template(token, definition, scope)
        if is_terminal(token.text):
            return self._lexeme(self._terminal(token, definition), scope)
        if scope.terminal:
            self._fail("terminals only inside a terminal", token.at, f"rule {token.text!r}")
        return self._reference(definition, token.text)

    def _schema(self, token: Token) -> int:
        from gramcore.grammar.grammar import Grammar

        try:
            made = Grammar.from_json_schema(token.text)
        except ValueError as error:
            self._fail("a JSON Schema behind %json", token.at, str(error))
        if made.report is not None:
            self.reports[place_of(self._text, token.at)] = made.report
        return self._build.include(made._native)

    def _special(self, token: Token) -> int:
        """``<name>``, or ids: ``<[7]>``, ``<[7-9,12]>``, ``<[^7]>``, ``<[*]>``."""
        if not token.text.startswith("<["):
            return self._build.token(token.text, [], False)
        expected = "token ids, ranges of them, ^ or *"
        ranges, others = token_ids(token.text) or self._fail(expected, token.at, repr(token.text))
        return self._build.token("", ranges, others)

    def _substring(self, token: Token) -> int:
        """``%regex {"substring_words": text}``: some chunks in a row, as they stand there."""
        chunks = substring_chunks(token.text)
        if chunks is None:
            self._fail("one of substring_chunks, substring_words, substring_chars with its text", token.at, token.text)
        assert chunks is not None
        return some_chunks(self._build, chunks)

    def _lexeme(self, e: int, scope: Scope) -> int:
        """A terminal where a rule uses it: ignored text may follow."""
        return e if scope.terminal else self._build.cat([e, self._between])

    def _terminal_text(self, token: Token) -> int:
        if token.kind == "regex":
            body, flags = token.text[1:].rsplit("/", 1)
            if set(flags) - set("isu"):
                self._fail("the flags i, s or u", token.at, repr(flags))
            return self._regex(body.replace("\\/", "/"), token, "s" in flags, "i" in flags)
        ignore_case = token.text.endswith("i")
        first = unquote(token.text)
        if self._peek().kind == "dots":
            self._at += 1
            last = unquote(self._next("string", expected="a text behind '..'").text)
            if len(first) != 1 or len(last) != 1 or first > last:
                self._fail("a range of single characters", token.at, f"{first!r}..{last!r}")
            return self._regex(f"[{re.escape(first)}-{re.escape(last)}]", token, False, False)
        if ignore_case:
            return self._regex(re.escape(first), token, False, True)
        return self._build.literal(first.encode())

    def _regex(self, body: str, token: Token, dot_all: bool, ignore_case: bool) -> int:
        try:
            return self._build.regex(body, dot_all=dot_all, ignore_case=ignore_case)
        except ValueError as error:
            self._fail("a regular expression", token.at, f"/{body}/: {error}")
            raise

    def _terminal(self, token: Token, definition: Definition) -> int:
        if definition.expression < 0:
            if definition.busy:
                self._fail("terminals that do not use themselves", token.at, repr(token.text))
            definition.busy = True
            definition.expression = self._at_body(definition.body, Scope(terminal=True))
        return definition.expression

    def _reference(self, definition: Definition, name: str) -> int:
        if definition.native < 0:
            definition.native = self._build.rule(name)
            self._pending.append(definition)
        return self._build.call(definition.native)

    def _template(self, token: Token, definition: Definition, scope: Scope) -> int:
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
            inner = Scope(dict(zip(definition.params, arguments, strict=True)))
            self._build.define(rule, self._at_body(definition.body, inner))
        return self._build.call(self._instances[key])
