"""The loop: draft, one target forward, verify, commit. Plain decoding is the same loop with empty trees."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gramcore._checks import check_int, check_real
from gramcore.spec.base import (
    Context,
    CounterRng,
    Drafter,
    DraftTree,
    IntArray,
    LengthPolicy,
    Sampling,
    StepRecord,
    TargetRows,
    Verdict,
    Verifier,
)
from gramcore.spec.cost_policy import CostModelLength
from gramcore.spec.default_verifier import DefaultVerifier
from gramcore.spec.guarded import GuardedDrafter
from gramcore.spec.guide import GrammarGuide
from gramcore.spec.host import Host
from gramcore.spec.inputs import check_ids, check_parts, end_tokens, one_seed, prompt_rows
from gramcore.spec.policies import FixedLength
from gramcore.spec.stats import GenerationResult, SpecStats
from gramcore.spec.transformers_host import TransformersHost

__all__ = ["as_host", "generate"]

#: Asked with the new tokens after each one; see :class:`StopStrings`.
Stop = Callable[[list[int]], bool]

_DRAFT_STREAM = 1 << 30  # numbers of random drafts never meet those of verification
_MAX_NODES = 256


def generate(
    model: Any,
    input_ids: Any,
    *,
    attention_mask: Any = None,
    drafter: Drafter | None = None,
    verifier: Verifier | None = None,
    policy: LengthPolicy | None = None,
    grammar: Any = None,
    processors: Sequence[Callable[[Any, Any], Any]] | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    max_new_tokens: int = 128,
    eos_token_id: int | Iterable[int] | None = None,
    stop: Stop | Sequence[Stop] | None = None,
    streamer: Any = None,
    draft_timeout_s: float = 1.0,
) -> GenerationResult:
    """Decode with a transformers causal language model, drafting and verifying several tokens per forward.

    Args:
        model: a decoder-only model of transformers with full attention, in evaluation mode; a :class:`Host`;
            or an object whose ``host()`` makes one.
        input_ids: ``(T,)`` or ``(B, T)`` token ids, tensor, array or list; or a list of B lists of different length.
        attention_mask: ``(B, T)``, 0 = padding (either side), for a rectangular batch.
        drafter: guesses continuations; None is plain decoding through the same loop.
        verifier: rule of acceptance; default :class:`DefaultVerifier`, by temperature and kind of drafts.
        policy: chooses the number of draft nodes; default :class:`CostModelLength`.
        grammar: a matcher (or one per sequence) with ``accept``, ``fill_bitmask``, ``rollback``, ``is_terminated``.
        processors: functions ``(ids (1, t) int64, scores (1, V)) -> scores`` as in transformers, applied at every
            visited node with the ids of its own path.
        temperature, top_k, top_p, min_p: see :class:`Sampling`; temperature 0 is greedy.
        seed: names the random numbers; with deterministic drafts the same seed gives the same text with any drafter.
        generator: alternative to ``seed``: one 63-bit seed is drawn from it.
        max_new_tokens: ``>= 1``.
        eos_token_id: ids that end a sequence (they are emitted); default those of ``model.generation_config``;
            an empty tuple: none.
        stop: called with the new tokens after each one (or one such function per sequence); True ends the sequence and
            that token is emitted. :class:`StopStrings` stops at strings.
        streamer: ``put(list of new ids)`` after every step and ``end()``; batch of one.
        draft_timeout_s: ``> 0``; a drafter that raises, or needs longer for one call, is switched off with a warning,
            and generation goes on without it.

    Returns:
        New tokens per sequence and statistics.

    Raises:
        TypeError: not a causal language model, ids that are not integers, or a part of another kind.
        ValueError: empty prompt, ids outside the vocabulary, a prompt longer than the context, a malformed draft tree.

    Differs from paper: none; the loop of Leviathan et al. 2022 with trees (Miao et al. 2023, arXiv:2305.09781).
    Reference: arXiv:2211.17192, Algorithm 1.
    """
    sampling = Sampling(temperature, top_k, top_p, min_p)
    prompts = prompt_rows(input_ids, attention_mask)
    check_int("max_new_tokens", max_new_tokens, low=1)
    check_real("draft_timeout_s", draft_timeout_s, low=0, low_open=True)
    stops = list(stop) if isinstance(stop, Sequence) else [stop] * len(prompts)
    check_parts(drafter, verifier, policy, stops, streamer)
    if len(stops) != len(prompts):
        raise ValueError(f"stop must be one function, or one per sequence, got {len(stops)} for {len(prompts)}")
    if streamer is not None and len(prompts) > 1:
        raise ValueError(f"streamer must be None for a batch, got a batch of {len(prompts)}")
    host = as_host(model)
    limit = host.context_limit
    longest = max(len(p) for p in prompts)
    if limit is not None and longest >= limit:
        raise ValueError(f"input_ids must be shorter than the model's context of {limit} tokens, got {longest}; cut it")
    capacity = longest + max_new_tokens + _MAX_NODES + 1
    with torch.inference_mode():
        host.open(len(prompts), capacity, want_hidden=bool(drafter and drafter.needs_hidden))
        check_ids(prompts, host.vocab_size)
        run = _Run(
            host=host,
            sampling=sampling,
            verifier=verifier or DefaultVerifier(),
            eos=end_tokens(model, eos_token_id),
            processors=list(processors or ()),
            streamer=streamer,
            max_new=max_new_tokens,
            limit=limit,
            timeout_s=draft_timeout_s,
        )
        base_seed = one_seed(seed, generator)
        for b, (prompt, guide, ends) in enumerate(zip(prompts, _matchers(grammar, len(prompts)), stops, strict=True)):
            lengths = (policy or CostModelLength()).fork() if drafter else FixedLength(0)
            if drafter:
                lengths.begin(host, drafter)
            run.sequences.append(
                _Sequence(
                    prompt,
                    max_new_tokens + _MAX_NODES + 1,
                    CounterRng(base_seed, b),
                    GuardedDrafter(drafter, draft_timeout_s),
                    lengths,
                    None if guide is None else GrammarGuide(guide, host.vocab_size),
                    ends,
                )
            )
        try:
            return run.finish()
        finally:
            for s in run.sequences:
                s.drafter.close()


def _matchers(grammar: Any, number: int) -> list[Any]:
    """One per sequence: they move on with its text."""
    given = list(grammar) if isinstance(grammar, (list, tuple)) else [grammar]
    if grammar is None:
        given = [None] * number
    if len(given) != number:
        raise ValueError(f"grammar must be one matcher per sequence, got {len(given)} for {number}")
    return given


def as_host(model: Any) -> Host:
    """What ``generate`` runs for its argument ``model``."""
    if isinstance(model, Host):
        return model
    made = model.host() if callable(getattr(model, "host", None)) else TransformersHost(model)
    if not isinstance(made, Host):
        raise TypeError(f"model.host() must return a Host, got {type(made).__name__}")
    return made


class _Sequence:
    """One row of the batch: its tokens and the objects that follow it."""

    def __init__(
        self,
        prompt: IntArray,
        room: int,
        rng: CounterRng,
        drafter: GuardedDrafter,
        policy: LengthPolicy,
        guide: GrammarGuide | None,
        stop: Stop | None,
    ) -> None:
        self.buffer = np.empty(len(prompt) + room, np.int32)
        self.buffer[: len(prompt)] = prompt
        self.length = self.num_prompt = len(prompt)
        self.rng = rng
        self.draft_rng = CounterRng(rng.seed, rng.stream + _DRAFT_STREAM)
        self.drafter = drafter
        self.policy = policy
        self.guide = guide
        self.stop = stop
        self.hidden: Any = None
        self.reason = ""
        self.tree = DraftTree.empty()
        self.draft_end = ""  # why the tree is no larger
        self.asked = False  # whether the drafter was, at this step

    @property
    def tokens(self) -> IntArray:
        """So far, read-only: drafters see it, also one that was left behind in its thread."""
        view = self.buffer[: self.length]
        view.flags.writeable = False
        return view

    @property
    def new_tokens(self) -> list[int]:
        return list(self.buffer[self.num_prompt : self.length].tolist())


@dataclass
class _Run:
    """One call of generate: the batch and what is common to its rows."""

    host: Host
    sampling: Sampling
    verifier: Verifier
    eos: frozenset[int]
    processors: list[Callable[[Any, Any], Any]]
    streamer: Any
    max_new: int
    limit: int | None
    timeout_s: float

    def __post_init__(self) -> None:
        self.stats = SpecStats()
        self.sequences: list[_Sequence] = []

    def finish(self) -> GenerationResult:
        started = time.perf_counter()
        out = self.host.prefill([s.tokens for s in self.sequences])
        assert out is not None  # no prompt is empty
        for b, s in enumerate(self.sequences):
            if out.hidden is not None:
                s.hidden = out.hidden[b][s.length - 1].clone()
                s.drafter.observe_hidden(out.hidden[b][: s.length])
            s.drafter.observe(s.tokens)
            self._commit(s, self._verify(s, out.logits[b][-1:]))  # the first token takes no forward of its own
        self.stats.emitted = self.stats.from_prompt = len(self.sequences)
        self.stats.prefill_s = time.perf_counter() - started
        active = self._go_on(self.sequences)
        while active:
            self._step(active)
            active = self._go_on(active)
        if self.streamer is not None:
            self.streamer.end()
        self.stats.stop_reasons = [s.reason for s in self.sequences]
        self.stats.notes = {**self.sequences[0].policy.report(), **self.verifier.report()}
        return GenerationResult([s.new_tokens for s in self.sequences], self.stats)

    def _go_on(self, active: list[_Sequence]) -> list[_Sequence]:
        """Those that have not ended; the host drops the others."""
        still = [i for i, s in enumerate(active) if not s.reason]
        if 0 < len(still) < len(active):
            self.host.select(still)
        return [active[i] for i in still]

    def _verify(self, s: _Sequence, logits: Any) -> Verdict:
        """What the target says of the root, whose row is the first, and of the tree."""
        rows = TargetRows(logits, self.sampling, self._editor(s))
        s.rng.position = s.length - s.num_prompt
        verdict = self.verifier.verify(s.tree, rows, s.rng)
        s.drafter.observe_target(s.tree, rows)
        return verdict

    def _step(self, active: list[_Sequence]) -> None:
        clock = [time.perf_counter()]
        for s in active:
            s.tree = self._draft(s)
        clock.append(time.perf_counter())
        out = self.host.forward([int(s.tokens[-1]) for s in active], [(s.tree.tokens, s.tree.parents) for s in active])
        clock.append(time.perf_counter())
        done: list[tuple[_Sequence, list[int], IntArray]] = []
        for b, s in enumerate(active):
            verdict = self._verify(s, out.logits[b][: len(s.tree) + 1])
            self.host.commit(b, verdict.path)
            if out.hidden is not None:
                committed = out.hidden[b][[0, *(verdict.path + 1).tolist()]]
                s.hidden = committed[-1]
                s.drafter.observe_hidden(committed)
            done.append((s, verdict.path.tolist(), self._commit(s, verdict)))
        clock.append(time.perf_counter())
        draft_s, target_s, verify_s = (after - before for before, after in itertools.pairwise(clock))
        self.stats.draft_s += draft_s
        self.stats.target_s += target_s
        self.stats.verify_s += verify_s
        num_rows = sum(1 + len(s.tree) for s in active)
        for s, path, emitted in done:
            stood = tuple(path[: len(emitted)])
            record = StepRecord(
                drafted=len(s.tree),
                offered_depth=int(s.tree.depths().max()) if len(s.tree) else 0,
                accepted=len(stood),
                draft_s=draft_s,
                target_s=target_s,
                verify_s=verify_s,
                path=stood,
                strength=s.tree.strength,
                emitted=tuple(emitted.tolist()),
                rows=num_rows,
                batch=len(active),
                asked=s.asked,
                fixed=s.tree.logq is None,
            )
            self.stats.add(record, s.draft_end)
            self.stats.emitted += len(emitted)
            s.policy.observe(record)

    def _draft(self, s: _Sequence) -> DraftTree:
        """The next tree, guarded; ``s.draft_end`` says why it is no larger."""
        s.asked = False
        room = self.max_new - (s.length - s.num_prompt) - 1
        deepest = self.limit - s.length - 1 if self.limit is not None else _MAX_NODES
        if not s.drafter.alive or min(room, deepest) <= 0:
            s.draft_end = "no drafter" if not s.drafter.alive else "no room"
            return DraftTree.empty()
        s.draft_rng.position = s.length - s.num_prompt
        ctx = Context(s.tokens, s.num_prompt, self.sampling, s.draft_rng, s.hidden)
        budget = min(s.policy.budget(ctx), _MAX_NODES)
        if budget <= 0:
            s.draft_end = "policy off"
            return DraftTree.empty()
        tree, s.asked = s.drafter.propose(ctx, budget), True
        if not s.drafter.alive:
            s.draft_end = "no drafter"
            return DraftTree.empty()
        if not isinstance(tree, DraftTree):
            raise TypeError(f"drafter.propose must return a DraftTree, got {type(tree).__name__}")
        s.draft_end = "budget" if len(tree) >= budget else "drafter" if len(tree) else "no match"
        tree.check(self.host.vocab_size)
        if (few := s.policy.cut(tree)) < min(len(tree), budget):
            budget = few
            s.draft_end = "policy cut" if few else "policy off"
        keep = s.guide.allowed(tree) if s.guide is not None and tree.logq is None else None
        tree = tree.pruned(keep, budget)
        if len(tree) <= min(room, deepest):
            return tree
        if tree.logq is None:  # no deeper than what may still be emitted
            return tree.pruned(tree.depths() <= min(room, deepest), budget)
        return tree if int(tree.depths().max()) <= deepest else DraftTree.empty()

    def _editor(self, s: _Sequence) -> Callable[[int, Any], Any] | None:
        if not self.processors and s.guide is None:
            return None

        def edit(row: int, logits: Any) -> Any:
            path = s.tree.tokens[s.tree.path_to(row - 1)]
            scores = logits
            if self.processors:
                ids = torch.from_numpy(np.concatenate([s.tokens, path]).astype(np.int64))[None]
                scores = logits.float()[None]
                for processor in self.processors:
                    scores = processor(ids, scores)
                scores = scores[0].contiguous()
            return scores if s.guide is None else s.guide.mask(path, scores)

        return edit

    def _commit(self, s: _Sequence, verdict: Verdict) -> IntArray:
        start = s.length
        for token in (*s.tree.tokens[verdict.path], verdict.next_token):
            s.buffer[s.length] = token
            s.length += 1
            if s.guide is not None:
                s.guide.accept(int(token))
            s.reason = self._stop_reason(s, int(token))
            if s.reason:
                break
        emitted = s.tokens[start:]
        if self.streamer is not None:
            self.streamer.put(emitted.tolist())
        s.drafter.observe(emitted)
        return emitted

    def _stop_reason(self, s: _Sequence, token: int) -> str:
        if token in self.eos:
            return "eos"
        if s.stop is not None and s.stop(s.new_tokens):
            return str(getattr(s.stop, "reason", "stop"))
        if s.guide is not None and s.guide.finished:
            return "grammar"
        if s.length - s.num_prompt >= self.max_new:
            return "length"
        return "context" if self.limit is not None and s.length >= self.limit else ""
