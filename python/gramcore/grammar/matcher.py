"""Compiled grammars and the matchers that follow one text each."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gramcore._checks import check_int, check_real
from gramcore._core import grammar as _native
from gramcore.errors import FormatError
from gramcore.grammar.grammar import Grammar
from gramcore.grammar.tokenizer import TokenizerInfo

__all__ = ["BatchMatcher", "CompiledGrammar", "GrammarCompiler", "GrammarMatcher"]

_MAGIC = b"gccomp01"


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

    def serialize(self) -> bytes:
        """The grammar and the identity of its vocabulary as bytes, for :meth:`GrammarCompiler.deserialize`.

        Raises:
            ValueError: the grammar uses a catalogue.
        """
        fingerprint = self.tokenizer_info._native.fingerprint
        return _MAGIC + fingerprint.to_bytes(8, "little") + self.grammar._native.to_bytes()

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
        max_seconds: budget of time of one step or mask, > 0, or None. Unlike the others it depends on the machine.
        cache_size: compiled grammars kept for grammars of the same structure, >= 0.

    Example:
        >>> from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo
        >>> compiler = GrammarCompiler(TokenizerInfo([b"0", b"1", b"</s>"], stop=[2]))
        >>> matcher = GrammarMatcher(compiler.compile(Grammar.from_regex("[01]{2}")))
        >>> matcher.accept(1), matcher.accept(2), matcher.accept(0), matcher.allowed_tokens().tolist()
        (True, False, True, [2])
    """

    def __init__(
        self,
        tokenizer_info: TokenizerInfo,
        *,
        max_states: int = 2_000_000,
        max_bytes: int = 1 << 30,
        max_seconds: float | None = None,
        cache_size: int = 64,
    ) -> None:
        check_int("max_states", max_states, low=1)
        check_int("max_bytes", max_bytes, low=1)
        if max_seconds is not None:
            check_real("max_seconds", max_seconds, low=0, low_open=True)
        self.tokenizer_info = tokenizer_info
        self._budget = (max_states, max_bytes, max_seconds or 0.0)
        self._cache_size = check_int("cache_size", cache_size, low=0)
        self._cache: OrderedDict[tuple[int, int], _native.Compiled] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, grammar: Grammar) -> CompiledGrammar:
        """The grammar bound to the vocabulary. Grammars of one structure share states and masks.

        Raises:
            ValueError: the grammar matches no text; for a JSON Schema, says which keywords conflict.
            TypeError: not a :class:`Grammar`. GrammarTooComplex: a budget was exceeded.
        """
        if not isinstance(grammar, Grammar):
            raise TypeError(f"grammar must be a Grammar, got {type(grammar).__name__}; make it with Grammar.from_…")
        key = grammar._native.structure()
        with self._lock:
            native = self._cache.get(key)
            if native is not None:
                self._cache.move_to_end(key)
        if native is None:
            try:
                native = _native.Compiled(self.tokenizer_info._native, grammar._native, *self._budget)
            except ValueError as error:
                if not grammar._native.is_empty():
                    raise
                raise ValueError(f"{error}{grammar._conflict()}") from None
            with self._lock:
                self._cache[key] = native
                while len(self._cache) > self._cache_size:
                    self._cache.popitem(last=False)
        return CompiledGrammar(native, self.tokenizer_info, grammar)

    def deserialize(self, data: bytes) -> CompiledGrammar:
        """What :meth:`CompiledGrammar.serialize` gave, for the same vocabulary; ``data`` is checked as hostile.

        Raises:
            FormatError: not such bytes, or made for another vocabulary.
        """
        if data[: len(_MAGIC)] != _MAGIC or len(data) < 16:
            raise FormatError(f"data must begin with {_MAGIC!r}, got {data[:8]!r}; serialize the grammar again")
        if int.from_bytes(data[8:16], "little") != self.tokenizer_info._native.fingerprint:
            raise FormatError("data must be of this compiler's vocabulary, got another; compile the grammar again")
        return self.compile(Grammar(_native.Grammar.from_bytes(data[16:])))


