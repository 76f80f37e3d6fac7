"""The loop on small random models: speculation changes nothing but the number of steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gramcore.spec import Context, DraftTree, FixedLength, NgramDrafter, StopStrings, generate

from .conftest import tiny_model
from .scripted import ALWAYS, Scripted, oracle, prompt


def bushy(ctx: Context, budget: int) -> DraftTree:
    """A full binary tree of tokens derived from the context, with duplicate siblings."""
    n = min(budget, 14)
    tokens = np.array([(int(ctx.tokens[-1]) + i) % 97 for i in range(n)], np.int32)
    tokens[1::4] = tokens[0::4][: len(tokens[1::4])]
    return DraftTree(tokens, np.array([(i - 2) // 2 if i >= 2 else -1 for i in range(n)], np.int32))


def mixed(future: list[int], start: int) -> Any:
    """The right continuation hidden among wrong siblings at every depth, in a tree."""

    def plan(ctx: Context, budget: int) -> DraftTree:
        rest = future[len(ctx.tokens) - start :]
        tokens: list[int] = []
        parents: list[int] = []
        parent = -1
        for right in rest[: budget // 3]:
            tokens += [(right + 1) % 97, right, (right + 2) % 97]
            parents += [parent] * 3
            parent = len(tokens) - 2
        return DraftTree(np.array(tokens, np.int32), np.array(parents, np.int32))

    return plan


def plans(future: list[int], start: int) -> dict[str, Any]:
    return {
        "empty": lambda ctx, budget: DraftTree.empty(),
        "right": oracle(future, start),
        "wrong": lambda ctx, budget: DraftTree.chain(np.full(budget, (future[len(ctx.tokens) - start] + 1) % 97)),
        "bushy": bushy,
        "mixed": mixed(future, start),
        "star": lambda ctx, budget: DraftTree(np.arange(budget, dtype=np.int32), np.full(budget, -1, np.int32)),
        "duplicates": lambda ctx, budget: DraftTree(
            np.full(budget, future[len(ctx.tokens) - start], np.int32), np.full(budget, -1, np.int32)
        ),
        "too many": lambda ctx, budget: DraftTree.chain(np.arange(90, dtype=np.int32)),
    }


NAMES = ["empty", "right", "wrong", "bushy", "mixed", "star", "duplicates", "too many"]


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_any_drafter_gives_the_plain_tokens(model: Any, name: str, sampled: bool) -> None:
    law = {"temperature": 0.8, "top_p": 0.95, "seed": 11} if sampled else {}
    ids = prompt()
    plain = generate(model, ids, max_new_tokens=40, **law)
    drafter = Scripted(plans(plain.tokens, len(ids))[name])
    fast = generate(model, ids, drafter=drafter, policy=FixedLength(12), max_new_tokens=40, **law)
    assert fast.tokens == plain.tokens
    assert len(plain.tokens) == 40
    if name == "right":
        assert fast.stats.steps == 3  # the prompt gives one token, 13 come with each step
    if name == "mixed":
        assert fast.stats.tokens_per_step > 4


@pytest.mark.parametrize("rows", [1, 3])
def test_plain_decoding_takes_no_more_forwards_than_transformers(model: Any, rows: int) -> None:
    calls: list[int] = []
    seen = model.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        generate(model, [prompt(9 - i, i) for i in range(rows)], max_new_tokens=12, eos_token_id=())
        generate(model, [prompt(5, i) for i in range(rows)], max_new_tokens=1)
    finally:
        seen.remove()
    assert len(calls) == 12 + 1  # the prompt's forward gives the first token


def test_plain_greedy_is_what_transformers_generates(model: Any) -> None:
    ids = torch.tensor([prompt()])
    theirs = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False, pad_token_id=0
    )
    assert generate(model, ids, max_new_tokens=40).tokens == theirs[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("seed", range(20))
def test_ngram_drafts_on_twenty_prompts(model: Any, seed: int) -> None:
    ids = prompt(30, seed)
    plain = generate(model, ids, max_new_tokens=48)
    fast = generate(model, ids, policy=ALWAYS, drafter=NgramDrafter(), max_new_tokens=48)
    assert fast.tokens == plain.tokens
    assert fast.stats.emitted == 48


@pytest.mark.parametrize(
    "changes", [{"num_key_value_heads": 1}, {"num_key_value_heads": 4}, {"attn_implementation": "eager"}]
)
def test_head_layouts_and_attention_implementations(changes: dict[str, Any]) -> None:
    other = tiny_model(**changes)
    ids = prompt(20, 3)
    plain = generate(other, ids, max_new_tokens=30)
    fast = generate(other, ids, policy=ALWAYS, drafter=Scripted(mixed(plain.tokens, len(ids))), max_new_tokens=30)
    assert fast.tokens == plain.tokens
    assert fast.stats.accepted > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_run(dtype: torch.dtype) -> None:
    other = tiny_model().to(dtype)
    if dtype == torch.float64:
        with pytest.raises(TypeError, match="logits dtype"):
            generate(other, prompt(), max_new_tokens=4)
        return
    result = generate(other, prompt(), policy=ALWAYS, drafter=NgramDrafter(), max_new_tokens=20)
    assert len(result.tokens) == 20


@pytest.mark.parametrize("sampled", [False, True])
def test_batch_equals_single(model: Any, sampled: bool) -> None:
    law = {"temperature": 0.9, "seed": 5} if sampled else {}
    rows = [prompt(40, 1), [7], prompt(12, 2), prompt(2, 3)]
    plain = generate(model, rows, max_new_tokens=25, **law).sequences
    fast = generate(model, rows, policy=ALWAYS, drafter=NgramDrafter(), max_new_tokens=25, **law).sequences
    assert fast == plain
    if not sampled:
        assert plain == [generate(model, row, max_new_tokens=25).tokens for row in rows]


def test_batch_rows_end_on_their_own(model: Any) -> None:
    rows = [prompt(10, s) for s in range(4)]
    free = generate(model, rows, max_new_tokens=30).sequences
    eos = free[1][3]
    stopped = generate(model, rows, policy=ALWAYS, drafter=NgramDrafter(), max_new_tokens=30, eos_token_id=eos)
    for got, whole, reason in zip(stopped.sequences, free, stopped.stats.stop_reasons, strict=True):
        cut = whole.index(eos) + 1 if eos in whole else 30
        assert got == whole[:cut]
        assert reason == ("eos" if eos in whole else "length")


def test_left_and_right_padding_are_stripped(model: Any) -> None:
    a, b = prompt(8, 1), prompt(4, 2)
    pad = [0] * 4
    expected = generate(model, [a, b], max_new_tokens=12).sequences
    for row, m in ((pad + b, [0] * 4 + [1] * 4), (b + pad, [1] * 4 + [0] * 4)):
        got = generate(model, torch.tensor([a, row]), attention_mask=torch.tensor([[1] * 8, m]), max_new_tokens=12)
        assert got.sequences == expected


def test_eos_inside_the_accepted_path_ends_there(model: Any) -> None:
    ids = prompt()
    plain = generate(model, ids, max_new_tokens=40).tokens
    eos = plain[17]
    drafter = Scripted(oracle(plain, len(ids)))
    fast = generate(model, ids, drafter=drafter, policy=FixedLength(12), max_new_tokens=40, eos_token_id=eos)
    assert fast.tokens == plain[: plain.index(eos) + 1]
    assert fast.stats.stop_reasons == ["eos"]


def test_drafts_past_the_end_are_cut(model: Any) -> None:
    ids = prompt()
    plain = generate(model, ids, max_new_tokens=40).tokens
    for new in (1, 2, 7, 13, 14):
        fast = generate(model, ids, policy=ALWAYS, drafter=Scripted(oracle(plain, len(ids))), max_new_tokens=new)
        assert fast.tokens == plain[:new]
        assert fast.stats.emitted == new


def test_context_end_stops_the_text() -> None:
    small = tiny_model(max_position_embeddings=32)
    result = generate(small, prompt(24), policy=ALWAYS, drafter=NgramDrafter(), max_new_tokens=100)
    assert result.tokens == generate(small, prompt(24), max_new_tokens=100).tokens
    assert len(result.tokens) == 8
    assert result.stats.stop_reasons == ["context"]
    with pytest.raises(ValueError, match="context of 32 tokens, got 32"):
        generate(small, prompt(32))


def test_stop_function_and_streamer(model: Any) -> None:
    class Sink:
        def __init__(self) -> None:
            self.chunks: list[list[int]] = []
            self.ended = 0

        def put(self, ids: list[int]) -> None:
            self.chunks.append(ids)

        def end(self) -> None:
            self.ended += 1

    ids = prompt()
    plain = generate(model, ids, max_new_tokens=40).tokens
    sink = Sink()
    result = generate(
        model,
        ids,
        policy=ALWAYS,
        drafter=Scripted(oracle(plain, len(ids))),
        max_new_tokens=40,
        stop=lambda new: new[-2:] == plain[8:10],
        streamer=sink,
    )
    assert result.tokens == plain[:10]
    assert [t for chunk in sink.chunks for t in chunk] == result.tokens
    assert sink.ended == 1
    assert len(sink.chunks) == 1 + result.stats.steps
    with pytest.raises(ValueError, match="streamer must be None"):
        generate(model, [ids, ids], streamer=sink)


def test_processors_see_the_path_of_their_node(model: Any) -> None:
    def no_repeat(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores.index_fill(1, ids[0].unique(), float("-inf"))

    ids = prompt(10)
    plain = generate(model, ids, processors=[no_repeat], max_new_tokens=30)
    assert len(set(plain.tokens)) == 30
    fast = generate(
        model,
        ids,
        policy=ALWAYS,
        drafter=Scripted(mixed(plain.tokens, len(ids))),
        processors=[no_repeat],
        max_new_tokens=30,
    )
    assert fast.tokens == plain.tokens
    assert fast.stats.accepted > 0
    sampled = {"processors": [no_repeat], "max_new_tokens": 30, "temperature": 1.0, "seed": 3}
    plain = generate(model, ids, **sampled)
    assert (
        generate(model, ids, policy=ALWAYS, drafter=Scripted(mixed(plain.tokens, len(ids))), **sampled).tokens
        == plain.tokens
    )


class AlternatingGrammar:
    """Even token, odd token, even token ... ; ends after ``length`` tokens."""

    def __init__(self, length: int, vocab: int) -> None:
        self.length, self.vocab = length, vocab
        self.taken: list[int] = []

    def accept(self, token: int) -> bool:
        if self.is_terminated() or token % 2 != len(self.taken) % 2:
            return False
        self.taken.append(token)
        return True

    def fill_bitmask(self, out: np.ndarray, row: int) -> bool:
        bits = np.zeros(out.shape[1] * 32, np.uint8)
        if not self.is_terminated():
            bits[len(self.taken) % 2 : self.vocab : 2] = 1
        out[row] = np.packbits(bits, bitorder="little").view(np.int32)
        return True

    def rollback(self, n: int) -> None:
        assert n <= len(self.taken)
        del self.taken[len(self.taken) - n :]

    def is_terminated(self) -> bool:
        return len(self.taken) >= self.length


@pytest.mark.parametrize("law", [{}, {"temperature": 1.0, "seed": 9}])
def test_grammar_holds_with_and_without_drafts(model: Any, law: dict[str, Any]) -> None:
    ids = prompt(10)
    plain = generate(model, ids, grammar=AlternatingGrammar(20, 97), max_new_tokens=60, **law)
    assert [t % 2 for t in plain.tokens] == [0, 1] * 10
    assert plain.stats.stop_reasons == ["grammar"]
    for plan in (mixed(plain.tokens, len(ids)), bushy, oracle([*plain.tokens, 4, 5, 6], len(ids))):
        fast = generate(
            model,
            ids,
            policy=ALWAYS,
            drafter=Scripted(plan),
            grammar=AlternatingGrammar(20, 97),
            max_new_tokens=60,
            **law,
        )
        assert fast.tokens == plain.tokens
    batch = generate(model, [ids, ids[:3]], grammar=[AlternatingGrammar(4, 97), AlternatingGrammar(6, 97)])
    assert [len(s) for s in batch.sequences] == [4, 6]


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([], ValueError, "at least one token"),
        ([[1, 2], []], ValueError, "at least one token"),
        ([97], ValueError, r"in \[0, 97\), got 97"),
        ([-1], ValueError, "got -1"),
        ([0.5], TypeError, "integers"),
        (torch.zeros(1, 1, 1, dtype=torch.long), ValueError, "shape"),
    ],
)
def test_bad_prompts(model: Any, ids: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        generate(model, ids)


def test_bad_models(model: Any) -> None:
    with pytest.raises(TypeError, match="causal language model"):
        generate(object(), [1])
    training = tiny_model().train()
    with pytest.raises(ValueError, match="evaluation mode"):
        generate(training, [1])


def test_seed_and_generator(model: Any) -> None:
    ids = prompt()
    one = generate(model, ids, temperature=1.0, seed=1, max_new_tokens=30).tokens
    assert one == generate(model, ids, temperature=1.0, seed=1, max_new_tokens=30).tokens
    assert one != generate(model, ids, temperature=1.0, seed=2, max_new_tokens=30).tokens
    drawn = [
        generate(model, ids, temperature=1.0, generator=torch.Generator().manual_seed(4), max_new_tokens=30).tokens
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    with pytest.raises(ValueError, match="not both"):
        generate(model, ids, temperature=1.0, seed=1, generator=torch.Generator())


class Words:
    """A tokenizer whose token i is the text "i.": strings fall across tokens."""

    def decode(self, ids: list[int], **kwargs: Any) -> str:
        return "".join(f"{i}." for i in ids)


def test_stop_strings_across_tokens_and_rows(model: Any) -> None:
    rows = [prompt(), prompt(20, 1)]
    free = generate(model, rows, max_new_tokens=30).sequences
    wanted = Words().decode(free[0][7:9])[1:]  # begins inside a token
    stop = StopStrings(Words(), [wanted, "nothing of the kind"])
    result = generate(model, rows, policy=ALWAYS, drafter=NgramDrafter(), max_new_tokens=30, stop=stop)
    for got, whole, reason in zip(result.sequences, free, result.stats.stop_reasons, strict=True):
        text = Words().decode(whole)
        if wanted in text:
            assert reason == "stop_string"
            assert wanted in Words().decode(got)
            assert wanted not in Words().decode(got[:-1])
            assert stop.cut(Words().decode(got)).endswith(wanted)
        else:
            assert (reason, got) == ("length", whole)
    assert result.stats.stop_reasons[0] == "stop_string"
    for bad in ([], [""], "", [3]):
        with pytest.raises(ValueError, match="non-empty"):
            StopStrings(Words(), bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="decode"):
        StopStrings(object(), "x")
