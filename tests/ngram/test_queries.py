"""Every query against brute force: one or several shards, with and without acceleration, all widths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gramcore.errors import FormatError
from gramcore.ngram import Index, accelerate, build_index
from gramcore.ngram.index import flatten

from tests.reference import ngram as reference

MAX_ID = {"u8": 254, "u16": 65534, "u32": 2**32 - 2}
WIDTH = {"u8": 1, "u16": 2, "u32": 4}


class Case:
    """Two indexes of random documents and the same as lists."""

    def __init__(self, root: Path, dtype: str, version: int, accel: bool, seed: int) -> None:
        rng = np.random.default_rng(seed)
        alphabet = [0, 1, 2, 7, MAX_ID[dtype] - 1, MAX_ID[dtype]][: int(rng.integers(1, 7))]
        self.alphabet = alphabet
        self.texts = []
        paths = []
        for part in range(2):
            documents = [rng.choice(alphabet, rng.integers(0, 30)).tolist() for _ in range(int(rng.integers(1, 5)))]
            path = root / f"{dtype}-{version}-{accel}-{seed}-{part}"
            build_index(documents, path, token_dtype=dtype, version=version)
            if accel:
                assert accelerate(path) == (path / "accel.0").stat().st_size
            paths.append(path)
            stored = reference.flat(documents, WIDTH[dtype], reverse=version == 5)
            self.texts.append(stored if version == 4 else stored[::-1])
        self.index = Index(paths)
        assert self.index.accelerated == accel
        self.rng = rng

    def queries(self, count: int, longest: int) -> list[list[int]]:
        ids = [*self.alphabet, self.index.separator, 3]
        return [self.rng.choice(ids, self.rng.integers(0, longest + 1)).tolist() for _ in range(count)]


@pytest.fixture(params=[(d, a) for d in MAX_ID for a in (False, True)], ids=lambda p: f"{p[0]}-accel={p[1]}")
def cases(request: pytest.FixtureRequest, tmp_path: Path) -> list[Case]:
    dtype, accel = request.param
    return [Case(tmp_path, dtype, 4, accel, seed) for seed in range(8)]


def test_counts_probabilities_and_distributions(cases: list[Case]) -> None:
    for case in cases:
        for ids in case.queries(40, 5):
            cont = case.alphabet[0]
            expected = reference.count(case.texts, ids)
            assert case.index.count(ids) == expected
            found = case.index.prob(ids, cont)
            with_cont = reference.count(case.texts, [*ids, cont])
            assert (found.prompt_cnt, found.cont_cnt) == (expected, with_cont)
            assert found.prob == (with_cont / expected if expected else -1)
            ntd = case.index.ntd(ids)
            assert dict(zip(ntd.token_ids.tolist(), ntd.cont_cnts.tolist(), strict=True)) == reference.next_tokens(
                case.texts, ids
            )
            assert ntd.token_ids.tolist() == sorted(ntd.token_ids.tolist())
            assert ntd.prompt_cnt == expected
            np.testing.assert_array_equal(ntd.probs, ntd.cont_cnts / max(expected, 1))
            ranked = sorted(reference.next_tokens(case.texts, ids).items(), key=lambda p: (-p[1], p[0]))
            top = case.index.ntd(ids, top=2)
            assert list(zip(top.token_ids.tolist(), top.cont_cnts.tolist(), strict=True)) == ranked[:2]


def test_infinigram_suffixes(cases: list[Case]) -> None:
    for case in cases:
        for ids in case.queries(30, 9):
            length = reference.longest_suffix(case.texts, ids)
            suffix = ids[len(ids) - length :]
            cont = case.alphabet[-1]
            found = case.index.infgram_prob(ids, cont)
            assert found.suffix_len == length
            assert found.prompt_cnt == reference.count(case.texts, suffix)
            assert found.cont_cnt == reference.count(case.texts, [*suffix, cont])
            ntd = case.index.infgram_ntd(ids)
            assert ntd.suffix_len == length
            assert dict(zip(ntd.token_ids.tolist(), ntd.cont_cnts.tolist(), strict=True)) == reference.next_tokens(
                case.texts, suffix
            )
            expected = [reference.count(case.texts, ids[len(ids) - k :]) for k in range(len(ids) + 1)]
            assert case.index.suffix_counts(ids).tolist() == expected
            assert case.index.suffix_counts(ids, max_len=2).tolist() == expected[:3]


def test_score_and_creativity(cases: list[Case]) -> None:
    for case in cases:
        for ids in [*case.queries(12, 25), case.texts[0][:30], [*case.texts[0][:15], *case.texts[1][:15]]]:
            score = case.index.score(ids)
            for i, token in enumerate(ids):
                length = reference.longest_suffix(case.texts, ids[:i])
                suffix = ids[i - length : i]
                assert score.suffix_len[i] == length
                assert score.prompt_cnt[i] == reference.count(case.texts, suffix)
                assert score.cont_cnt[i] == reference.count(case.texts, [*suffix, token])
            with np.errstate(divide="ignore"):
                np.testing.assert_array_equal(score.logprob, np.log(score.cont_cnt / score.prompt_cnt))
            assert case.index.creativity(ids).tolist() == reference.match_ends(case.texts, ids)


def test_batches_equal_single_calls(cases: list[Case], restore_threads: None) -> None:
    import gramcore

    for threads, case in zip((1, 3) * 4, cases, strict=True):
        gramcore.set_num_threads(threads)
        queries = case.queries(300, 5)
        assert case.index.count_batch(queries).tolist() == [case.index.count(q) for q in queries]
        conts = case.rng.choice(case.alphabet, len(queries))
        prompt, cont = case.index.prob_batch(queries, conts)
        singles = [case.index.prob(q, int(c)) for q, c in zip(queries, conts, strict=True)]
        assert prompt.tolist() == [p.prompt_cnt for p in singles]
        assert cont.tolist() == [p.cont_cnt for p in singles]
        for top in (None, 2):
            batch = case.index.ntd_batch(queries, top=top)
            for i, q in enumerate(queries):
                one, part = case.index.ntd(q, top=top), slice(batch.offsets[i], batch.offsets[i + 1])
                assert batch.prompt_cnts[i] == one.prompt_cnt
                np.testing.assert_array_equal(batch.token_ids[part], one.token_ids)
                np.testing.assert_array_equal(batch.cont_cnts[part], one.cont_cnts)
    assert case.index.count_batch([]).tolist() == []
    assert case.index.count_batch(np.zeros((2, 0), np.int64)).tolist() == [case.index.num_tokens] * 2


def test_reversed_indexes(tmp_path: Path) -> None:
    for seed in range(4):
        case = Case(tmp_path, "u16", 5, bool(seed % 2), seed)
        queries = case.queries(60, 5)
        # Stored backwards, separators end documents: brute force reads each text backwards again.
        assert case.index.count_batch(queries).tolist() == [reference.count(case.texts, q) for q in queries]
        for ids in queries:
            cont = case.alphabet[0]
            assert case.index.count(ids) == reference.count(case.texts, ids)
            assert case.index.prob(ids, cont).cont_cnt == reference.count(case.texts, [*ids, cont])
            assert case.index.infgram_prob(ids, cont).suffix_len == reference.longest_suffix(case.texts, ids)
        with pytest.raises(ValueError, match="needs a forward index"):
            case.index.ntd([1])


@pytest.mark.parametrize("dtype", MAX_ID)
@pytest.mark.parametrize("ending", [[0, 0, 0], [1, 0], [2]])
def test_acceleration_changes_no_answer(tmp_path: Path, dtype: str, ending: list[int]) -> None:
    """Ranges of hundreds of ranks, so that searches and distributions go by samples; a passage that comes back with a
    token changed, so that neighbours share more or fewer tokens than are kept; zeros to the end of the text."""
    rng = np.random.default_rng(6)
    ids = np.array([0, 1, 2, 255, 256, 65534])
    ids = ids[ids <= MAX_ID[dtype]]
    body = rng.choice(ids, 4000, p=np.r_[0.5, np.full(len(ids) - 1, 0.5 / (len(ids) - 1))])
    copies = np.tile(body[100:140], (40, 1))
    copies[np.arange(40), rng.integers(0, 40, 40)] = rng.choice(ids, 40)
    text = np.concatenate([body, copies.reshape(-1), ending])
    build_index([text], tmp_path, token_dtype=dtype, accel=True)
    fast, plain = Index(tmp_path), Index(tmp_path, use_accel=False)
    starts = rng.integers(0, len(text) - 24, 600)
    queries = [text[s : s + n] for s, n in zip(starts, rng.integers(1, 25, 600), strict=True)]
    queries += [np.r_[q[:-1], rng.choice(ids)] for q in queries[::2]]
    queries += [rng.choice(ids, n) for n in rng.integers(1, 9, 300)]
    queries += [text[-n:] for n in range(1, 9)]
    for q in queries:
        assert fast.find(q).segment_by_shard == plain.find(q).segment_by_shard
        ours, want = fast.ntd(q), plain.ntd(q)
        assert (ours.prompt_cnt, ours.token_ids.tolist(), ours.cont_cnts.tolist()) == (
            want.prompt_cnt,
            want.token_ids.tolist(),
            want.cont_cnts.tolist(),
        )
        assert fast.prob(q, int(ids[-1])) == plain.prob(q, int(ids[-1]))
        assert fast.infgram_prob(q, int(ids[1])) == plain.infgram_prob(q, int(ids[1]))
    assert fast.count_batch(queries).tolist() == plain.count_batch(queries).tolist()


def test_damaged_acceleration_is_refused_or_harmless(tmp_path: Path) -> None:
    build_index([np.random.default_rng(0).integers(0, 9, 200)], tmp_path)
    accelerate(tmp_path)
    path = tmp_path / "accel.0"
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for size in (0, 10, 47, len(whole) // 2, len(whole) - 1, len(whole) + 1):
        path.write_bytes((whole * 2)[:size])
        with pytest.raises(FormatError):
            Index(tmp_path)
        assert Index(tmp_path, use_accel=False).count([1]) > 0
    for _ in range(300):
        copy = bytearray(whole)
        copy[rng.integers(len(copy))] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(copy))
        try:
            index = Index(tmp_path)
            for a in range(9):
                index.ntd([a])
                index.ntd([a, 1])
                index.count([a, 1, 2])
                index.count_batch([[a, 1, 2, 3], [a, 2, 1, 4, 4, 5, 6, 8]])
        except FormatError:
            continue
    path.write_bytes(whole)
    other = tmp_path / "other"
    build_index([np.random.default_rng(2).integers(0, 9, 200)], other)
    (other / "accel.0").write_bytes(whole)
    with pytest.raises(FormatError, match="made for this index"):
        Index(other)


def test_bad_arguments(tmp_path: Path) -> None:
    build_index([[1, 2, 3]], tmp_path)
    index = Index(tmp_path)
    score = index.score([1, 70000, 2])  # an id that u16 cannot hold occurs nowhere
    assert (score.suffix_len.tolist(), score.cont_cnt.tolist()) == ([0, 1, 0], [1, 0, 1])
    assert index.count_batch([[70000], [1, 70000]]).tolist() == [0, 0]
    with pytest.raises(ValueError, match="top must be in"):
        index.ntd([1], top=0)
    with pytest.raises(ValueError, match="one per prompt"):
        index.prob_batch([[1], [2]], [1])
    with pytest.raises(TypeError, match="integers"):
        index.count_batch([[1.5]])
    for call in (index.prob, index.infgram_prob):
        for cont in (-1, 2**32):
            with pytest.raises(IndexError, match="cont_id must be in"):
                call([1], cont)
        with pytest.raises(TypeError, match="cont_id must be an int"):
            call([1], "2")
        with pytest.raises(TypeError, match="prompt_ids must be integers"):
            call([1.5], 2)
    with pytest.raises(IndexError, match="ids must be in"):
        index.count_batch([[-1]])
    for offsets in ([1, 2], [0, 1], [0, 2, 1, 2], []):
        with pytest.raises(ValueError, match="offsets"):
            index.count_batch((np.array([1, 2], np.uint32), np.array(offsets, np.int64)))
    with pytest.raises(ValueError, match=r"\(Q, n\)"):
        flatten(np.zeros(3, np.int64))


@pytest.mark.parametrize("dtype", ["u8", "u16", "u32"])
@pytest.mark.parametrize("accel", [False, True])
def test_batches_of_every_length_and_width(tmp_path: Path, dtype: str, accel: bool) -> None:
    """Queries shorter and longer than the 8 bytes compared at once, at the text's end, repeated and absent ones."""
    rng = np.random.default_rng(12)
    high = {"u8": 250, "u16": 65000, "u32": 2**32 - 9}[dtype]
    body = np.where(rng.random(400) < 0.5, rng.integers(0, 2, 400), high + rng.integers(0, 3, 400)).tolist()
    documents = [body[:150], [], body[150:], body[:60], [7] * 40]
    build_index(documents, tmp_path, token_dtype=dtype, accel=accel)
    text = reference.flat(documents, {"u8": 1, "u16": 2, "u32": 4}[dtype])
    queries = [text[s : s + n] for n in range(14) for s in rng.integers(0, len(text), 12).tolist()]
    queries += [text[-n:] for n in range(1, 14)] + [[*text[-n:], 7] for n in range(1, 14)] + [[7] * 40, [7] * 41]
    queries += [[*q[:-1], high + 5] for q in queries if q] + [[2**32 - 1, 1], []]
    expected = [reference.count([text], q) for q in queries]
    for ram in (False, True):
        index = Index(tmp_path, load_to_ram=ram)
        assert index.count_batch(queries).tolist() == expected
        assert [index.count(q) for q in queries] == expected
        index.verify()
