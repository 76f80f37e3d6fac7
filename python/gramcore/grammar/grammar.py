"""Grammars: what texts are allowed, before any vocabulary is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gramcore._checks import check_int
from gramcore._core import grammar as _native
from gramcore.grammar.errors import GrammarTooComplex
from gramcore.grammar.report import KeywordReport, SchemaReport

if TYPE_CHECKING:
    from gramcore.grammar.structural import StructuralTag

__all__ = ["Grammar"]

_UNBOUNDED = 0xFFFFFFFF


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        raise GrammarTooComplex("schema must nest at most 1000 levels, got more; flatten it") from None


class Grammar:
    """A set of texts. Made by the ``from_…`` constructors, compiled by :class:`GrammarCompiler`.

    Attributes:
        report: what a JSON Schema's keywords became; None for other front ends.
        reports: the same of JSON Schemas inside another grammar, by where they stand: ``"line 2, column 9"`` of a Lark
            grammar, ``"format.elements[1]"`` of a structural tag given as JSON, ``begin`` of a tag.
    """

    def __init__(
        self,
        native: _native.Grammar,
        report: SchemaReport | None = None,
        reports: Mapping[str, SchemaReport] | None = None,
    ) -> None:
        self._native = native
        self.report = report
        self.reports = dict(reports or {})
        self._is_empty: Callable[[str], bool] | None = None  # of another schema under the same options

    def _conflict(self) -> str:
        """Why a JSON Schema's grammar matches nothing: the keywords that exclude each other."""
        if self.report is None or self._is_empty is None:
            return ""
        from gramcore.grammar.conflict import conflicting_keywords

        try:
            keywords = conflicting_keywords(self.report.text, self._is_empty)
        except RecursionError:  # nested too deep to be taken apart
            return ""
        return f"; these keywords exclude each other: {', '.join(keywords)}" if len(keywords) > 1 else ""

    @classmethod
    def from_json_schema(
        cls,
        schema: str | Mapping[str, Any] | bool,
        *,
        strict: bool = False,
        spaces: bool = True,
        any_order: bool = False,
        max_string_length: int | None = None,
        max_digits: int = 40,
        resources: Mapping[str, Any] | None = None,
    ) -> Grammar:
        """The JSON texts that a JSON Schema (drafts 4 to 2020-12) accepts.

        Properties come in the schema's order, others anywhere between them. Between tokens stands nothing, one space,
        or a line break with at most 40 characters of indentation.

        Args:
            schema: as JSON text, a dict or a boolean; ``"{}"`` is any JSON value.
            strict: refuse what cannot be enforced exactly instead of reporting it in ``report``.
            spaces: whether white space may stand between tokens.
            any_order: let the properties of objects come in any order; required ones are still demanded, and none comes
                twice. States are made as a text reaches them.
            max_string_length: characters of a string, and of a key that is not declared, at most; None: no bound. Where
                its schema demands more, that many.
            max_digits: digits of a number before the point at most, and behind it, in [1, 400]; where its schema needs
                more, that many. These bounds stand in ``report``, this one where it is below 40.
            resources: schemas by absolute URI that references may name; nothing is fetched.

        Raises:
            ValueError: not JSON (line and column), not a schema, a keyword that is refused (with its place), or a bound
                outside its interval.
            GrammarTooComplex: more rules or nesting than the budget; strict: or more alternatives.

        Differs from paper: none. JSON Schema counts ``1.0`` as an integer; the grammar writes integers without point.

        Example:
            >>> from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo
            >>> grammar = Grammar.from_json_schema({"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2})
            >>> matcher = GrammarMatcher(GrammarCompiler(TokenizerInfo([b"x"])).compile(grammar))
            >>> matcher.accept_bytes(b"[1,2"), matcher.accept_bytes(b","), matcher.accept_bytes(b"]")
            (True, False, True)
        """
        text = schema if isinstance(schema, str) else _json(schema)
        more = _json(dict(resources)) if resources else "{}"
        longest = _UNBOUNDED
        if max_string_length is not None:
            longest = check_int("max_string_length", max_string_length, low=0, high=_UNBOUNDED)
        max_digits = check_int("max_digits", max_digits, low=1, high=400)
        bounds = (spaces, any_order, longest, max_digits, more)
        native, entries = _native.Grammar.from_json_schema(text, strict, *bounds)
        grammar = cls(native, SchemaReport(tuple(KeywordReport(*entry) for entry in entries), text))

        def is_empty(other: str) -> bool:
            try:
                return _native.Grammar.from_json_schema(other, False, *bounds)[0].is_empty()
            except (ValueError, GrammarTooComplex):
                return False

        grammar._is_empty = is_empty
        return grammar

    @classmethod
    def from_regex(cls, text: str, *, boolean_operators: bool = False, dot_all: bool = False) -> Grammar:
        r"""The texts that match a regular expression as a whole.

        Literals, escapes, classes, groups, alternation, repetition (lazy ones mean the same), anchors at the ends,
        look-ahead (not in a repetition) and look-behind (not in a group, nor behind a look-ahead).
        ``\d``, ``\w`` and ``\s`` mean their ASCII sets; bounds as large as ``{0,1000000}`` cost nothing extra.

        Args:
            text: the expression.
            boolean_operators: ``a&b`` matches what both match, ``~a`` every text that the next item does not match.
            dot_all: ``.`` matches a line feed too.

        Raises:
            ValueError: not such an expression; says the line and column.
            GrammarTooComplex: nested deeper than the budget.

        Example:
            >>> from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo
            >>> compiler = GrammarCompiler(TokenizerInfo([b"a", b"b", b"ab", b"ba"]))
            >>> matcher = GrammarMatcher(compiler.compile(Grammar.from_regex("(ab)+")))
            >>> matcher.allowed_tokens().tolist()
            [0, 2]
        """
        return cls(_native.Grammar.from_regex(text, False, boolean_operators, dot_all))

    @classmethod
    def from_gbnf(cls, text: str) -> Grammar:
        r"""The texts of rule ``root`` of a grammar in llama.cpp's notation.

        ``name ::= "text" [a-z0-9] other-rule (group) . | …`` with ``* + ? {m} {m,} {m,n}``, escapes
        ``\n \r \t \xHH \uHHHH \UHHHHHHHH``, comments from ``#``. Rules may come in any order and call each
        other in any way; the compiler rewrites left recursion.

        Args:
            text: the grammar.

        Raises:
            ValueError: not such a grammar, or a rule that is not defined; says line, column and what was expected.
            GrammarTooComplex: nested deeper than the budget.

        Example:
            >>> from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo
            >>> nested = Grammar.from_gbnf('root ::= "(" root? ")"')
            >>> matcher = GrammarMatcher(GrammarCompiler(TokenizerInfo([b"(", b")", b"()"])).compile(nested))
            >>> matcher.accept(0), matcher.allowed_tokens().tolist()
            (True, [0, 1, 2])
        """
        return cls(_native.parse_bnf(text, False))

    @classmethod
    def from_ebnf(cls, text: str) -> Grammar:
        """The texts of a grammar in the W3C's EBNF: rule ``root``, or the first one.

        As :meth:`from_gbnf`, and also ``'text'``, ``#xHH`` characters, ``A - B`` (texts of A that are not texts of B;
        neither may name a rule), comments ``/* … */`` and ``;`` behind a rule.

        Args:
            text: the grammar.

        Raises:
            ValueError: not such a grammar; says the line, the column and what was expected.
            GrammarTooComplex: nested deeper than the budget.
        """
        return cls(_native.parse_bnf(text, True))

    @classmethod
    def from_choices(cls, choices: Iterable[str | bytes]) -> Grammar:
        """Exactly one of the texts; shared beginnings are stored once, so a million names are one trie.

        Args:
            choices: at least one.

        Raises:
            ValueError: no choices. TypeError: not texts.
        """
        if isinstance(choices, (str, bytes)):
            raise TypeError("choices must be a collection of texts, got a single text; put it into a list")
        texts = [c.encode() if isinstance(c, str) else bytes(c) for c in choices]
        if not texts:
            raise ValueError("choices must not be empty, got none")
        return cls(_native.choice_grammar(texts))

    @classmethod
    def from_lark(cls, text: str) -> Grammar:
        r"""The texts of rule ``start`` of a grammar in the dialect of Lark.

        Rules (``name: a b | c``, aliases and priorities are read over), terminals (``NAME``), texts with flag i, ranges
        ``"a".."z"``, ``/expressions/`` with flags i, s, u, ``? * + ~n ~n..m {m,n}``, groups and ``[optional]``,
        templates, ``%import common.X``, ``%ignore``, and JSON Schemas inline: ``value: %json {"type": "object"}``.

        Of llguidance's extensions: special tokens (``<|eot|>``, and by id ``<[7]>``, ``<[7-9,12]>``, ``<[^7]>``,
        ``<[*]>``) in rules, which masks allow nowhere else; ``&`` and ``~`` in terminals; ``%regex`` with
        ``substring_chunks``, ``substring_words`` or ``substring_chars``; ``rule[lazy]`` (as few bytes as possible),
        ``rule[suffix="text"]`` (the same up to and with a text) and ``rule[stop="text"]`` (up to what follows).

        Args:
            text: the grammar.

        Raises:
            ValueError: not such a grammar; says the line, the column and what was expected.
            GrammarTooComplex: nested deeper than the budget.

        Differs from Lark: there is no lexer. A text is allowed when it can be cut into terminals in some way, so a
        name may be read as two names in a row where the rules allow that; ignored text may stand before the first and
        after every terminal.

        Example:
            >>> from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo
            >>> sums = Grammar.from_lark('start: start "+" NUMBER | NUMBER\n%import common.NUMBER\n%ignore " "')
            >>> matcher = GrammarMatcher(GrammarCompiler(TokenizerInfo([b"x"])).compile(sums))
            >>> matcher.accept_bytes(b"1 + 22+3"), matcher.can_terminate()
            (True, True)
        """
        from gramcore.grammar.lark import parse_lark

        native, reports = parse_lark(text)
        return cls(native, reports=reports)

    @classmethod
    def from_pydantic(cls, model: Any, *, undeclared: bool = False, **options: Any) -> Grammar:
        """The JSON texts that a Pydantic model (or any type Pydantic knows) reads, by its JSON Schema.

        Args:
            model: a ``BaseModel`` class, or another type such as ``list[int]``.
            undeclared: whether objects may have properties that their model does not declare, and drops when it reads
                them. Models of ``extra="allow"`` always may, those of ``extra="forbid"`` never.
            options: those of :meth:`from_json_schema`.

        Raises:
            MissingExtraError: Pydantic is not installed. Errors of :meth:`from_json_schema`.
        """
        from gramcore.grammar.pydantic_schema import pydantic_schema

        return cls.from_json_schema(pydantic_schema(model, undeclared=undeclared), **options)

    @classmethod
    def from_structural_tag(cls, tag: str | Mapping[str, Any]) -> Grammar:
        r"""The texts of a structural tag given as JSON, as serving engines take it for ``response_format``.

        ``{"type": "structural_tag", "format": F}`` where F is one of ``const_string``, ``json_schema``, ``regex``,
        ``grammar`` (EBNF), ``any_text`` (with ``excludes``), ``sequence``, ``or``, ``token`` (a special
        token's text or an id), ``tag`` (``begin``, ``content``, ``end``), ``triggered_tags`` and
        ``tags_with_separator``, the last two with ``at_least_one`` (a tag stands at the beginning) and
        ``stop_after_first``. Free text inside a tag goes on to its first ``end``.

        Args:
            tag: JSON text or a dict.

        Raises:
            ValueError: not such a tag (with the place inside it); errors of the parts' front ends.

        Example:
            >>> from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo
            >>> think = {"type": "tag", "begin": "<think>", "content": {"type": "any_text"}, "end": "</think>"}
            >>> call = {"begin": "<n>", "content": {"type": "regex", "pattern": "[0-9]+"}, "end": "</n>"}
            >>> tools = {"type": "triggered_tags", "triggers": ["<n>"], "tags": [call], "at_least_one": True}
            >>> tag = {"type": "structural_tag", "format": {"type": "sequence", "elements": [think, tools]}}
            >>> grammar = Grammar.from_structural_tag(tag)
            >>> matcher = GrammarMatcher(GrammarCompiler(TokenizerInfo([b"x"])).compile(grammar))
            >>> matcher.accept_bytes(b"<think>hm</think>"), matcher.jump_forward_bytes()
            (True, b'<n>')
        """
        from gramcore.grammar.tag_format import from_tag_format

        native, reports = from_tag_format(tag)
        return cls(native, reports=reports)

    @classmethod
    def structural(
        cls,
        tags: Sequence[StructuralTag],
        triggers: Sequence[str],
        *,
        at_least: int = 0,
        at_most: int | None = None,
    ) -> Grammar:
        """Free text until a trigger, then what one of the tags allows, then free text again.

        A trigger in free text always opens a tag; which one is decided by what follows it.

        Args:
            tags: kinds of structured parts; the ``begin`` of each starts with exactly one trigger.
            triggers: texts that do not occur in free text.
            at_least, at_most: number of structured parts; ``at_most`` None: any.

        Raises:
            ValueError: no tags or triggers, or a tag without its trigger.

        Example:
            >>> from gramcore.grammar import GrammarCompiler, GrammarMatcher, StructuralTag, TokenizerInfo
            >>> tag = StructuralTag("<n>", Grammar.from_regex("[0-9]+"), "</n>")
            >>> grammar = Grammar.structural([tag], ["<n"])
            >>> matcher = GrammarMatcher(GrammarCompiler(TokenizerInfo([b"x"])).compile(grammar))
            >>> matcher.accept_bytes(b"it is <n>12</n>."), matcher.accept_bytes(b" <nb")
            (True, False)
        """
        from gramcore.grammar.structural import structural

        reports = {t.begin: t.grammar.report for t in tags if t.grammar.report is not None}
        return cls(structural(tags, triggers, at_least=at_least, at_most=at_most), reports=reports)
