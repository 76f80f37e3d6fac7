"""Replays a known text through drafters: tokens per step when every step offers ten, without a model.

The text is Python of the standard library, in tokens of SmolLM2: an edited copy of the prompt, and code that follows it
freshly. Peers are called by their public interface and get the same history.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gramcore.spec import Context, CounterRng, Drafter, Sampling

from bench.harness import peer_version

Draft = tuple[Sequence[int], Sequence[int]]  # tokens, parents
IntArray = npt.NDArray[np.int32]

BUDGET = 10


def texts(tokenizer: Any, prompt_len: int = 4000) -> dict[str, tuple[IntArray, IntArray]]:
    """``{"edited copy": (prompt, continuation), "fresh code": ...}``; edits every 8 to 40 tokens, fixed seed."""
    import argparse

    source = np.array(tokenizer(inspect.getsource(argparse))["input_ids"], np.int32)
    prompt = source[:prompt_len]
    rng = np.random.default_rng(0)
    copy: list[int] = []
    place = 0
    while place < 1500:
        run = int(rng.integers(8, 41))
        copy += prompt[place : place + run].tolist()
        place += run
        kind = rng.integers(3)
        if kind == 0:  # replaced
            copy.append(int(rng.choice(source)))
            place += 1
        elif kind == 1:  # inserted
            copy += rng.choice(source, int(rng.integers(1, 4))).tolist()
        else:  # left out
            place += int(rng.integers(1, 4))
    return {"edited copy": (prompt, np.int32(copy)), "fresh code": (prompt, source[prompt_len : prompt_len + 3000])}


class OurSide:
    """A drafter of the library behind ``start``, ``draft``, ``add``."""

    def __init__(self, make: Callable[[], Drafter]) -> None:
        self.make = make

    def start(self, prompt: IntArray, room: int) -> None:
        self.drafter = self.make()
        self.drafter.observe(prompt)
        self.tokens = np.concatenate([prompt, np.empty(room, np.int32)])
        self.length = len(prompt)

    def draft(self) -> Draft:
        text = self.tokens[: self.length]
        tree = self.drafter.propose(Context(text, self.length, Sampling(), CounterRng(0)), BUDGET)
        return tree.tokens.tolist(), tree.parents.tolist()

    def add(self, tokens: IntArray) -> None:
        self.tokens[self.length : self.length + len(tokens)] = tokens
        self.length += len(tokens)
        self.drafter.observe(tokens)


class PromptLookup:
    """transformers' candidate generator."""

    def __init__(self, max_ngram: int) -> None:
        from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

        self._generator = PromptLookupCandidateGenerator(
            num_output_tokens=BUDGET, max_matching_ngram_size=max_ngram, max_length=10**9
        )

    def start(self, prompt: IntArray, room: int) -> None:
        import torch

        self.tokens = torch.empty(1, len(prompt) + room, dtype=torch.long)
        self.tokens[0, : len(prompt)] = torch.from_numpy(prompt.astype(np.int64))
        self.length = len(prompt)

    def draft(self) -> Draft:
        history = self.tokens[:, : self.length]
        out = self._generator.get_candidates(history)[0][0, self.length :].tolist()
        return out, range(-1, len(out) - 1)

    def add(self, tokens: IntArray) -> None:
        import torch

        self.tokens[0, self.length : self.length + len(tokens)] = torch.from_numpy(tokens.astype(np.int64))
        self.length += len(tokens)


class LlamaCppLookup:
    """llama-cpp-python's prompt lookup."""

    def __init__(self) -> None:
        from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

        self._lookup = LlamaPromptLookupDecoding(max_ngram_size=2, num_pred_tokens=BUDGET)

    def start(self, prompt: IntArray, room: int) -> None:
        self.tokens, self.length = np.concatenate([prompt, np.empty(room, np.int32)]), len(prompt)

    def draft(self) -> Draft:
        out = self._lookup(self.tokens[: self.length]).tolist()
        return out, range(-1, len(out) - 1)

    def add(self, tokens: IntArray) -> None:
        self.tokens[self.length : self.length + len(tokens)] = tokens
        self.length += len(tokens)


class Arctic:
    """arctic-inference's suffix cache (SuffixDecoding): chains or trees."""

    def __init__(self, tree: bool) -> None:
        self._tree = tree

    def start(self, prompt: IntArray, room: int) -> None:
        from arctic_inference.suffix_decoding import SuffixDecodingCache

        self._cache = SuffixDecodingCache(max_tree_depth=64)
        self._cache.start_request(0, prompt)
        self.tokens, self.length = np.concatenate([prompt, np.empty(room, np.int32)]), len(prompt)

    def draft(self) -> Draft:
        context = self.tokens[max(0, self.length - 64) : self.length]
        out = self._cache.speculate(
            0,
            context,
            max_spec_tokens=BUDGET,
            max_spec_factor=10.0,
            use_tree_spec=self._tree,  # its best setting here
        )
        return out.token_ids, out.parents

    def add(self, tokens: IntArray) -> None:
        self.tokens[self.length : self.length + len(tokens)] = tokens
        self.length += len(tokens)
        self._cache.add_active_response(0, tokens)


def peers() -> dict[str, Callable[[], Any]]:
    """Installed peers by name and version."""
    found: dict[str, Callable[[], Any]] = {}
    if version := peer_version("transformers"):
        found[f"{version} prompt lookup, n <= 2"] = lambda: PromptLookup(2)
        found[f"{version} prompt lookup, n <= 10"] = lambda: PromptLookup(10)
    if version := peer_version("llama-cpp-python"):
        found[f"{version} prompt lookup"] = LlamaCppLookup
    if version := peer_version("arctic-inference"):
        found[f"{version} chain"] = lambda: Arctic(False)
        found[f"{version} tree"] = lambda: Arctic(True)
    return found


def replay(side: Any, prompt: IntArray, continuation: IntArray) -> float:
    """Tokens per step."""
    side.start(prompt, len(continuation))
    place = steps = 0
    while place < len(continuation):
        tokens, parents = side.draft()
        node, depth = -1, 0
        while place + depth < len(continuation) - 1:
            wanted = int(continuation[place + depth])
            node = next(
                (i for i, (t, p) in enumerate(zip(tokens, parents, strict=True)) if p == node and t == wanted), -2
            )
            if node < 0:
                break
            depth += 1
        side.add(continuation[place : place + depth + 1])
        place += depth + 1
        steps += 1
    return len(continuation) / steps
