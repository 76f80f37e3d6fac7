"""Other doors into the loop: transformers' custom_generate, a batch proposer, hosts, pictures."""

from __future__ import annotations

import functools
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gramcore.spec import (
    BatchProposer,
    Context,
    DraftTree,
    FixedLength,
    GreedyVerifier,
    NgramDrafter,
    RecordingVerifier,
    TransformersHost,
    Verdict,
    draw_tree,
    generate,
    hf_generate,
    save_tree_png,
)

from .scripted import ALWAYS

PROMPT = [*range(5, 20), *range(5, 20)]


@pytest.mark.parametrize("drafter", [None, NgramDrafter()])
def test_custom_generate_equals_transformers_greedy(model: Any, drafter: Any) -> None:
    ids = torch.tensor([PROMPT])
    mask = torch.ones_like(ids)
    settings = {"attention_mask": mask, "max_new_tokens": 30, "do_sample": False, "pad_token_id": 0}
    theirs = model.generate(ids, **settings)
    ours = model.generate(ids, **settings, custom_generate=hf_generate, drafter=drafter, policy=ALWAYS)
    assert torch.equal(ours, theirs)
    penalised = {**settings, "repetition_penalty": 1.5, "no_repeat_ngram_size": 2}
    assert torch.equal(
        model.generate(ids, **penalised, custom_generate=hf_generate, drafter=drafter, policy=ALWAYS),
        model.generate(ids, **penalised),
    )


def test_custom_generate_stops_and_pads_like_transformers(model: Any) -> None:
    ids = torch.tensor([[0] * 5 + PROMPT[:10], PROMPT[:15]])
    mask = torch.tensor([[0] * 5 + [1] * 10, [1] * 15])
    free = model.generate(ids, attention_mask=mask, max_new_tokens=20, do_sample=False, pad_token_id=0)
    settings = {"attention_mask": mask, "max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    settings["eos_token_id"] = int(free[1, 18])
    ours = model.generate(ids, **settings, custom_generate=hf_generate)
    assert torch.equal(ours, model.generate(ids, **settings))


def test_custom_generate_asks_stopping_criteria_per_row(model: Any) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, StoppingCriteriaList, StopStringCriteria

    ids = torch.tensor([[0] * 5 + PROMPT[:10], PROMPT[:15]])
    mask = torch.tensor([[0] * 5 + [1] * 10, [1] * 15])
    settings = {"attention_mask": mask, "max_new_tokens": 20, "do_sample": False, "pad_token_id": 0, "eos_token_id": 96}
    free = model.generate(ids, **settings)
    letters = [*(chr(0x4E00 + i) for i in range(96)), "abcdef"]
    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({c: i for i, c in enumerate(letters)}, unk_token=letters[0])),
        unk_token=letters[0],
    )
    criteria = [StopStringCriteria(words, f" {letters[int(free[1, 18])]} {letters[int(free[1, 19])]}")]
    settings["stopping_criteria"] = StoppingCriteriaList(criteria)
    theirs = model.generate(ids, **settings)
    ours = model.generate(ids, **settings, custom_generate=hf_generate)
    assert torch.equal(ours, theirs)
    assert int((theirs[1, 15:] != 0).sum()) <= 5


def test_custom_generate_repeats_prompts_and_refuses_what_it_cannot_give(model: Any) -> None:
    ids = torch.tensor([PROMPT])
    settings = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 5, "pad_token_id": 0}
    torch.manual_seed(0)
    several = model.generate(ids, **settings, do_sample=True, num_return_sequences=3, custom_generate=hf_generate)
    assert several.shape == (3, 35)
    assert len({tuple(row) for row in several.tolist()}) > 1
    for extra in ({"num_beams": 2}, {"return_dict_in_generate": True, "output_scores": True}):
        with pytest.raises(ValueError, match=r"with custom_generate=hf_generate, got .*use model\.generate"):
            model.generate(ids, **settings, do_sample=False, **extra, custom_generate=hf_generate)
    embeds = model.get_input_embeddings()(ids)
    with pytest.raises(ValueError, match=r"inputs_embeds must be None .* give input_ids"):
        model.generate(inputs_embeds=embeds, **settings, do_sample=False, custom_generate=hf_generate)


def test_custom_generate_returns_transformers_output(model: Any) -> None:
    ids = torch.tensor([PROMPT, PROMPT[::-1]])
    settings = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 9, "do_sample": False, "pad_token_id": 0}
    settings["return_dict_in_generate"] = True
    ours, theirs = (model.generate(ids, **settings, **way) for way in ({"custom_generate": hf_generate}, {}))
    assert type(ours) is type(theirs)
    assert torch.equal(ours.sequences, theirs.sequences)


