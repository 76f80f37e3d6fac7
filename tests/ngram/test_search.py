"""Documents, boolean searches and attribution against brute force; infini-gram's interface against infini-gram."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gramcore.errors import FormatError
from gramcore.ngram import Index, InfiniGramEngine, accelerate, build_index

from tests.reference import ngram as reference


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Index, list[list[list[int]]]]:
    rng = np.random.default_rng(3)
    shards = [[rng.integers(0, 6, rng.integers(0, 40)).tolist() for _ in range(7)] for _ in range(2)]
    for i, documents in enumerate(shards):
        build_index(documents, tmp_path / str(i))
    return Index([tmp_path / "0", tmp_path / "1"]), shards


def brute_cnf(documents: list[list[int]], cnf: list[list[list[int]]], reach: int) -> list[list[int]]:
    """Per clause position lists; matches of the rarest clause near all others, as positions in the text."""
    clauses: list[list[tuple[int, int]]] = []
    for clause in cnf:
        places = set()
        start = 1
        for number, document in enumerate(documents):
            for ids in clause:
                places |= {(number, start + i) for i in reference.occurrences(document, ids)}
            start += len(document) + 1
        clauses.append(sorted(places))
    clauses.sort(key=len)
    return [
        p for d, p in clauses[0] if all(any(d == e and abs(p - q) <= reach for e, q in other) for other in clauses[1:])
    ]


def test_boolean_search(corpus: tuple[Index, list[list[list[int]]]]) -> None:
    index, shards = corpus
    rng = np.random.default_rng(4)
    for _ in range(60):
        cnf = [
            [rng.integers(0, 6, rng.integers(1, 3)).tolist() for _ in range(rng.integers(1, 3))]
            for _ in range(rng.integers(1, 4))
        ]
        reach = int(rng.integers(1, 12))
        found = index.find_cnf(cnf, max_diff_tokens=reach)
        expected = [brute_cnf(documents, cnf, reach) for documents in shards]
        if all(len(c) for c in cnf):
            assert [p.tolist() for p in found.positions_by_shard] == expected
            assert found.cnt == sum(map(len, expected))
            assert not found.approx
    assert index.find_cnf([[[1]]], max_clause_freq=2).approx
    most = max(sum(d.count(1) for d in documents) for documents in shards)
    assert not index.find_cnf([[[1]]], max_clause_freq=most).approx
    assert index.find_cnf([[[1]]], max_clause_freq=most - 1).approx
    every = index.find_cnf([[[1]]]).positions_by_shard
    for limit in range(1, most):  # thinned evenly, to no more than the limit
        thinned = index.find_cnf([[[1]]], max_clause_freq=limit).positions_by_shard
        assert [p.tolist() for p in thinned] == [p[:: -(-len(p) // limit)].tolist() for p in every]
        assert max(map(len, thinned)) <= limit
    with pytest.raises(ValueError, match="non-empty"):
        index.find_cnf([[[]]])
    documents = index.search_docs_cnf([[[1]], [[2]]], maxnum=3, max_diff_tokens=3)
    assert len(documents.documents) == 3


def test_documents(corpus: tuple[Index, list[list[list[int]]]]) -> None:
    index, shards = corpus
    everything = [d for documents in shards for d in documents]
    for number, document in enumerate(everything):
        found = index.doc_by_ix(number, max_disp_len=None)
        assert (found.doc_ix, found.doc_len, found.token_ids.tolist()) == (number, len(document), document)
        assert index.doc_by_ix(number, max_disp_len=3).token_ids.tolist() == document[:3]
    found = index.search_docs([1, 2], maxnum=5, max_disp_len=6)
    assert found.cnt == sum(len(reference.occurrences(d, [1, 2])) for d in everything)
    for d in found.documents:
        assert d.token_ids[d.needle_offset : d.needle_offset + 2].tolist() == [1, 2]
        assert d.doc_len == len(everything[d.doc_ix])
        assert 2 <= len(d.token_ids) <= 6
    with pytest.raises(ValueError, match="doc_ix must be in"):
        index.doc_by_ix(14)


def test_reversed_documents_read_forward(tmp_path: Path) -> None:
    build_index([[1, 2, 3, 4], [5, 6]], tmp_path, version=5)
    index = Index(tmp_path)
    assert index.doc_by_ix(0).token_ids.tolist() == [1, 2, 3, 4]
    found = index.search_docs([2, 3], max_disp_len=None).documents[0]
    assert found.token_ids.tolist() == [1, 2, 3, 4]
    assert found.token_ids[found.needle_offset] == 3  # matches are found from their end, as infini-gram shows them
    cut = index.search_docs([2, 3], max_disp_len=2).documents[0]
    assert (cut.token_ids.tolist(), cut.needle_offset) == ([3, 4], 0)


def test_metadata_lines(tmp_path: Path) -> None:
    build_index([[1, 2], [3]], tmp_path)
    lines = [json.dumps({"n": i}) + "\n" for i in range(2)]
    (tmp_path / "metadata.0").write_text("".join(lines))
    np.array([0, len(lines[0])], "<u8").tofile(tmp_path / "metaoff.0")
    assert json.loads(Index(tmp_path).doc_by_ix(1).metadata) == {"n": 1}
    (tmp_path / "metaoff.0").write_bytes(b"\0" * 8)
    with pytest.raises(FormatError, match="line for document 1"):
        Index(tmp_path).doc_by_ix(1)


def numberless(documents: list[list[int]], directory: Path) -> None:
    """The layout of infini-gram's v6 indexer: one shard per directory, no number in its files' names."""
    build_index(documents, directory)
    (directory / "gramcore-index.json").unlink()
    for stem in ("tokenized", "table", "offset"):
        (directory / f"{stem}.0").rename(directory / stem)
    lines = [json.dumps({"n": i}) + "\n" for i in range(len(documents))]
    (directory / "metadata").write_text("".join(lines))
    np.cumsum([0, *map(len, lines[:-1])]).astype("<u8").tofile(directory / "metaoff")


def test_directories_of_the_v6_indexer(corpus: tuple[Index, list[list[list[int]]]], tmp_path: Path) -> None:
    same, shards = corpus
    for i, documents in enumerate(shards):
        numberless(documents, tmp_path / f"six{i}")
    paths = [tmp_path / "six0", tmp_path / "six1"]
    index = Index(paths)
    rng = np.random.default_rng(6)
    queries = [rng.integers(0, 7, rng.integers(0, 5)).tolist() for _ in range(50)]
    assert [index.find(q) for q in queries] == [same.find(q) for q in queries]
    assert index.num_documents == 14
    assert json.loads(index.doc_by_ix(8).metadata) == {"n": 1}
    index.verify()
    assert accelerate(paths[0]) + accelerate(paths[1]) == sum((p / "accel").stat().st_size for p in paths)
    assert Index(paths).accelerated
    assert Index(paths).count_batch(queries).tolist() == same.count_batch(queries).tolist()
    engine = InfiniGramEngine([str(p) for p in paths], eos_token_id=9)
    assert engine.count(queries[0])["count"] == same.count(queries[0])
    (paths[0] / "table.0").write_bytes(b"")
    with pytest.raises(FormatError, match="either table or"):
        Index(paths)
    (paths[0] / "table.0").unlink()
    (paths[0] / "offset").unlink()
    with pytest.raises(OSError, match="offset: cannot open"):
        Index(paths)


@pytest.mark.peer
def test_infini_gram_reads_the_v6_layout_alike(tmp_path: Path) -> None:
    peer = pytest.importorskip("infini_gram.engine")
    numberless([[1, 2, 3, 4], [1, 2, 5], [6]], tmp_path)
    theirs = peer.InfiniGramEngine(str(tmp_path), eos_token_id=9, vocab_size=10)
    ours = InfiniGramEngine(str(tmp_path), eos_token_id=9, vocab_size=10)
    for ids in ([1], [1, 2], [2, 5], [7], []):
        assert ours.find(ids) == theirs.find(ids)
        assert ours.prob(ids, 2) == theirs.prob(ids, 2)
    assert ours.get_doc_by_ix(1) == theirs.get_doc_by_ix(1)


def test_attribution_spans(corpus: tuple[Index, list[list[list[int]]]]) -> None:
    index, shards = corpus
    texts = [reference.flat(d, 2) for d in shards]
    rng = np.random.default_rng(5)
    for round_ in range(20):
        ids = rng.integers(0, 7, 25).tolist()
        delimiters = [5] if round_ % 2 else []
        ends = reference.match_ends(texts, ids)
        for i in range(len(ids)):
            stop = next((j + 1 for j in range(i, len(ids)) if ids[j] in delimiters), len(ids))
            ends[i] = min(ends[i], stop)
        expected = [(i, e) for i, e in enumerate(ends) if e > i and (i == 0 or e > max(ends[:i]))]
        spans = index.attribute(ids, delim_ids=delimiters, max_cnt=10**6)
        assert [(s.l, s.r) for s in spans] == expected
        for s in spans:
            assert s.count == len(s.docs) == reference.count(texts, ids[s.l : s.r])
            assert all(texts[d][p : p + s.length] == ids[s.l : s.r] for d, p in s.docs)
            logs = [np.log(reference.count(texts, [t]) / sum(map(len, texts))) for t in ids[s.l : s.r]]
            assert s.unigram_logprob_sum == pytest.approx(sum(logs))
        few = index.attribute(ids, delim_ids=delimiters, min_len=3, max_cnt=2)
        assert [(s.l, s.r) for s in few] == [(s.l, s.r) for s in spans if s.length >= 3 and s.count <= 2]
        words = index.attribute(ids, bow_ids=frozenset({0, 1}), max_cnt=10**6)
        for s in words:
            assert ids[s.l] in (0, 1)
            assert s.r == len(ids) or ids[s.r] in (0, 1)
    assert index.attribute([], max_cnt=5) == []


@pytest.mark.peer
def test_same_files_and_answers_as_infini_gram(tmp_path: Path) -> None:
    engine = pytest.importorskip("infini_gram.engine")
    import subprocess
    import sysconfig

    source = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:40]
    documents = [np.frombuffer(p.read_bytes(), np.uint8).astype(np.uint16) for p in source]
    documents.append(np.array([999], np.uint16))  # theirs miscounts what follows a prompt that ends the text
    build_index(documents, tmp_path / "index")
    path = tmp_path / "index"
    tool = Path(engine.__file__).parent / "rust_indexing"
    size = (path / "tokenized.0").stat().st_size
    ratio = str(int(np.ceil(np.log2(size) / 8)))
    for name in ("parts", "merged"):
        (tmp_path / name).mkdir()
    shared = ["--data-file", str(path / "tokenized.0"), "--ratio", ratio, "--token-width", "2"]
    parts, merged, table = str(tmp_path / "parts"), str(tmp_path / "merged"), tmp_path / "table"
    half = size // 4 * 2
    for begin, end in ((0, min(half + 100_000, size)), (half, size)):
        cut = ["--start-byte", str(begin), "--end-byte", str(end)]
        subprocess.run([tool, "make-part", "--parts-dir", parts, *cut, *shared], check=True, capture_output=True)
    threads = ["--num-threads", "2"]
    merge = ["--parts-dir", parts, "--merged-dir", merged, "--hacksize", "100000"]
    subprocess.run([tool, "merge", *merge, *threads, *shared], check=True, capture_output=True)
    subprocess.run(
        [tool, "concat", "--merged-dir", merged, "--merged-file", str(table), *threads, *shared],
        check=True,
        capture_output=True,
    )
    assert table.read_bytes() == (path / "table.0").read_bytes()

    theirs = engine.InfiniGramEngine(str(path), eos_token_id=1000, vocab_size=1001, precompute_unigram_logprobs=True)
    ours = InfiniGramEngine(str(path), eos_token_id=1000, vocab_size=1001)
    assert ours.compute_unigram_counts(0) == theirs.compute_unigram_counts(0)
    rng = np.random.default_rng(0)
    text = np.concatenate(documents)
    for length in (0, 1, 2, 3, 5, 8):
        for _ in range(8):
            start = int(rng.integers(0, len(text) - 20))
            ids, cont = text[start : start + length].tolist(), int(text[start + length])
            foreign = [200, *ids]
            assert ours.find(ids) == theirs.find(ids)
            assert ours.count(ids) == theirs.count(ids)
            for prompt in (ids, foreign):
                assert ours.prob(prompt, cont) == theirs.prob(prompt, cont)
                assert ours.infgram_prob(prompt, cont) == theirs.infgram_prob(prompt, cont)
                for call in ("ntd", "infgram_ntd"):
                    exact, other = getattr(ours, call)(prompt), getattr(theirs, call)(prompt, max_support=10**6)
                    assert exact["prompt_cnt"] == other["prompt_cnt"]
                    if not other["approx"]:  # theirs samples long rank ranges whatever the support
                        assert exact == other, (call, prompt)
            rank = int(rng.integers(0, ours.index.num_tokens))
            assert ours.get_doc_by_rank(0, rank, 7) == theirs.get_doc_by_rank(0, rank, 7)
            assert ours.get_doc_by_rank_2(0, rank, 2, 5) == theirs.get_doc_by_rank_2(0, rank, 2, 5)
    assert ours.get_doc_by_ix(3, 9) == theirs.get_doc_by_ix(3, 9)
    for _ in range(6):
        pieces = [text[s : s + 9] for s in rng.integers(0, len(text) - 20, 8)]
        ids = np.concatenate(pieces).tolist()
        assert ours.creativity(ids) == theirs.creativity(ids)
        mine = ours.attribute(ids, [10], 4, 50, False)["spans"]
        for span, other in zip(mine, theirs.attribute(ids, [10], 4, 50, False)["spans"], strict=True):
            assert (span["l"], span["r"], span["length"], span["count"]) == (
                other["l"],
                other["r"],
                other["length"],
                other["count"],
            )
            assert span["unigram_logprob_sum"] == pytest.approx(other["unigram_logprob_sum"])
            assert sorted(d["ptr"] for d in span["docs"]) == sorted(d["ptr"] for d in other["docs"])
