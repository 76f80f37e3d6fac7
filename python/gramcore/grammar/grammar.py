"""Grammars: what texts are allowed, before any vocabulary is known."""

from __future__ import annotations

from gramcore._core import grammar as _native

__all__ = ["Grammar"]


class Grammar:
    """A set of texts. Made by the ``from_…`` constructors, compiled by :class:`GrammarCompiler`."""

    def __init__(self, native: _native.Grammar) -> None:
        self._native = native

    @classmethod
    def from_regex(cls, text: str, *, boolean_operators: bool = False, dot_all: bool = False) -> Grammar:
        r"""The texts that match a regular expression as a whole.

        Literals, escapes, classes, groups, alternation, repetition (lazy ones mean the same), anchors at the ends.
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