class GrammarMatcher:
    """Follows one text token by token and says which tokens may come next.

    A token is allowed exactly when some text of the grammar starts with what was accepted plus that token; stop
    tokens exactly when the text may end here. ``fork`` and a remembered state cost O(1).

    Args:
        compiled: what to match.
        max_tokens: >= 1; length of the whole text with its stop token. Tokens are allowed only while the text can still
            end in time: while the shortest text that ends it, cut into tokens by the longest match, fits into what
            is left. A budget that is too small is overrun by no more than that text. Every new state costs a walk of
            the vocabulary. None: any length.

    Raises:
        ValueError: ``max_tokens`` < 1.
    """

    def __init__(
        self,
        compiled: CompiledGrammar,
        _native_matcher: _native.Matcher | None = None,
        *,
        max_tokens: int | None = None,
    ) -> None:
        if max_tokens is not None:
            check_int("max_tokens", max_tokens, low=1)
        self.compiled = compiled
        self._native = _native_matcher or _native.Matcher(compiled._native, -1 if max_tokens is None else max_tokens)

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
            ValueError: wrong dtype, shape or row.
        """
        return self._native.fill_bitmask(out, row)

    def fill_tree_bitmasks(self, tree: Any, out: npt.NDArray[np.int32] | Any) -> None:
        """One mask per row of a draft tree: row 0 for this place, row ``i + 1`` for the place behind node ``i``.

        Rows behind nodes that the grammar refuses are all zero. The matcher itself does not move.

        Args:
            tree: has int32 arrays ``tokens`` and ``parents`` (``parents[i] < i``, -1 for this place), as
                :class:`gramcore.spec.DraftTree`.
            out: int32, shape (n + 1 or more, W).

        Raises:
            ValueError: a token outside the vocabulary, a parent behind its node, or too few rows.
        """
        tokens = np.ascontiguousarray(tree.tokens, np.int32)
        self._native.fill_tree(tokens, np.ascontiguousarray(tree.parents, np.int32), out)

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

    def fast_forward_tokens(self, limit: int = 256) -> list[int]:
        """The tokens the tokenizer writes for the forced bytes, as far as no continuation can change them.

        The forced bytes are tokenised as a whole, alone and with typical continuations; what differs is left out, and
        what a longer token could swallow. Empty where the vocabulary came without its tokenizer
        (``TokenizerInfo.encode`` is None).

        Args:
            limit: bytes looked ahead, >= 1.
        """
        encode = self.compiled.tokenizer_info.encode
        forced = self.jump_forward_bytes(limit)
        if encode is None or not forced:
            return []
        return _settled(self.compiled.tokenizer_info, forced, encode)

    @property
    def num_steps(self) -> int:
        """Steps taken since the start."""
        return self._native.num_steps


class BatchMatcher:
    """Matchers of a batch, stepped and masked in one call; grammars run side by side on the thread pool.

    Args:
        matchers: one per row, of one vocabulary size; they can also be used on their own.

    Raises:
        ValueError: vocabularies of different sizes, or no matchers.
    """

    def __init__(self, matchers: Sequence[GrammarMatcher]) -> None:
        if not matchers:
            raise ValueError("matchers must not be empty, got none")
        self.matchers = list(matchers)
        self._native = _native.Batch([m._native for m in self.matchers])
        self._rows = np.arange(len(self.matchers))

    def fill_bitmasks(
        self, out: npt.NDArray[np.int32] | Any, rows: Sequence[int] | npt.NDArray[np.integer] | None = None
    ) -> None:
        """Write the mask of matcher ``i`` into row ``rows[i]`` of ``out`` (default: row ``i``).

        Raises:
            ValueError: wrong dtype, shape or row, or one row for two matchers.
        """
        self._native.fill_bitmasks(out, self._rows if rows is None else np.asarray(rows, np.int64))

    def accept(self, tokens: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Advance every matcher by its token; which did (the others stay where they are)."""
        return self._native.accept(np.asarray(tokens, np.int64))


#: What may follow forced bytes, one of each kind that tokenizers cut words by.
_PROBES = (b"", b"a", b"Z", b"7", b" ", b"  x", b"\n", b"'s", b"_", b'"', b"}", "é".encode(), "语".encode())


def _settled(info: TokenizerInfo, forced: bytes, encode: Callable[[bytes], Sequence[int]]) -> list[int]:
    """The first tokens of an encoding of ``forced`` that stay whatever follows."""
    tokens = list(encode(forced))
    for probe in _PROBES:
        other = encode(forced + probe)
        same = 0
        while same < min(len(tokens), len(other)) and tokens[same] == other[same]:
            same += 1
        del tokens[same:]
    at = 0
    for number, token in enumerate(tokens):
        if forced[at : at + len(info.token(token))] != info.token(token) or info._native.extends(forced[at:]):
            return tokens[:number]
        at += len(info.token(token))
    return tokens
