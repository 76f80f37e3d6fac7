"""The host for transformers models: its cache, and batches whose rows are packed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gramcore.spec import DraftTree, SlotCache, TransformersHost
from gramcore.spec.attention import ancestor_rows

from .scripted import prompt


@pytest.mark.parametrize("attention", ["kernel", "mask"])
def test_cache_after_compaction_equals_a_fresh_prefill(model: Any, attention: str) -> None:
    ids = np.int32(prompt(12))
    tree = DraftTree(np.int32([3, 4, 5, 6, 7]), np.int32([-1, -1, 1, 0, 2]))
    path = np.int32([1, 2, 4])
    with torch.inference_mode():
        target = TransformersHost(model, attention=attention)
        target.open(1, 64)
        target.prefill([ids[:-1]])
        out = target.forward([int(ids[-1])], [(tree.tokens, tree.parents)])
        target.commit(0, path)
        fresh = TransformersHost(model)
        fresh.open(1, 64)
        whole = np.concatenate([ids, tree.tokens[path]])
        expected = fresh.prefill([whole])
    assert target.cache.lengths == fresh.cache.lengths == [15]
    for ours, theirs in zip(target.cache.layers, fresh.cache.layers, strict=True):
        torch.testing.assert_close(ours.keys[:, :, :15], theirs.keys[:, :, :15], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.values[:, :, :15], theirs.values[:, :, :15], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.logits[0][5], expected.logits[0][-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("attention", ["kernel", "mask"])
def test_cache_buffers_are_never_replaced(model: Any, attention: str) -> None:
    with torch.inference_mode():
        target = TransformersHost(model, attention=attention)
        target.open(1, 64)
        target.prefill([np.int32(prompt(12))])
        before = [layer.keys.data_ptr() for layer in target.cache.layers]
        for _ in range(5):
            target.forward([1], [(np.int32([2, 3]), np.int32([-1, -1]))])
            target.commit(0, np.int32([1]))
        assert [layer.keys.data_ptr() for layer in target.cache.layers] == before
        assert target.cache.get_seq_length() == 22
        assert isinstance(target.cache, SlotCache)


def test_packed_batches_are_their_sequences_alone(model: Any) -> None:
    """Prompts and trees of different sizes, one of them empty, one sequence dropped: logits, states and caches."""
    prompts = [np.int32(prompt(12)), np.int32([]), np.int32(prompt(20, 1)), np.int32(prompt(6, 2))]
    trees = [
        (np.int32([3, 4, 5, 6]), np.int32([-1, -1, 1, 0])),
        (np.int32([]), np.int32([])),
        (np.int32([9]), np.int32([-1])),
        (np.arange(70, dtype=np.int32), np.arange(-1, 69, dtype=np.int32)),
    ]
    paths = [np.int32([1, 2]), np.int32([]), np.int32([0]), np.arange(5, dtype=np.int32)]
    widths: list[int] = []
    seen = model.lm_head.register_forward_pre_hook(lambda _, args: widths.append(args[0].shape[1]))
    try:
        with torch.inference_mode():
            batch = TransformersHost(model)
            batch.open(4, 128, want_hidden=True)
            before = batch.prefill(prompts)
            widths.clear()
            out = batch.forward([7, 8, 9, 10], trees)
            assert widths == [4 + sum(len(tokens) for tokens, _ in trees)]  # no padding reaches the layers
            for b, path in enumerate(paths):
                batch.commit(b, path)
            batch.select([3, 0])
            later = batch.forward([1, 2], [trees[0], trees[1]])
            for b in range(4):
                alone = TransformersHost(model, attention="mask")
                alone.open(1, 128, want_hidden=True)
                first = alone.prefill(prompts[b : b + 1])
                if first is not None:
                    torch.testing.assert_close(before.hidden[b], first.hidden[0], rtol=1e-4, atol=1e-5)
                want = alone.forward([7 + b], trees[b : b + 1])
                torch.testing.assert_close(out.logits[b], want.logits[0], rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(out.hidden[b], want.hidden[0], rtol=1e-4, atol=1e-5)
                alone.commit(0, paths[b])
                if b in (3, 0):
                    after = alone.forward([1 if b else 2], [trees[0 if b else 1]])
                    torch.testing.assert_close(later.logits[0 if b else 1], after.logits[0], rtol=1e-4, atol=1e-4)
    finally:
        seen.remove()


def test_ancestor_words_of_trees_of_different_widths() -> None:
    rows = ancestor_rows([np.int32([-1, 0]), np.arange(-1, 69, dtype=np.int32)])
    assert rows.shape == (3 + 71, 2)
    assert rows[:3].tolist() == [[1, 0], [3, 0], [7, 0]]
    assert rows[-1].tolist() == [-1, 127]
