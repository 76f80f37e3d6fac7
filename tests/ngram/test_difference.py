"""Takedown and append against an index built of the same documents at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gramcore.errors import FormatError
from gramcore.ngram import Index, build_index
from gramcore.ngram.difference import IndexDifference, append_index


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
