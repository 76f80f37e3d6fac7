"""A grammar in ``transformers.generate``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gramcore.grammar.bitmask import apply_bitmask_
from gramcore.grammar.matcher import CompiledGrammar, GrammarMatcher
from gramcore.grammar.tokenizer import TokenizerInfo

__all__ = ["GrammarLogitsProcessor"]


class GrammarLogitsProcessor:
    """Sets the logits of tokens that the grammar forbids to -inf; for sampling, batches and beams.

    The text that the grammar sees starts after the prompt. Rows are known by their tokens, so beams may be reordered.

    Args:
        grammar: one compiled grammar for all sequences, or one per sequence of the batch.
        max_tokens: >= 1; new tokens in which every text ends, as :class:`GrammarMatcher` has it. None: any number.

    Scores may be wider than the vocabulary (padded heads: what is beyond is never allowed). They may be narrower only
    by special tokens that do not end a text, as added tokens that the model's head was not resized for.

    Raises:
        ValueError: the number of rows is not a multiple of the number of grammars, or scores lack tokens with text or
            stop tokens of the vocabulary (another model's tokenizer?).

    Example:
        >>> import torch
        >>> from gramcore.grammar import Grammar, GrammarCompiler, GrammarLogitsProcessor, TokenizerInfo
        >>> compiler = GrammarCompiler(TokenizerInfo([b"0", b"1", b"</s>"], stop=[2]))
        >>> processor = GrammarLogitsProcessor(compiler.compile(Grammar.from_regex("1")))
        >>> processor(torch.tensor([[0]]), torch.zeros(1, 3)).tolist()
        [[-inf, 0.0, -inf]]
    """

    def __init__(self, grammar: CompiledGrammar | Sequence[CompiledGrammar], *, max_tokens: int | None = None) -> None:
        self.grammars = [grammar] if isinstance(grammar, CompiledGrammar) else list(grammar)
        if not self.grammars:
            raise ValueError("grammar must be one compiled grammar or more, got none")
        self.max_tokens = max_tokens
        self._prompt_len: int | None = None
        self._checked_len: int | None = None  # scores' width that fits the vocabularies
        self._places: dict[tuple[int, tuple[int, ...]], GrammarMatcher] = {}

    def reset(self) -> None:
        """Forget the generation under way; the next call starts a new one."""
        self._prompt_len = None
        self._places.clear()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mask ``scores`` (B, V) for the rows ``input_ids`` (B, T); a copy is returned."""
        rows = input_ids.shape[0]
        if rows % len(self.grammars):
            raise ValueError(f"scores must have a multiple of {len(self.grammars)} rows (grammars), got {rows}")
        if scores.shape[1] != self._checked_len:
            for compiled in self.grammars:
                _check_width(compiled.tokenizer_info, scores.shape[1])
            self._checked_len = scores.shape[1]
        if self._prompt_len is None or input_ids.shape[1] <= self._prompt_len:
            self._places.clear()
            self._prompt_len = input_ids.shape[1]
        texts = input_ids[:, self._prompt_len :].tolist()
        words = (scores.shape[1] + 31) // 32
        bitmask = torch.full((rows, words), -1, dtype=torch.int32)
        places: dict[tuple[int, tuple[int, ...]], GrammarMatcher] = {}
        for row, text in enumerate(texts):
            key = (row * len(self.grammars) // rows, tuple(text))
            matcher = places.get(key) or self._matcher(*key)
            places[key] = matcher
            if not matcher.is_terminated():  # a finished row is padded by the caller
                self._fill(matcher, bitmask, row)
        self._places = places
        return apply_bitmask_(scores.clone(), bitmask.to(scores.device))

    def _matcher(self, which: int, text: tuple[int, ...]) -> GrammarMatcher:
        before = self._places.get((which, text[:-1])) if text else None
        matcher = (
            before.fork() if before is not None else GrammarMatcher(self.grammars[which], max_tokens=self.max_tokens)
        )
        for token in text[-1:] if before is not None else text:
            if matcher.is_terminated():
                break
            if not matcher.accept(token):
                raise ValueError(f"text must stay inside the grammar, got token {token} that it refuses")
        return matcher

    @staticmethod
    def _fill(matcher: GrammarMatcher, bitmask: torch.Tensor, row: int) -> None:
        vocab_words = matcher.compiled.bitmask_words
        if bitmask.shape[1] >= vocab_words:
            matcher.fill_bitmask(bitmask, row)
            return
        wide: Any = torch.empty((1, vocab_words), dtype=torch.int32)
        matcher.fill_bitmask(wide, 0)
        bitmask[row] = wide[0, : bitmask.shape[1]]


def _check_width(info: TokenizerInfo, width: int) -> None:
    """Refuse scores in which tokens that a grammar can need have no column."""
    stop = info.stop_tokens
    for token in range(width, len(info)):
        if token in stop or (info.token(token) and not info.is_special(token)):
            what = "a stop token" if token in stop else f"the token {info.token(token)!r}"
            raise ValueError(
                f"scores must have a column per token of the grammar's vocabulary ({len(info)}), got {width}, which "
                f"lacks token {token}, {what}; make the TokenizerInfo from this model's tokenizer"
            )
