"""Takedown and append against an index built of the same documents at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gramcore.errors import FormatError
from gramcore.ngram import Index, InfiniGramEngineDiff, build_index
from gramcore.ngram.difference import IndexDifference, append_index

from tests.reference import ngram as reference


def documents(seed: int, number: int) -> list[list[int]]:
    """Random documents over four tokens."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 4, rng.integers(0, 30)).tolist() for _ in range(number)]


def test_difference_equals_an_index_of_what_is_left(tmp_path: Path) -> None:
    kept, taken = documents(0, 8), documents(1, 5)
    # The last document of each index ends its text, where nothing follows; give all the same end.
    build_index([*kept, *taken, [3]], tmp_path / "whole")
    build_index([*taken], tmp_path / "taken")
    build_index([*kept, [3]], tmp_path / "left")
    left, expected = IndexDifference(Index(tmp_path / "whole"), Index(tmp_path / "taken")), Index(tmp_path / "left")
    rng = np.random.default_rng(2)
    queries = [rng.integers(0, 4, rng.integers(0, 5)).tolist() for _ in range(60)]
    assert left.count_batch(queries).tolist() == expected.count_batch(queries).tolist()
    for ids in queries:
        assert left.count(ids) == expected.count(ids)
        assert left.prob(ids, 1) == expected.prob(ids, 1)
        assert left.infgram_prob(ids, 1) == expected.infgram_prob(ids, 1)
        if not ids or ids[-1] != 3:  # what follows the last document taken down differs, see below
            assert left.infgram_ntd(ids).suffix_len == expected.infgram_ntd(ids).suffix_len
        assert left.suffix_counts(ids).tolist() == expected.suffix_counts(ids).tolist()
        ours, theirs = left.ntd(ids), expected.ntd(ids)
        inside = ours.token_ids != 65535  # the separator after the last document taken down is not in its own index
        assert ours.token_ids[inside].tolist() == theirs.token_ids[theirs.token_ids != 65535].tolist()
        assert ours.cont_cnts[inside].tolist() == theirs.cont_cnts[theirs.token_ids != 65535].tolist()
    with pytest.raises(ValueError, match="only documents of the index"):
        IndexDifference(Index(tmp_path / "taken"), Index(tmp_path / "whole")).count([1])
    build_index([[1]], tmp_path / "wide", token_dtype="u32")
    with pytest.raises(ValueError, match="one version and token type"):
        IndexDifference(Index(tmp_path / "whole"), Index(tmp_path / "wide"))


@pytest.mark.parametrize("stops", [[], [3]])
def test_stretches_that_are_left_equal_brute_force(tmp_path: Path, stops: list[int]) -> None:
    kept, taken = documents(6, 8), documents(7, 6)
    build_index([*kept, *taken], tmp_path / "whole", shards=2)
    build_index(taken, tmp_path / "taken")
    whole = Index(tmp_path / "whole")
    left = IndexDifference(whole, Index(tmp_path / "taken"))
    texts, gone = [reference.flat([d], 2) for d in (*kept, *taken)], [reference.flat([d], 2) for d in taken]
    rng = np.random.default_rng(8)
    for _ in range(12):
        picked = taken[int(rng.integers(len(taken)))]
        ids = [*picked[:20], 9, *rng.integers(0, 4, 8).tolist(), *picked[:6]]
        ends = reference.match_ends_left(texts, gone, ids)
        assert left.creativity(ids).tolist() == ends
        for i in range(len(ids)):
            ends[i] = min(ends[i], next((j + 1 for j in range(i, len(ids)) if ids[j] in stops), len(ids)))
        spans = left.attribute(ids, delim_ids=stops, max_cnt=10**6)
        assert [(s.l, s.r) for s in spans] == [
            (i, e) for i, e in enumerate(ends) if e > i and (i == 0 or e > max(ends[:i]))
        ]
        for s in spans:
            assert s.count == whole.count(ids[s.l : s.r])
            shown = left.windows(ids[s.l : s.r], s.docs, max_ctx_len=40)
            texts_gone = [d.tolist() for d in (np.array(t) for t in taken)]
            for d in shown:
                assert d is None or d.token_ids.tolist() not in texts_gone
            assert sum(d is not None for d in shown) >= 1
    with pytest.raises(ValueError, match="max_ctx_len"):
        left.windows([1], [(0, 1)], max_ctx_len=-1)


@pytest.mark.peer
def test_same_answers_as_infini_grams_difference(tmp_path: Path) -> None:
    peer = pytest.importorskip("infini_gram.engine")
    kept, taken = documents(9, 30), documents(10, 9)
    build_index([*kept, *taken, [4]], tmp_path / "whole")
    build_index(taken, tmp_path / "taken")
    paths, options = (str(tmp_path / "whole"), str(tmp_path / "taken")), {"eos_token_id": 5, "vocab_size": 6}
    theirs = peer.InfiniGramEngineDiff(*paths, **options, precompute_unigram_logprobs=True)
    ours = InfiniGramEngineDiff(*paths, **options)
    rng = np.random.default_rng(11)
    for number in range(20):
        document = taken[number % len(taken)]
        ids = [*document[:18], *rng.integers(0, 4, 6).tolist()]
        assert ours.creativity(ids) == theirs.creativity(ids)
        for query in (ids[:2], ids[:4], [1]):
            assert ours.find(query) == theirs.find(query)
            assert ours.count(query) == theirs.count(query)
            assert ours.prob(query, 1) == theirs.prob(query, 1)
            assert ours.infgram_prob(ids, 1) == theirs.infgram_prob(ids, 1)
            sampled = theirs.ntd(query, max_support=10**6)
            assert sampled["approx"] or ours.ntd(query) == sampled
        mine, other = (e.attribute(ids, [2], 1, 10**6, False)["spans"] for e in (ours, theirs))
        fields = ("l", "r", "length", "count")
        assert [[s[f] for f in fields] for s in mine] == [[s[f] for f in fields] for s in other]
        requests = [
            {"docs": s["docs"], "span_ids": ids[s["l"] : s["r"]], "needle_len": s["length"], "max_ctx_len": 4}
            for s in mine
        ]
        got = ours.get_docs_by_ptrs_2_grouped(requests)
        assert got == theirs.get_docs_by_ptrs_2_grouped(requests)
        blocked = [d["blocked"] for docs in got for d in docs]
        assert any(blocked) or number % len(taken) or not document


def test_append_equals_building_all_at_once(tmp_path: Path) -> None:
    first, second = documents(3, 6), documents(4, 9)
    build_index(first, tmp_path / "index")
    before = (tmp_path / "index" / "table.0").read_bytes()
    report = append_index(second, tmp_path / "index", accel=True)
    assert report.num_shards == 1
    assert (tmp_path / "index" / "table.0").read_bytes() == before
    build_index([*first, *second], tmp_path / "all")
    index, expected = Index(tmp_path / "index"), Index(tmp_path / "all")
    index.verify()
    assert index.num_documents == 15
    rng = np.random.default_rng(5)
    queries = [rng.integers(0, 4, rng.integers(1, 5)).tolist() for _ in range(60)]
    assert index.count_batch(queries).tolist() == expected.count_batch(queries).tolist()
    assert index.doc_by_ix(8).token_ids.tolist() == second[2]
    assert not (tmp_path / "index" / "append").exists()
    with pytest.raises(FormatError, match="must hold an index"):
        append_index(second, tmp_path)
