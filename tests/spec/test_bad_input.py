"""What is malformed, late or unsuitable: clear errors, or a warning and the exact text."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from gramcore.spec import BatchProposer, Context, Drafter, DraftTree, FixedLength, NgramDrafter, generate

PROMPT = [*range(5, 20), *range(5, 20)]


class Plan(Drafter):
    """Drafts from a function; optionally lies about what was observed."""

    def __init__(self, plan: Any, observe: Any = None, bounded: bool = False) -> None:
        self.plan, self.watch, self.bounded = plan, observe, bounded

    def propose(self, ctx: Context, budget: int) -> DraftTree:
        return self.plan(ctx, budget)

    def observe(self, accepted: np.ndarray) -> None:
        if self.watch is not None:
            self.watch(accepted)

    def rollback(self, n: int) -> None:
        raise AssertionError("nothing is rolled back")

    def fork(self) -> Plan:
        return self


def broken(*args: Any) -> Any:
    raise KeyError("lost")


def some(ctx: Context, budget: int) -> DraftTree:
    return DraftTree.chain(ctx.tokens[:budget])


@pytest.mark.parametrize("bounded", [False, True])
def test_a_raising_or_slow_drafter_is_switched_off(model: Any, bounded: bool) -> None:
    plain = generate(model, PROMPT, max_new_tokens=20).tokens

    def slow(ctx: Context, budget: int) -> DraftTree:
        time.sleep(0.03)
        return some(ctx, budget)

    for drafter, seconds, said in [
        (Plan(broken, bounded=bounded), 30, "raised KeyError"),
        (Plan(some, broken, bounded=bounded), 30, "raised KeyError"),
        (Plan(slow, bounded=bounded), 0.01, "took"),
    ]:
        settings: dict[str, Any] = {"policy": FixedLength(5), "draft_timeout_s": seconds}
        with pytest.warns(RuntimeWarning, match=f"Plan is switched off: it {said}"):
            result = generate(model, PROMPT, drafter=drafter, max_new_tokens=20, **settings)
        assert result.tokens == plain
        assert result.stats.draft_ends["no drafter"] >= 19


def test_a_drafter_that_never_returns_costs_its_time_once(model: Any) -> None:
    release = threading.Event()

    def hang(ctx: Context, budget: int) -> DraftTree:
        release.wait(30)
        return some(ctx, budget)

    plain = generate(model, PROMPT, max_new_tokens=20).tokens
    limits: dict[str, Any] = {"policy": FixedLength(5), "draft_timeout_s": 0.05}
    started = time.perf_counter()
    with pytest.warns(RuntimeWarning, match=r"took more than 0\.05 s"):
        hung = generate(model, PROMPT, drafter=Plan(hang), max_new_tokens=20, **limits)
    assert hung.tokens == plain
    assert time.perf_counter() - started < 20  # it did not wait for the drafter
    rows = [PROMPT, PROMPT[:7]]
    both = generate(model, rows, max_new_tokens=10).sequences
    with pytest.warns(RuntimeWarning, match="took more than"):
        assert generate(model, rows, drafter=Plan(hang), max_new_tokens=10, **limits).sequences == both
    release.set()
    deadline = time.perf_counter() + 10
    while any(t.name == "gramcore drafter" for t in threading.enumerate()):  # the threads end
        assert time.perf_counter() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("bounded", [False, True])
def test_a_drafter_that_cannot_be_forked_is_switched_off(model: Any, bounded: bool) -> None:
    plain = generate(model, PROMPT, max_new_tokens=8).tokens
    for fork, said in ((broken, "raised KeyError"), (lambda: None, "raised TypeError: fork must return a Drafter")):
        drafter = Plan(some, bounded=bounded)
        drafter.fork = fork  # type: ignore[method-assign]
        with pytest.warns(RuntimeWarning, match=f"Plan is switched off: it {said}"):
            assert generate(model, PROMPT, drafter=drafter, max_new_tokens=8).tokens == plain
        with pytest.warns(RuntimeWarning, match=f"Plan is switched off: it {said}"):
            assert BatchProposer(drafter).propose([[1, 2, 1]]) == [[]]


def test_an_unbounded_drafter_drafts_like_a_bounded_one(model: Any) -> None:
    bounded, free = (
        generate(model, PROMPT, drafter=Plan(some, bounded=b), policy=FixedLength(5), max_new_tokens=20)
        for b in (True, False)
    )
    assert bounded.tokens == free.tokens
    assert bounded.stats.drafted == free.stats.drafted > 0


def laws(n: int, total: float) -> np.ndarray:
    return np.log(np.full((n + 1, 97), total / 97))


@pytest.mark.parametrize(
    ("tokens", "parents", "logq", "message"),
    [
        ([97], [-1], None, r"tokens must be in \[0, 97\), got tokens\[0\] = 97"),
        ([-1], [-1], None, r"got tokens\[0\] = -1"),
        ([1, 2], [1, 0], None, r"got parents\[0\] = 1; order the nodes"),  # a cycle
        ([1], [0], None, r"got parents\[0\] = 0"),  # its own parent
        ([1, 2], [1, -1], None, r"got parents\[0\] = 1"),  # the child before its parent
        ([1], [-2], None, r"got parents\[0\] = -2"),
        ([1, 2], [-1], None, "one entry per token"),
        ([1], [-1], laws(1, 0.9), "sum to 1, got sum 0.9 in row 0"),
        ([1], [-1], laws(1, 1)[:, :50], r"shape \(2, 97\), got \(2, 50\)"),
        ([1], [-1], np.full((2, 97), np.nan), "got sum nan"),
    ],
)
def test_malformed_drafts_are_errors(model: Any, tokens: Any, parents: Any, logq: Any, message: str) -> None:
    def plan(ctx: Context, budget: int) -> DraftTree:
        return DraftTree(np.int32(tokens), np.int32(parents), logq, "fixed" if logq is None else "iid")

    with pytest.raises(ValueError, match=message):
        generate(model, PROMPT, drafter=Plan(plan), temperature=0.0 if logq is None else 1.0)


def test_what_is_no_tree_is_an_error(model: Any) -> None:
    for answer in (None, [1, 2], (np.int32([1]), np.int32([-1]))):
        with pytest.raises(TypeError, match="must return a DraftTree, got"):
            generate(model, PROMPT, drafter=Plan(lambda ctx, budget, out=answer: out), policy=FixedLength(3))


@pytest.mark.parametrize("bounded", [False, True])
def test_a_drafter_cannot_write_into_the_text(model: Any, bounded: bool) -> None:
    def meddle(ctx: Context, budget: int) -> DraftTree:
        ctx.tokens[-1] = 0
        return some(ctx, budget)

    def meddle_later(accepted: np.ndarray) -> None:
        accepted[-1] = 0

    plain = generate(model, PROMPT, max_new_tokens=8).tokens
    for drafter in (Plan(meddle, bounded=bounded), Plan(some, meddle_later, bounded=bounded)):
        with pytest.warns(RuntimeWarning, match="read-only"):
            text = generate(model, PROMPT, drafter=drafter, policy=FixedLength(3), max_new_tokens=8).tokens
        assert text == plain


def test_models_without_a_usable_cache_are_refused() -> None:
    from transformers import (
        BloomConfig,
        BloomForCausalLM,
        MambaConfig,
        MambaForCausalLM,
        OpenAIGPTConfig,
        OpenAIGPTLMHeadModel,
        T5Config,
    )
    from transformers import T5ForConditionalGeneration as T5

    t5 = T5(T5Config(vocab_size=32, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)).eval()
    with pytest.raises(ValueError, match=r"decoder-only, got the encoder-decoder t5"):
        generate(t5, [1, 2])
    mamba = MambaForCausalLM(MambaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, state_size=4)).eval()
    with pytest.raises(ValueError, match=r"use model\.generate"):
        generate(mamba, [1, 2])
    gpt = OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=32, n_embd=16, n_layer=1, n_head=2)).eval()
    with pytest.raises(ValueError, match=r"without a cache; .* use model\.generate"):
        generate(gpt, [1, 2])
    bloom = BloomForCausalLM(BloomConfig(vocab_size=32, hidden_size=16, n_layer=1, n_head=2)).eval()
    with pytest.raises(ValueError, match=r"without position_ids; .* use model\.generate"):
        generate(bloom, [1, 2])


def test_a_model_that_leaves_its_cache_empty_is_refused(model: Any) -> None:
    class Forgetful(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model
            self.config, self.generation_config = model.config, model.generation_config

        def get_output_embeddings(self) -> Any:
            return model.get_output_embeddings()

        def forward(self, input_ids: Any, past_key_values: Any = None, position_ids: Any = None, **kwargs: Any) -> Any:
            return model(input_ids=input_ids, position_ids=position_ids, use_cache=False)

    with pytest.raises(ValueError, match="Forgetful, which left it empty"):
        generate(Forgetful().eval(), PROMPT, drafter=NgramDrafter())


def test_one_stop_per_sequence(model: Any) -> None:
    with pytest.raises(ValueError, match="one per sequence, got 1 for 2"):
        generate(model, [PROMPT, PROMPT], stop=[lambda new: True])


@pytest.mark.parametrize(
    ("part", "error", "message"),
    [
        ({"drafter": 3}, TypeError, "drafter must be a Drafter or None, got int"),
        ({"drafter": NgramDrafter}, TypeError, "drafter must be a Drafter or None, got ABCMeta"),
        ({"verifier": "greedy"}, TypeError, "verifier must be a Verifier or None, got str"),
        ({"policy": 8}, TypeError, "policy must be a LengthPolicy or None, got int"),
        ({"stop": "end"}, TypeError, "stop must be functions of the new tokens, got str; see StopStrings"),
        ({"stop": 3}, TypeError, "stop must be functions of the new tokens, got int; see StopStrings"),
        ({"streamer": print}, TypeError, "streamer must have put and end"),
        ({"draft_timeout_s": 0}, ValueError, r"draft_timeout_s must be in \(0, inf\)"),
    ],
)
def test_parts_of_another_kind(model: Any, part: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        generate(model, PROMPT, **part)
