"""The FM-index and SEAL against brute force."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from gramcore.errors import FormatError
from gramcore.ngram import FMIndex, SealRetriever, SuffixAutomaton
from gramcore.ngram.seal import model_scorer
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import ngram as reference

TEXTS = st.one_of(
    st.lists(st.integers(0, 1), max_size=70),
    st.lists(st.integers(0, 6), max_size=70),
    st.lists(st.sampled_from([0, 255, 65535, 2**32 - 1]), max_size=40),
)


@given(TEXTS, st.integers(1, 9), st.data())
def test_counts_positions_successors_and_text(text: list[int], every: int, data: st.DataObject) -> None:
    fm = FMIndex(text, sample_every=every)
    assert fm.num_tokens == len(text)
    assert fm.extract(0, len(text)).tolist() == text
    for _ in range(4):
        ids = data.draw(st.lists(st.sampled_from([*set(text), 5]), max_size=4))
        begin = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(begin, len(text)))
        assert fm.extract(begin, end).tolist() == text[begin:end]
        expected = reference.occurrences(text, ids)
        assert fm.count(ids) == len(expected)
        if ids:
            assert fm.locate(ids).tolist() == expected
        tokens, counts = fm.successors(fm.find(ids))
        assert tokens.tolist() == sorted(tokens.tolist())
        following = reference.next_tokens([text], ids)
        assert dict(zip(tokens.tolist(), counts.tolist(), strict=True)) == following
        for token, count in following.items():
            begin, end = fm.extend(fm.find(ids), token)
            assert end - begin == count


def test_every_kind_of_block_on_every_instruction_set(isa: str) -> None:
    """Long runs, rare symbols and noise, over many blocks and groups of them."""
    rng = np.random.default_rng(0)
    runs = np.repeat(rng.integers(0, 3, 40), rng.integers(1, 400, 40))
    sparse = np.where(rng.random(8000) < 0.03, rng.integers(0, 300, 8000), 7)
    text = np.concatenate([runs, rng.integers(0, 2, 6000), sparse, rng.integers(0, 1000, 5000)]).astype(np.uint16)
    fm = FMIndex(text, sample_every=5)
    np.testing.assert_array_equal(fm.extract(0, len(text)), text)
    windows = np.lib.stride_tricks.sliding_window_view(text, 3)
    for start in rng.integers(0, len(text) - 3, 60):
        expected = np.flatnonzero((windows == windows[start]).all(1))
        np.testing.assert_array_equal(fm.locate(text[start : start + 3]), expected)
    after = text[1:][text[:-1] == 7]
    tokens, counts = fm.successors(fm.find([7]))
    np.testing.assert_array_equal(tokens, np.unique(after))
    np.testing.assert_array_equal(counts, np.unique(after, return_counts=True)[1])


def test_inputs_and_bad_arguments() -> None:
    for dtype in (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64):
        assert FMIndex(np.array([1, 2, 1], dtype)).count([1]) == 2
    assert FMIndex(b"").count(b"a") == 0
    with pytest.raises(IndexError, match="tokens must be in"):
        FMIndex([-1, 2])
    with pytest.raises(TypeError, match="integers"):
        FMIndex([1.5])  # type: ignore[list-item]
    fm = FMIndex(b"abc")
    with pytest.raises(IndexError, match="positions must be in"):
        fm.extract(1, 5)
    with pytest.raises(IndexError, match="rows must be in"):
        fm.successors((0, 9))
    with pytest.raises(ValueError, match="sample_every"):
        FMIndex(b"abc", sample_every=0)
    assert fm.find(b"x") == (0, 0)
    assert fm.successors((0, 0))[0].tolist() == []


def answers(fm: FMIndex, queries: Sequence[Sequence[int]]) -> list[object]:
    """All that an index says about some n-grams, and its text."""
    found: list[object] = [fm.extract(0, len(fm)).tolist(), fm.num_bytes]
    for ids in queries:
        successors = [part.tolist() for part in fm.successors(fm.find(ids))]
        found.append((fm.find(ids), fm.locate(ids).tolist(), successors))
    return found


@given(TEXTS, st.integers(1, 9))
def test_a_loaded_index_answers_as_the_saved_one(
    tmp_path_factory: pytest.TempPathFactory, text: list[int], every: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.fm"
    fm = FMIndex(text, sample_every=every)
    fm.save(path)
    queries = [text[i : i + n] for i in range(0, len(text), 7) for n in (1, 2, 3)] + [[5], []]
    loaded = FMIndex.load(path)
    assert answers(loaded, queries) == answers(fm, queries)
    loaded.save(path)  # over the file it maps
    assert answers(FMIndex.load(path), queries) == answers(loaded, queries) == answers(fm, queries)
    assert [p.name for p in path.parent.glob("round.fm*")] == ["round.fm"]


def test_a_loaded_index_on_every_instruction_set(isa: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    text = np.concatenate([np.repeat(rng.integers(0, 3, 40), 90), rng.integers(0, 700, 9000)]).astype(np.uint16)
    FMIndex(text, sample_every=7).save(tmp_path / "fm")
    loaded = FMIndex.load(tmp_path / "fm")
    np.testing.assert_array_equal(loaded.extract(0, len(text)), text)
    np.testing.assert_array_equal(loaded.locate(text[100:104]), reference.occurrences(text.tolist(), text[100:104]))


def test_damaged_swapped_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.fm"
    FMIndex([1, 2, 3, 1, 2, 70000], sample_every=2).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:n] for n in range(0, len(whole), 5)] + [whole + b"\0", whole + bytes(64), b"", b"x" * len(whole)]
    for _ in range(300):
        copy = bytearray(whole)
        copy[rng.integers(len(copy))] ^= int(rng.integers(1, 256))
        damaged.append(bytes(copy))
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(FormatError, match=r"a\.fm: "):
            FMIndex.load(path)
    SuffixAutomaton([1, 2] * 20).save(path)
    with pytest.raises(FormatError, match="must hold an FM-index, got another kind of file"):
        FMIndex.load(path)
    with pytest.raises(OSError, match="cannot open"):
        FMIndex.load(tmp_path / "missing")
    with pytest.raises(OSError, match="cannot"):
        FMIndex.load(tmp_path)
    with pytest.raises(OSError, match="cannot create"):
        FMIndex(b"a").save(tmp_path / "nowhere" / "a.fm")
    assert os.listdir(tmp_path) == ["a.fm"]


def uniform(ngrams: Sequence[Sequence[int]]) -> npt.NDArray[np.floating]:
    """A model over 10 tokens that likes t + 1 after t."""
    logits = np.zeros((len(ngrams), 10))
    for row, ids in enumerate(ngrams):
        logits[row, ((ids[-1] if len(ids) else 2) + 1) % 10] = 3
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def test_seal_visits_only_occurring_ngrams_and_scores_as_the_paper_says() -> None:
    documents = [[3, 4, 5, 1], [3, 9, 9], [7, 3, 4, 3, 4, 5], [0, 1]]
    retriever = SealRetriever(documents, separator=11, beams=3, max_len=3)
    visited = retriever.ngrams(uniform)
    text = [t for d in documents for t in (11, *d)]
    for ids, score in visited.items():
        assert reference.occurrences(text, ids)
        assert 11 not in ids
        chain = sum(float(uniform([ids[:i]])[0, ids[i]]) for i in range(len(ids)))
        assert score == pytest.approx(chain)
    assert (3, 4, 5) in visited
    weights = {}
    for ids, score in visited.items():
        p, f = np.exp(score), len(reference.occurrences(text, ids)) / len(text)
        weights[ids] = max(0.0, float(np.log(p * (1 - f) / (f * (1 - p)))))
        assert retriever.weight(ids, score) == pytest.approx(weights[ids])
    results = retriever.retrieve(uniform)
    for result in results:
        document, free, seen, expected = documents[result.document], set(), set(), 0.0
        for ids, w in sorted(weights.items(), key=lambda p: (-p[1], p[0])):
            for at in reference.occurrences(document, ids):
                span = set(range(at, at + len(ids)))
                if w > 0 and not span & free:
                    expected += w**2 * (0.2 + 0.8 * len(set(ids) - seen) / len(set(ids)))
                    free |= span
                    seen |= set(ids)
                    break
        assert result.score == pytest.approx(expected)
    assert [r.score for r in results] == sorted((r.score for r in results), reverse=True)
    assert {r.document for r in results[:2]} == {0, 2}


def test_seal_over_a_loaded_index_finds_the_same(tmp_path: Path) -> None:
    documents = [[3, 4, 5, 1], [], [3, 9, 9], [7, 3, 4, 3, 4, 5], [0, 1]]
    FMIndex.from_documents(documents, 11).save(tmp_path / "fm")
    loaded = SealRetriever(FMIndex.load(tmp_path / "fm"), separator=11, beams=3, max_len=3)
    assert loaded.retrieve(uniform) == SealRetriever(documents, separator=11, beams=3, max_len=3).retrieve(uniform)
    with pytest.raises(ValueError, match="begin with the separator 3"):
        SealRetriever(FMIndex.load(tmp_path / "fm"), separator=3)
    with pytest.raises(ValueError, match="begin with the separator"):
        SealRetriever(FMIndex([]), separator=3)


def test_seal_bad_arguments() -> None:
    with pytest.raises(ValueError, match="no document"):
        SealRetriever([[1, 2]], separator=2)
    with pytest.raises(ValueError, match="empty"):
        SealRetriever([], separator=2)


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_seal_with_a_transformers_model_end_to_end(kind: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "causal":
        config = transformers.GPT2Config(vocab_size=20, n_positions=32, n_embd=16, n_layer=1, n_head=2)
        model = transformers.GPT2LMHeadModel(config).eval()
    else:
        config = transformers.T5Config(
            vocab_size=20, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
        )
        model = transformers.T5ForConditionalGeneration(config).eval()
    score = model_scorer(model, [5, 6, 7])
    np.testing.assert_allclose(np.exp(score([(1, 2), (3, 4)])).sum(1), 1, rtol=1e-5)
    together, alone = score([(1, 2), (3, 4)]), score([(3, 4)])
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)
    retriever = SealRetriever([[1, 2, 3], [4, 5, 6, 7], [8, 9]], separator=30, beams=4, max_len=2, max_hits=9)
    for result in retriever.retrieve(score, top=2):
        assert all(len(ids) <= 2 for ids, _ in result.ngrams)
