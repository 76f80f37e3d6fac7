"""Compiled grammars and the matchers that follow one text each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gramcore._core import grammar as _native
from gramcore.grammar.grammar import Grammar
from gramcore.grammar.tokenizer import TokenizerInfo

__all__ = ["CompiledGrammar", "GrammarCompiler", "GrammarMatcher"]


class CompiledGrammar:
    """A grammar bound to a vocabulary. Shared by any number of matchers; states and masks are made when first needed.

    Attributes:
        tokenizer_info: the vocabulary.
        grammar: the grammar.
    """

    def __init__(self, native: _native.Compiled, tokenizer_info: TokenizerInfo, grammar: Grammar) -> None:
        self._native = native
        self.tokenizer_info = tokenizer_info
        self.grammar = grammar

    @property
    def num_states(self) -> int:
        """Matcher states made so far."""
        return self._native.num_states

    @property
    def num_bytes(self) -> int:
        """Memory of states and masks made so far."""
        return self._native.num_bytes

    @property
    def bitmask_words(self) -> int:
        """32-bit words of one token bitmask."""
        return (len(self.tokenizer_info) + 31) // 32


class GrammarCompiler:
    """Compiles grammars for one vocabulary.

    Args:
        tokenizer_info: the vocabulary.
        max_states: budget of matcher states, expressions and stacks of one grammar, >= 1.
        max_bytes: budget of memory of one grammar, >= 1.

    Example:
        >>> from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo
        >>> compiler = GrammarCompiler(TokenizerInfo([b"0", b"1", b"</s>"], stop=[2]))
        >>> matcher = GrammarMatcher(compiler.compile(Grammar.from_regex("[01]{2}")))
        >>> matcher.accept(1), matcher.accept(2), matcher.accept(0), matcher.allowed_tokens().tolist()
        (True, False, True, [2])
    """

    def __init__(self, tokenizer_info: TokenizerInfo, *, max_states: int = 2_000_000, max_bytes: int = 1 << 30) -> None:
        for name, value in (("max_states", max_states), ("max_bytes", max_bytes)):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        self.tokenizer_info = tokenizer_info
        self._budget = (max_states, max_bytes)

    def compile(self, grammar: Grammar) -> CompiledGrammar:
        """The grammar bound to the vocabulary.

        Raises:
            ValueError: the grammar matches no text.
            GrammarTooComplex: a budget was exceeded.
        """
        native = _native.Compiled(self.tokenizer_info._native, grammar._native, *self._budget)
        return CompiledGrammar(native, self.tokenizer_info, grammar)


class GrammarMatcher:
    """Follows one text token by token and says which tokens may come next.

    A token is allowed exactly when some text of the grammar starts with what was accepted plus that token; stop
    tokens exactly when the text may end here. ``fork`` and a remembered state cost O(1).

    Args:
        compiled: what to match.
    """

    def __init__(self, compiled: CompiledGrammar, _native_matcher: _native.Matcher | None = None) -> None:
        self.compiled = compiled
        self._native = _native_matcher or _native.Matcher(compiled._native)

    def accept(self, token: int) -> bool:
        """Advance by a token if it is allowed; otherwise nothing changes and the answer is False.

        Raises:
            ValueError: no such token.
        """
        return self._native.accept(token)

    def accept_bytes(self, data: bytes) -> bool:
        """Advance by bytes, as one step, if some text of the grammar continues so."""
        return self._native.accept_bytes(data)

    def fill_bitmask(self, out: npt.NDArray[np.int32] | Any, row: int = 0) -> bool:
        """Write the allowed tokens into ``out``: bit ``t % 32`` of word ``t // 32`` is set when ``t`` is allowed.

        Args:
            out: int32, shape (W,) or (B, W) with W >= ceil(V / 32); a NumPy array or a CPU tensor.
            row: which row, in [0, B).

        Returns:
            Whether the mask must be applied (False only if it allows every token).

        Raises:
            ValueError: wrong shape or row. TypeError: wrong dtype.
        """
        return self._native.fill_bitmask(out, row)

    def allowed_tokens(self) -> npt.NDArray[np.int32]:
        """Ids of the allowed tokens, ascending."""
        return self._native.allowed_tokens()

    def rollback(self, n: int) -> None:
        """Undo the last ``n`` steps.

        Raises:
            ValueError: fewer steps were taken.
        """
        self._native.rollback(n)

    def reset(self) -> None:
        """Back to the start."""
        self._native.reset()

    def fork(self) -> GrammarMatcher:
        """An independent matcher at the same place, in O(1)."""
        return GrammarMatcher(self.compiled, self._native.fork())

    def is_terminated(self) -> bool:
        """Whether a stop token was accepted (or, without stop tokens, nothing can follow)."""
        return self._native.is_terminated()

    def can_terminate(self) -> bool:
        """Whether the text so far is a whole text of the grammar."""
        return self._native.can_terminate()

    def jump_forward_bytes(self, limit: int = 256) -> bytes:
        """The bytes that every continuation starts with, at most ``limit``."""
        return self._native.jump_forward_bytes(limit)

    @property
    def num_steps(self) -> int:
        """Steps taken since the start."""
        return self._native.num_steps
