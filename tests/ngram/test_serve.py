"""The HTTP service: same answers as the index, limits, 4xx sentences; the page in headless Chromium."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gramcore.ngram import Index, build_index

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
TEXTS = ["the cat sat on the mat", "the cat ran", "a dog ran on"]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    build_index(TEXTS, tmp_path / "index", token_dtype="u8")
    return Index(tmp_path / "index")


@pytest.fixture
def client(index: Index) -> Iterator[Any]:
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    from fastapi.testclient import TestClient
    from gramcore.ngram.serve import Limits, create_app

    with TestClient(create_app(index, limits=Limits(max_tokens=64, max_batch=3))) as client:
        yield client


def test_answers_equal_the_index(client: Any, index: Index) -> None:
    ids = list(b"the cat")
    assert client.post("/count", json={"ids": ids}).json()["count"] == index.count(ids) == 2
    assert client.post("/count", json={"text": "the cat"}).json()["count"] == 2
    assert client.post("/count_batch", json={"queries": [ids, [1]]}).json() == {"counts": [2, 0]}
    pairs = client.post("/prob_batch", json={"queries": [ids, [1]], "cont_ids": [32, 32]}).json()
    assert pairs == {"prompt_cnts": [2, 0], "cont_cnts": [2, 0]}
    batch = client.post("/ntd_batch", json={"queries": [list(b"the cat "), list(b"cat"), [1]], "top": 2}).json()
    assert batch["prompt_cnts"] == [2, 2, 0]
    assert batch["offsets"] == [0, 2, 3, 3]
    assert batch["token_ids"] == list(b"rs ")
    assert batch["cont_cnts"] == [1, 1, 2]
    cnf = {"cnf": [[list(b"the cat")], [list(b"ran"), list(b"mat")]], "maxnum": 2}
    search = client.post("/search_cnf", json=cnf).json()
    assert (search["cnt"], search["approx"]) == (2, False)
    assert [bytes(d["ids"][d["needle_offset"] :])[:7] for d in search["documents"]] == [b"the cat"] * 2
    following = client.post("/ntd", json={"text": "zthe cat "}).json()
    assert (following["suffix_len"], following["prompt_cnt"]) == (8, 2)
    assert [(n["text"], n["count"]) for n in following["next"]] == [("r", 1), ("s", 1)]
    prob = client.post("/infgram_prob", json={"ids": ids, "cont_id": 32}).json()
    assert prob == {"prompt_cnt": 2, "cont_cnt": 2, "prob": 1.0, "suffix_len": 7}
    score = client.post("/score", json={"text": "the cat"}).json()
    assert score["suffix_len"] == index.score(ids).suffix_len.tolist()
    documents = client.post("/search_docs", json={"text": "cat", "maxnum": 2}).json()
    assert documents["cnt"] == 2
    for d in documents["documents"]:
        tokens = "".join(t["text"] for t in d["tokens"])
        assert tokens[d["needle_offset"] :].startswith("cat")
    spans = client.post("/attribute", json={"text": "a dog sat on"}).json()["spans"]
    assert [(s["l"], s["r"]) for s in spans] == [(0, 6), (5, 12)]
    assert client.get("/facts").json()["documents"] == 3
    assert "gramcore index" in client.get("/").text
    assert "/count_batch" in client.get("/openapi.json").json()["paths"]


def test_limits_and_bad_arguments_give_one_sentence(client: Any, index: Index) -> None:
    for body, status, words in (
        ({}, 422, "ids or text"),
        ({"ids": [1], "text": "a"}, 422, "not both"),
        ({"ids": [1] * 65}, 413, "<= 64 tokens"),
        ({"ids": [-1]}, 400, "ids must be in"),
        ({"ids": ["x"]}, 422, "valid integer"),
        ({"text": "a" * 5000}, 413, "<= 4096 characters"),
        ({"text": "a", "maxnum": 101}, 413, "maxnum must be <= 100"),
        ({"text": "a", "max_disp_len": 10**6}, 413, "max_disp_len must be <= 2048"),
        ({"text": "a", "max_cnt": 10**6}, 413, "max_cnt must be <= 10000"),
    ):
        answer = client.post("/count", json=body)
        assert answer.status_code == status, body
        assert words in str(answer.json()["detail"])
    assert client.post("/count_batch", json={"queries": [[1]] * 4}).status_code == 413
    assert client.post("/ntd_batch", json={"queries": [[1]] * 4}).status_code == 413
    assert client.post("/ntd_batch", json={"queries": [[1]], "top": 0}).status_code == 400
    assert client.post("/prob_batch", json={"queries": [[1]], "cont_ids": []}).status_code == 400
    assert client.post("/search_cnf", json={"cnf": [[[1]]] * 4}).status_code == 413
    assert client.post("/search_cnf", json={"cnf": [[[1]]], "maxnum": 101}).status_code == 413
    assert client.post("/search_cnf", json={"cnf": [[]]}).status_code == 400
    assert client.post("/ntd", json={"text": "a", "top": 0}).status_code == 400
    assert client.post("/infgram_prob", json={"text": "a"}).status_code == 422
    surrogate = client.post("/count", content=b'{"text": "\\ud800"}', headers={"Content-Type": "application/json"})
    assert (surrogate.status_code, "valid Unicode" in surrogate.json()["detail"]) == (400, True)


def test_a_match_is_shown_whole(client: Any) -> None:
    document = client.post("/search_docs", json={"text": TEXTS[0], "max_disp_len": 2}).json()["documents"][0]
    assert "".join(t["text"] for t in document["tokens"]) == TEXTS[0]


def test_slow_and_crowded_requests_are_turned_away(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    from fastapi.testclient import TestClient
    from gramcore.ngram.serve import Limits, create_app

    release = threading.Event()
    monkeypatch.setattr(Index, "count", lambda self, ids: release.wait(5) and 1)
    with TestClient(create_app(index, limits=Limits(max_concurrent=1, max_seconds=0.5))) as client:
        statuses: list[int] = []
        threads = [
            threading.Thread(target=lambda: statuses.append(client.post("/count", json={"ids": [1]}).status_code))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
            time.sleep(0.1)
        for thread in threads:
            thread.join()
        release.set()
    assert sorted(statuses) == [429, 504]


@pytest.mark.browser
def test_the_page_shows_counts_spans_and_documents(index: Index, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gramcore.cli", "index", "serve", str(index.paths[0]), "--port", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        # The page looks at its own URL's text when it is given one, so a dump of the DOM shows the answers.
        arguments = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        url = f"http://127.0.0.1:{port}/#the cat"
        dump = subprocess.run(
            [*arguments, "--virtual-time-budget=8000", "--dump-dom", url],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
    finally:
        server.terminate()
        server.wait(10)
    assert '<span id="count">2</span>' in dump
    assert "<mark>c</mark>" in dump
    assert 'class="bar"' in dump
    assert "3 documents" in dump


def test_matches_are_shown_where_they_begin_in_reversed_indexes_too(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    from fastapi.testclient import TestClient
    from gramcore.ngram.serve import create_app

    build_index(["the cat sat on the mat"], tmp_path / "reversed", tokenizer="bytes", token_dtype="u8", version=5)
    with TestClient(create_app(Index(tmp_path / "reversed"))) as client:
        (found,) = client.post("/search_docs", json={"text": "cat sat"}).json()["documents"]
        tokens = "".join(t["text"] for t in found["tokens"])
        assert tokens[found["needle_offset"] :].startswith("cat sat")