def test_custom_generate_streams_like_transformers(model: Any) -> None:
    class Streamer:
        def __init__(self) -> None:
            self.got: list[list[int]] = []

        def put(self, ids: torch.Tensor) -> None:
            self.got.append(ids.flatten().tolist())

        def end(self) -> None:
            self.got.append([])

    ids = torch.tensor([PROMPT])
    settings = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 9, "do_sample": False, "pad_token_id": 0}
    theirs, ours = Streamer(), Streamer()
    model.generate(ids, **settings, streamer=theirs)
    model.generate(ids, **settings, streamer=ours, custom_generate=functools.partial(hf_generate, streamer=ours))
    assert ours.got == theirs.got
    assert ours.got[0] == PROMPT


def test_custom_generate_samples_repeatably(model: Any) -> None:
    ids = torch.tensor([PROMPT])
    texts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        texts.append(
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=20,
                do_sample=True,
                temperature=0.8,
                top_p=0.9,
                pad_token_id=0,
                custom_generate=hf_generate,
            ).tolist()
        )
    assert texts[0] == texts[1] != texts[2]


def test_proposer_follows_its_requests() -> None:
    proposer = BatchProposer(NgramDrafter(), num_tokens=4)
    a, b = [1, 2, 3, 1, 2], [9, 8, 9, 8, 9]
    assert proposer.propose([a, b], ["a", "b"]) == [[3, 1, 2, 3], [8, 9, 8, 9]]
    assert proposer.propose([[*b, 8], [*a, 3]], ["b", "a"]) == [[9, 8, 9, 8], [1, 2, 3, 1]]
    assert proposer.propose([[1, 2, 7, 1, 2]], ["a"]) == [[7, 1, 2, 7]]  # a changed history is followed too
    proposer.forget("a")
    assert proposer.propose([[4]], ["a"]) == [[]]
    assert proposer.propose([[], [1]]) == [[], []]
    with pytest.raises(ValueError, match="one per history"):
        proposer.propose([[1]], [])


def test_a_proposer_goes_on_without_a_drafter_that_fails() -> None:
    class Fails(NgramDrafter):
        bounded = False

        def propose(self, ctx: Context, budget: int) -> DraftTree:
            if ctx.tokens[0] == 9:
                raise KeyError("lost")
            if ctx.tokens[0] == 8:
                time.sleep(0.5)
            return super().propose(ctx, budget)

        def fork(self) -> Fails:
            return Fails()

    proposer = BatchProposer(Fails(), num_tokens=2, draft_timeout_s=0.1)
    histories = [[1, 2, 3, 1, 2], [9, 2, 3, 9, 2], [8, 2, 3, 8, 2]]
    with pytest.warns(RuntimeWarning, match="switched off") as said:
        assert proposer.propose(histories) == [[3, 1], [], []]
    assert {"raised" in str(w.message) for w in said} == {True, False}
    assert proposer.propose([h[:4] for h in histories]) == [[2, 3], [], []]
    proposer.forget(1)
    del proposer, said
    deadline = time.perf_counter() + 10
    while any(t.name == "gramcore drafter" for t in threading.enumerate()):  # the threads end with it
        assert time.perf_counter() < deadline
        time.sleep(0.01)


def test_hosts_are_taken_directly_and_by_method(model: Any) -> None:
    class Wrapped:
        eos_token_ids = (7,)

        def host(self) -> TransformersHost:
            return TransformersHost(model)

    expected = generate(model, PROMPT, max_new_tokens=20).tokens
    assert generate(TransformersHost(model), PROMPT, max_new_tokens=20).tokens == expected
    assert generate(Wrapped(), PROMPT, max_new_tokens=20, eos_token_id=()).tokens == expected
    ended = generate(Wrapped(), PROMPT, max_new_tokens=20).tokens
    assert ended == (expected[: expected.index(7) + 1] if 7 in expected else expected)

    class Wrong:
        def host(self) -> int:
            return 1

    with pytest.raises(TypeError, match="must return a Host"):
        generate(Wrong(), PROMPT)


def test_pictures(model: Any, tmp_path: Path) -> None:
    recorder = RecordingVerifier(GreedyVerifier())
    plain = generate(model, PROMPT, max_new_tokens=30).tokens
    fast = generate(model, PROMPT, drafter=NgramDrafter(), verifier=recorder, policy=FixedLength(6), max_new_tokens=30)
    assert fast.tokens == plain
    assert recorder.last is not None
    text = draw_tree(*recorder.last)
    assert text.count("✓") == len(recorder.last[1].path)
    assert all(0 <= share <= 1 for share in recorder.last[2])
    pytest.importorskip("matplotlib")
    tree = DraftTree(np.int32([1, 2, 3]), np.int32([-1, -1, 0]))
    save_tree_png(tmp_path / "t.png", tree, Verdict(np.int32([0]), 4), [0.5, 0.2, 0.1])
    assert (tmp_path / "t.png").read_bytes()[:4] == b"\x89PNG"
    assert [p.name for p in tmp_path.iterdir()] == ["t.png"]
