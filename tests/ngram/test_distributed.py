"""The index over Ray actors gives the local answers, also after an actor is lost."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gramcore
import numpy as np
import pytest
from gramcore.errors import LimitError
from gramcore.ngram import Index

ray_marks = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]
pytestmark = ray_marks


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    root = Path(gramcore.__file__).parents[1]  # where this process found the package, for the workers
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100 << 20,
            runtime_env={"env_vars": {"PYTHONPATH": path}},
        )
        yield ray
        ray.shutdown()


def same(ours: Any, theirs: Any) -> None:
    """Records of numbers and arrays are equal."""
    for field in dataclasses.fields(ours):
        np.testing.assert_array_equal(getattr(ours, field.name), getattr(theirs, field.name))


def test_same_answers_as_local_and_lost_actors_are_replaced(cluster: Any, tmp_path: Path) -> None:
    from gramcore.ngram.distributed import DistributedIndex, build_shards

    rng = np.random.default_rng(0)
    for i in range(3):
        lines = [json.dumps({"text": "".join(rng.choice(list("abc "), 60))}) for _ in range(20)]
        (tmp_path / f"{i}.jsonl").write_text("\n".join(lines))
    sources = [tmp_path / f"{i}.jsonl" for i in range(3)]
    paths = build_shards(sources, tmp_path / "out", token_dtype="u8", shards=2)
    assert paths == build_shards(sources, tmp_path / "out", token_dtype="u8", shards=2)
    local, distributed = Index(paths), DistributedIndex(paths, num_actors=2)
    assert (local.num_tokens, local.num_documents) == (distributed.num_tokens, distributed.num_documents)
    queries = [rng.choice(list(b"abc d"), rng.integers(0, 7)).tolist() for _ in range(60)]

    def compare(some: list[list[int]]) -> None:
        assert distributed.count_batch(some).tolist() == local.count_batch(some).tolist()
        for ids in some[:8]:
            assert distributed.count(ids) == local.count(ids)
            assert distributed.prob(ids, 97) == local.prob(ids, 97)
            assert distributed.infgram_prob(ids, 97) == local.infgram_prob(ids, 97)
            assert distributed.suffix_counts(ids).tolist() == local.suffix_counts(ids).tolist()
            same(distributed.ntd(ids), local.ntd(ids))
            same(distributed.infgram_ntd(ids), local.infgram_ntd(ids))
        passage = np.concatenate([*map(np.array, some), [250], some[0]]).astype(int).tolist()  # 250 occurs nowhere
        same(distributed.score(passage), local.score(passage))
        assert distributed.creativity(passage).tolist() == local.creativity(passage).tolist()
        conts = rng.choice(list(b"abc d"), len(some))
        for ours, theirs in zip(distributed.prob_batch(some, conts), local.prob_batch(some, conts), strict=True):
            assert ours.tolist() == theirs.tolist()
        compare_documents(some, passage)

    def compare_documents(some: list[list[int]], passage: list[int]) -> None:
        for ids in some[:8]:
            assert distributed.find(ids) == local.find(ids)
            for number, shown in ((1, 5), (7, None), (100, 3)):
                ours = distributed.search_docs(ids, maxnum=number, max_disp_len=shown)
                theirs = local.search_docs(ids, maxnum=number, max_disp_len=shown)
                assert ours.cnt == theirs.cnt
                for one, other in zip(ours.documents, theirs.documents, strict=True):
                    same(one, other)
        for cnf in ([[[97], [98, 99]], [[100]]], [[[97, 98]]], [[[250]], [[97]]]):
            for limit in (None, 3):
                found = distributed.find_cnf(cnf, max_diff_tokens=4, max_clause_freq=limit)
                wanted = local.find_cnf(cnf, max_diff_tokens=4, max_clause_freq=limit)
                assert (found.cnt, found.approx) == (wanted.cnt, wanted.approx)
                for one, other in zip(found.positions_by_shard, wanted.positions_by_shard, strict=True):
                    assert one.tolist() == other.tolist()
            for one, other in zip(
                distributed.search_docs_cnf(cnf, maxnum=5, max_disp_len=6).documents,
                local.search_docs_cnf(cnf, maxnum=5, max_disp_len=6).documents,
                strict=True,
            ):
                same(one, other)
        for options in ({}, {"delim_ids": [32], "min_len": 3}, {"bow_ids": frozenset({97, 32}), "max_cnt": 20}):
            spans = distributed.attribute(passage, **options)
            assert len(spans) > 1
            for one, other in zip(spans, local.attribute(passage, **options), strict=True):
                same(one, other)
        assert distributed.attribute([]) == local.attribute([]) == []

    compare(queries)
    for actor in distributed._actors:
        cluster.kill(actor)
    compare(queries[30:])
    stubborn = DistributedIndex(paths, num_actors=1, max_retries=0)
    cluster.kill(stubborn._actors[0])
    with pytest.raises(LimitError, match="within 0 retries"):
        stubborn.count([97])
    distributed.close()
    with pytest.raises(ValueError, match="at least one"):
        DistributedIndex([])
