"""One forward of several sequences: every row has the bits of a forward of its sequence alone."""

from __future__ import annotations

from typing import Any

import gramcore
import numpy as np
import pytest
import torch
import transformers
from gramcore import spec
from gramcore.model import Decoder

from tests.model.tiny import IDS, SIZES, path_to, random_tree, tiny


def tokens(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 101, n)


def filled(decoder: Decoder, lengths: list[int], capacity: int | None = None) -> list[Any]:
    """A cache per length, each with a text of its own."""
    caches = [decoder.new_cache(capacity) for _ in lengths]
    for seed, (cache, length) in enumerate(zip(caches, lengths, strict=True)):
        if length:
            decoder.forward(tokens(seed, length), last_only=True, cache=cache)
    return caches


@pytest.fixture(params=["plain", "packed", "bfloat16 weights", "float16 cache", "int8 cache"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    if request.param in ("plain", "packed"):
        return request.getfixturevalue(request.param)
    if request.param == "bfloat16 weights":
        return Decoder.from_module(tiny("llama", torch.bfloat16))
    return Decoder.from_module(tiny("llama"), kv_dtype=request.param.split()[0])


def test_chains_and_trees_equal_single_forwards_to_the_bit(isa: str, decoder: Decoder) -> None:
    lengths, counts = [0, 3, 64, 37, 0, 101], [5, 1, 19, 70, 0, 3]
    trees = [None, None, random_tree(1, 19), random_tree(2, 70), None, random_tree(3, 3)]
    ids = [tokens(50 + i, n) for i, n in enumerate(counts)]
    together, alone = filled(decoder, lengths), filled(decoder, lengths)
    got = decoder.forward_batch(ids, trees, caches=together)
    assert [len(rows) for rows in got] == counts
    for rows, row_ids, tree, cache in zip(got, ids, trees, alone, strict=True):
        if len(row_ids):
            assert np.array_equal(rows, decoder.forward(row_ids, tree, cache=cache))
    assert [(c.length, c.pending) for c in together] == [(c.length, c.pending) for c in alone]
    assert [c.length for c in together] == [5, 4, 64, 37, 0, 101]
    # And so do the forwards after it, with the paths of the trees kept.
    for caches in (together, alone):
        for cache, tree in zip(caches, trees, strict=True):
            if tree is not None:
                cache.commit_path(np.array(path_to(tree, len(tree) - 1), np.int64))
    more = [tokens(80 + i, n) for i, n in enumerate((1, 4, 2, 1, 1, 9))]
    last = decoder.forward_batch(more, caches=together, last_only=True)
    for rows, row_ids, cache in zip(last, more, alone, strict=True):
        assert np.array_equal(rows, decoder.forward(row_ids, last_only=True, cache=cache))


@pytest.mark.parametrize("last_only", [False, True])
def test_more_rows_than_a_pass_holds(last_only: bool) -> None:
    config = transformers.LlamaConfig(**(SIZES | {"max_position_embeddings": 1400, "num_hidden_layers": 1}))
    torch.manual_seed(3)
    decoder = Decoder.from_module(transformers.LlamaForCausalLM(config).eval())
    lengths, counts = [10, 0, 2, 0, 7, 1], [300, 700, 300, 0, 512, 3]
    trees = [random_tree(0, 300), None, random_tree(1, 300), None, random_tree(2, 512), None]
    ids = [tokens(30 + i, n) for i, n in enumerate(counts)]
    got = decoder.forward_batch(ids, trees, caches=filled(decoder, lengths), last_only=last_only)
    for rows, row_ids, tree, cache in zip(got, ids, trees, filled(decoder, lengths), strict=True):
        if len(row_ids):
            assert np.array_equal(rows, decoder.forward(row_ids, tree, cache=cache, last_only=last_only))
        else:
            assert rows.shape == (0, 101)


def test_threads_do_not_change_a_bit_of_a_batch(packed: Decoder, restore_threads: None) -> None:
    ids, trees = [tokens(1, 9), tokens(2, 30), tokens(3, 1)], [None, random_tree(4, 30), None]
    results = []
    for threads in (1, 2, 3):
        gramcore.set_num_threads(threads)
        results.append(np.concatenate(packed.forward_batch(ids, trees, caches=filled(packed, [40, 5, 0]))))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_the_decoders_own_cache_is_left_alone(plain: Decoder) -> None:
    plain.reset()
    plain.forward(IDS[:4])
    plain.forward_batch([IDS[:3]], caches=filled(plain, [2]))
    assert plain.length == 4
    assert plain.forward_batch([], caches=[]) == []
    assert [x.shape for x in plain.forward_batch([[], []], caches=filled(plain, [0, 1]))] == [(0, 101)] * 2


def test_refusals_change_no_cache(plain: Decoder) -> None:
    caches = filled(plain, [3, 15], capacity=16)
    plain.forward([5, 6], [-1, 0], cache=caches[0])
    ids, one = [[1, 2], [3]], [-1]
    other = Decoder.from_module(tiny("mistral one kv head")).new_cache()
    refused: list[tuple[type[Exception], str, Any, Any, Any]] = [
        (ValueError, "caches must be one per sequence, got 1 for 2", ids, None, caches[:1]),
        (ValueError, "trees must be one per sequence, got 1 for 2", ids, [None], caches),
        (ValueError, "caches must differ, got one for sequences 0 and 1", ids, None, [caches[0], caches[0]]),
        (ValueError, r"fit the cache, got 2 tokens \(15 of 16 slots used, sequence 1\)", [[1], [2, 3]], None, caches),
        (ValueError, "must be made for this model, .*sequence 1", ids, None, [caches[0], other]),
        (ValueError, "caches must be caches, got None for sequence 1", ids, None, [caches[0], None]),
        (ValueError, "one entry per token, got 1 for 2", ids, [one, one], caches),
        (ValueError, r"earlier node, got 1 at node 1 \(sequence 0\)", ids, [[-1, 1], None], caches),
        (ValueError, r"earlier node, got -2 at node 0 \(sequence 1\)", ids, [None, [-2]], caches),
        (IndexError, r"ids must be in \[0, 101\), got 101 at position 0 \(sequence 1\)", [[1], [101]], None, caches),
        (IndexError, r"ids must be in .*, got 4294967297", [[1], np.array([2**32 + 1])], None, caches),
        (TypeError, "ids must be integers, got float64", [[1], np.array([0.5])], None, caches),
    ]
    for kind, message, given, trees, held in refused:
        with pytest.raises(kind, match=message):
            plain.forward_batch(given, trees, caches=held)
        assert [(c.length, c.pending) for c in caches] == [(3, 2), (15, 0)]
    large = filled(plain, [0, 0], capacity=600)
    with pytest.raises(ValueError, match=r"tree must have at most 512 nodes, got 513 \(sequence 1\)"):
        plain.forward_batch([[1], tokens(0, 513)], [None, [-1] * 513], caches=large)


@pytest.mark.parametrize("drafter", [None, "suffix", "ngram"])
def test_batches_of_the_loop_equal_single_texts(packed: Decoder, drafter: str | None) -> None:
    def make() -> Any:
        return {None: None, "suffix": spec.SuffixDrafter(), "ngram": spec.NgramDrafter()}[drafter]

    prompts = [np.tile(IDS[:9], 5).tolist(), IDS[20:21].tolist(), IDS[5:40].tolist()]
    settings: dict[str, Any] = {"max_new_tokens": 24, "eos_token_id": ()}
    drafts = {"policy": spec.FixedLength(6)}
    batch = spec.generate(packed.host(), prompts, drafter=make(), **drafts, **settings)
    for prompt, text in zip(prompts, batch.sequences, strict=True):
        assert list(text) == packed.generate(prompt, **settings)
        assert list(text) == list(spec.generate(packed.host(), prompt, drafter=make(), **drafts, **settings).tokens)


def test_a_batch_runs_one_forward_per_step(packed: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    host, calls = packed.host(), []

    class Counted:
        def forward(self, caches: list[Any], *rest: Any) -> Any:
            calls.append(len(caches))
            return packed._native.forward(caches, *rest)

    monkeypatch.setattr(host, "decoder", Wrapped(packed, Counted()))
    spec.generate(host, [[1, 2, 3], [4, 5], [6]], drafter=None, max_new_tokens=6, eos_token_id=())
    assert calls == [3] * 6  # the prompts, then a forward per token but the first


class Wrapped:
    """A decoder whose native part is watched."""

    def __init__(self, decoder: Decoder, native: Any) -> None:
        self._native, self.new_cache = native, decoder.new_cache


def test_extra_embedding_rows_stand_for_ids_beyond_the_vocabulary(isa: str) -> None:
    model = tiny("llama")
    decoder = Decoder.from_module(model)
    table = model.get_input_embeddings().weight.detach()
    extra = table[[7, 90]].contiguous()
    ids, same, tree = [4, 101, 102, 9], [4, 7, 90, 9], [-1, 0, 0, 2]
    a, b = decoder.new_cache(), decoder.new_cache()
    got = decoder._native.forward([a], [ids], [tree], "all", True, extra)
    want = decoder._native.forward([b], [same], [tree], "all", True)
    for x, y in zip(got, want, strict=True):
        np.testing.assert_array_equal(x, y)
    with pytest.raises(IndexError, match=r"ids must be in \[0, 103\), got 103"):
        decoder._native.forward([a], [[103]], None, "all", False, extra)
    with pytest.raises(ValueError, match="extra must have rows of"):
        decoder._native.forward([a], [[1]], None, "all", False, np.zeros((1, 3), np.float32))
    with pytest.raises(IndexError, match=r"ids must be in \[0, 101\), got 101"):
        decoder.forward([101])
