"""Sampling from a model conditioned on a constraint, instead of from its masked steps.

Masking alone samples ``prod_t p(x_t | x_<t) / allowed(x_<t)``, which favours prefixes whose continuations are mostly
forbidden.  Both samplers here correct that with what they learnt about prefixes: for a prefix ``n``,
``w(n) = sum_t p(t | n) w(n t)``, with 1 for what was never seen to fail and 0 for what is excluded, and
``p'(t | n) = p(t | n) w(n t) / w(n)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gramcore._checks import check_int, check_real
from gramcore._core import grammar as _native
from gramcore._files import replacing
from gramcore._hf import cache_argument, cache_of
from gramcore.grammar.matcher import GrammarMatcher

__all__ = ["ASAp", "AprAD", "CausalLogits", "Sample"]

#: token ids of the new text so far -> raw logits (V,) of the next token
NextLogits = Callable[[list[int]], Any]


@dataclass(frozen=True)
class Sample:
    """One text.

    Attributes:
        tokens: the new token ids, stop token included.
        complete: whether it ended by a stop token or a complete constraint, not by ``max_new_tokens``.
        num_model_calls: forward passes spent on it.
        log_prob: log-probability of the tokens under the unconstrained model.
    """

    tokens: list[int]
    complete: bool
    num_model_calls: int
    log_prob: float


def _row(next_logits: NextLogits, tokens: list[int], vocab_size: int, temperature: float) -> npt.NDArray[np.float32]:
    row = np.array(next_logits(list(tokens)), np.float32, copy=True).reshape(-1)
    if len(row) < vocab_size:
        raise ValueError(f"logits must have at least {vocab_size} entries, got {len(row)}")
    return np.ascontiguousarray(row[:vocab_size] / np.float32(temperature))


def _draw(scores: npt.NDArray[np.float32], rng: np.random.Generator) -> int | None:
    """An index with probability proportional to exp(scores); None when all are -inf."""
    high = scores.max()
    if not np.isfinite(high):
        return None
    total = np.cumsum(np.exp(scores.astype(np.float64) - high))
    at = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
    while at >= len(scores) or scores[at] == -np.inf:  # rounding at the very end of the sum
        at -= 1
    return at


class _Aligner:
    """What both samplers keep: the trie of excluded mass, its file, the sampling temperature."""

    def __init__(self, vocab_size: int, *, temperature: float = 1.0) -> None:
        self.vocab_size = check_int("vocab_size", vocab_size, low=1)
        self.temperature = check_real("temperature", temperature, low=0.0, low_open=True)
        self._trie = _native.MassTrie(self.vocab_size)

    @property
    def allowed_frac(self) -> float:
        """What is known to be the most the model can put on allowed texts, in [0, 1]; 1 before the first sample."""
        return float(np.exp(self._trie.log_weight(0)))

    @property
    def num_nodes(self) -> int:
        """Prefixes stored."""
        return self._trie.num_nodes

    def reset(self) -> None:
        """Forget everything learnt."""
        self._trie = _native.MassTrie(self.vocab_size)

    def save(self, path: str | Path) -> None:
        """Write what was learnt to a file, atomically."""
        with replacing(path) as part:
            part.write_bytes(self._trie.to_bytes())

    def load(self, path: str | Path) -> None:
        """Read what :meth:`save` wrote.

        Raises:
            FormatError: not such a file, or cut. ValueError: made for another vocabulary.
        """
        trie = _native.MassTrie.from_bytes(Path(path).read_bytes())
        if trie.vocab_size != self.vocab_size:
            raise ValueError(f"trie must be for {self.vocab_size} tokens, got {trie.vocab_size} ({path})")
        self._trie = trie


class ASAp(_Aligner):
    """Adaptive sampling with approximate expected futures: masked sampling whose law converges to the right one.

    Each step adds ``log w`` of the known children to the masked logits; the mass that masks take away is carried to
    the root. Samples share what they learn, so the law tends to the model's own law conditioned on the grammar.
    Cost per step: one pass over the logits and O(stored children); a sample of T tokens stores T nodes.

    Args:
        vocab_size: V >= 1.
        temperature: > 0, divides the logits.

    Differs from paper: stores excluded mass only (a node per visited prefix, not per token) and works in log space; the
    law is the same.
    Reference: Park et al. 2024, arXiv:2405.21047, Algorithm 1.

    Example:
        >>> import numpy as np
        >>> from gramcore.grammar import ASAp, Grammar, GrammarCompiler, GrammarMatcher, TokenizerInfo
        >>> compiler = GrammarCompiler(TokenizerInfo([b"0", b"1", b"</s>"], stop=[2]))
        >>> matcher = GrammarMatcher(compiler.compile(Grammar.from_regex("00|11")))
        >>> ASAp(3).sample(lambda ids: np.zeros(3), matcher, max_new_tokens=4, rng=np.random.default_rng(0)).complete
        True
    """

    def sample(
        self, next_logits: NextLogits, matcher: GrammarMatcher, *, max_new_tokens: int, rng: np.random.Generator
    ) -> Sample:
        """Draw one text.

        Args:
            next_logits: raw logits of the next token behind the given new tokens.
            matcher: at the start of the text; it is forked, not moved.
            max_new_tokens: >= 1. A text cut by it counts as allowed.
            rng: source of randomness.

        Raises:
            ValueError: nothing the model can say is allowed.
        """
        check_int("max_new_tokens", max_new_tokens, low=1)
        calls = 0
        bits = np.zeros((self.vocab_size + 31) // 32, np.int32)
        while self._trie.log_weight(0) > -np.inf:
            here, node, log_prob = matcher.fork(), 0, 0.0
            tokens: list[int] = []
            while len(tokens) < max_new_tokens:
                row = _row(next_logits, tokens, self.vocab_size, self.temperature)
                raw, calls = row.copy(), calls + 1
                here.fill_bitmask(bits)
                log_sum = self._trie.edit(node, row, bits)
                token = _draw(row, rng)
                if token is None:
                    break  # a dead end: its weight is 0 now, and known as such up to the root
                step = min(float(raw[token]) - log_sum, 0.0)
                node = self._trie.enter(node, token, step)
                tokens.append(token)
                log_prob += step
                if not here.accept(token):
                    raise RuntimeError(f"matcher must accept what its mask allows, got a refusal of token {token}")
                if here.is_terminated():
                    return Sample(tokens, True, calls, log_prob)
            else:
                return Sample(tokens, False, calls, log_prob)
        raise ValueError("constraint must allow a text the model can produce, got none; check grammar and prompt")


class AprAD(_Aligner):
    """Approximately aligned decoding: on a violation go back only as far as its exclusion changed the law.

    When a prefix turns out bad it is excluded, which lowers ``w`` of its ancestors; then the old tokens are kept from
    the start with probability ``min(1, p_new / p_old)`` each, and at the first refusal the next token comes from the
    normalised positive residual, which is ``p_new`` without the refused token. Needs no mask: any checker of prefixes
    does. Cost per violation: O(length).

    Args:
        vocab_size: V >= 1.
        temperature: > 0, divides the logits.
        persistent: keep exclusions from one sample to the next (only for one prompt); the paper starts afresh.

    Differs from paper: none.
    Reference: Melcer et al. 2024, arXiv:2410.01103, Algorithm 3.

    Example:
        >>> import numpy as np
        >>> from gramcore.grammar import AprAD
        >>> no_pair = lambda ids: len(ids) < 2 or ids[-1] != ids[-2]
        >>> text = AprAD(3).sample(lambda ids: np.zeros(3), no_pair, max_new_tokens=6, rng=np.random.default_rng(0))
        >>> len(text.tokens), all(a != b for a, b in zip(text.tokens, text.tokens[1:]))
        (6, True)
    """

    def __init__(self, vocab_size: int, *, temperature: float = 1.0, persistent: bool = False) -> None:
        super().__init__(vocab_size, temperature=temperature)
        self.persistent = bool(persistent)

    def sample(
        self,
        next_logits: NextLogits,
        checker: Callable[[list[int]], bool] | GrammarMatcher,
        *,
        max_new_tokens: int,
        rng: np.random.Generator,
        stop: Sequence[int] = (),
    ) -> Sample:
        """Draw one text.

        Args:
            next_logits: raw logits of the next token behind the given new tokens.
            checker: whether some text that starts with these new tokens is allowed; or a matcher.
            max_new_tokens: >= 1.
            rng: source of randomness.
            stop: token ids that end the text (a matcher brings its own).

        Raises:
            ValueError: nothing the model can say is allowed.
        """
        check_int("max_new_tokens", max_new_tokens, low=1)
        if not self.persistent:
            self.reset()
        allowed, stops = self._constraint(checker, stop)
        trie, calls = self._trie, 0
        tokens: list[int] = []
        nodes, log_probs = [0], [0.0]
        refused: int | None = None
        while len(tokens) < max_new_tokens:
            row = _row(next_logits, tokens, self.vocab_size, self.temperature)
            raw, calls = row.copy(), calls + 1
            log_sum = trie.edit(nodes[-1], row, None)
            if refused is not None:
                row[refused] = -np.inf
                refused = None
            token = _draw(row, rng)
            if token is None:
                if not tokens:
                    raise ValueError("constraint must allow a text the model can produce, got none; check the checker")
                bad = nodes[-1]
            else:
                step = min(float(raw[token]) - log_sum, 0.0)
                nodes.append(trie.enter(nodes[-1], token, step))
                log_probs.append(log_probs[-1] + step)
                tokens.append(token)
                if allowed(tokens):
                    if token in stops:
                        return Sample(tokens, True, calls, log_probs[-1])
                    continue
                bad = nodes[-1]
            keep = trie.backtrack(bad, 0, rng.random(len(tokens)))
            if keep < len(tokens):
                refused = tokens[keep]
            del tokens[keep:], nodes[keep + 1 :], log_probs[keep + 1 :]
        return Sample(tokens, False, calls, log_probs[-1])

    @staticmethod
    def _constraint(
        checker: Callable[[list[int]], bool] | GrammarMatcher, stop: Sequence[int]
    ) -> tuple[Callable[[list[int]], bool], frozenset[int]]:
        if not isinstance(checker, GrammarMatcher):
            return checker, frozenset(stop)
        matcher = checker.fork()
        walked: list[int] = []

        def allowed(tokens: list[int]) -> bool:
            common = 0
            while common < min(len(walked), len(tokens)) and walked[common] == tokens[common]:
                common += 1
            matcher.rollback(len(walked) - common)
            del walked[common:]
            for token in tokens[common:]:
                if not matcher.accept(token):
                    return False
                walked.append(token)
            return True

        return allowed, frozenset(checker.compiled.tokenizer_info.stop_tokens) | frozenset(stop)


class CausalLogits:
    """``next_logits`` of a transformers causal model behind a prompt, with a key/value cache cut back as needed.

    Args:
        model: a causal language model with a croppable cache.
        prompt_ids: token ids of the prompt, at least one.
    """

    def __init__(self, model: Any, prompt_ids: Sequence[int]) -> None:
        if len(prompt_ids) == 0:
            raise ValueError("prompt_ids must hold at least one token, got none; pass the beginning-of-text token")
        self._model = model
        self._prompt = [int(t) for t in prompt_ids]
        self._cached: list[int] = []
        self._cache: Any = None

    def __call__(self, tokens: list[int]) -> npt.NDArray[np.float32]:
        """Logits (V,) behind prompt + tokens."""
        import torch

        ids = self._prompt + tokens
        common = 0
        while common < min(len(self._cached), len(ids) - 1) and self._cached[common] == ids[common]:
            common += 1
        if self._cache is not None and common < len(self._cached):
            if common:
                self._cache.crop(common - len(self._cached))  # how many to remove: the form that every version takes
            else:
                self._cache = None
        device = next(self._model.parameters()).device
        with torch.no_grad():
            out = self._model(
                input_ids=torch.tensor([ids[common:]], device=device),
                use_cache=True,
                **cache_argument(self._model, self._cache),
            )
        self._cache, self._cached = cache_of(out), ids
        row: npt.NDArray[np.float32] = out.logits[0, -1].float().cpu().numpy()
        return row
