"""Tokenizers of every kind: ids as their own library gives them, what each token adds to the text, served."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from gramcore.ngram import Index, append_index, build_index
from gramcore.ngram.encoders import load_codec

TEXTS = ["the cat sat on the mat\n", "naïve café 日本 🙂 the cat", "a  b\tthe theme"]
KINDS = ("bytes", "json", "json-metaspace", "sentencepiece", "tiktoken")


def make(kind: str, directory: Path) -> Any:
    """A small tokenizer of a kind, as building and serving take it."""
    if kind == "bytes":
        return "bytes"
    if kind == "tiktoken":
        pytest.importorskip("tiktoken")
        tokens = [bytes([b]) for b in range(256)] + [b"th", b"the", b" the"]
        path = directory / "small.tiktoken"
        path.write_text("\n".join(f"{base64.b64encode(t).decode()} {i}" for i, t in enumerate(tokens)))
        return path
    if kind == "sentencepiece":
        module = pytest.importorskip("sentencepiece")
        (directory / "corpus.txt").write_text("\n".join(t.strip() for t in TEXTS * 20), encoding="utf-8")
        module.SentencePieceTrainer.train(
            input=str(directory / "corpus.txt"),
            model_prefix=str(directory / "small"),
            vocab_size=300,
            byte_fallback=True,
            model_type="bpe",
            minloglevel=2,
            hard_vocab_limit=False,
        )
        return directory / "small.model"
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=kind != "json", unk_token=None))
    if kind == "json":
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        first = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
        tokenizer.decoder = tokenizers.decoders.Metaspace()
        first = []
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=290, initial_alphabet=first, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory / "tokenizer.json"


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_make_the_text(kind: str, tmp_path: Path) -> None:
    codec = load_codec(make(kind, tmp_path))
    for text in TEXTS:
        ids = codec.encode([text])[0].tolist()
        pieces = codec.pieces(ids)
        assert len(pieces) == len(ids)
        whole = codec.decode(ids)
        assert "".join(pieces) == whole
        if kind != "sentencepiece":  # which normalises white space
            assert whole == text
    assert codec.pieces([10**6])[0] == "<1000000>"
    assert codec.pieces([]) == []


def test_pieces_of_characters_cut_short() -> None:
    codec = load_codec("bytes")
    assert codec.pieces("é🙂".encode()) == ["", "é", "", "", "", "🙂"]
    assert codec.pieces("🙂".encode()[:2]) == ["", "\ufffd"]
    assert codec.pieces([0xC3, 300, 97]) == ["", "\ufffd<300>", "a"]
    assert "".join(codec.pieces([0xFF] * 9)) == "\ufffd" * 9


def test_an_object_that_only_encodes_is_shown_as_ids() -> None:
    class Plain:
        def encode(self, text: str) -> list[int]:
            return [len(w) for w in text.split()]

    assert load_codec(Plain()).pieces([1, 3]) == ["<1>", "<3>"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_is_served_with_the_tokenizer_it_was_built_with(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    from fastapi.testclient import TestClient
    from gramcore.ngram.serve import create_app

    tokenizer = make(kind, tmp_path)
    build_index(TEXTS, tmp_path / "index", tokenizer=tokenizer, progress=False)
    index = Index(tmp_path / "index")
    with TestClient(create_app(index, tokenizer=tokenizer)) as client:
        answer = client.post("/count", json={"text": TEXTS[0]}).json()
        assert answer["count"] == 1
        assert "".join(t["text"] for t in answer["tokens"]).strip() == TEXTS[0].strip()
        documents = client.post("/search_docs", json={"text": TEXTS[1]}).json()["documents"]
        assert "".join(t["text"] for t in documents[0]["tokens"]).strip() == TEXTS[1].strip()
        following = client.post("/ntd", json={"text": TEXTS[0]}).json()["next"]
        assert [(row["text"], row["count"]) for row in following] == [("<end>", 1)]


def test_an_index_without_tokenizer_is_served_by_ids(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    from fastapi.testclient import TestClient
    from gramcore.ngram.serve import Limits, create_app

    build_index([[7, 8, 900], [7, 8]], tmp_path / "index", progress=False)
    with TestClient(create_app(Index(tmp_path / "index"), tokenizer="ids", limits=Limits(max_tokens=4))) as client:
        answer = client.post("/count", json={"text": "7, 8"}).json()
        assert (answer["count"], [t["text"] for t in answer["tokens"]]) == (2, ["7 ", "8 "])
        assert [n["text"] for n in client.post("/ntd", json={"text": "7 8"}).json()["next"]] == ["900 "]
        for text, status, words in (
            ("7 x", 400, "token ids with spaces between, got 'x'"),
            ("1" * 500, 413, "<= 256 characters"),
            ("99999999999999999999", 400, "ids must be in"),
        ):
            answer = client.post("/count", json={"text": text})
            assert answer.status_code == status
            assert words in answer.json()["detail"]


def test_an_index_of_texts_knows_its_tokenizer(tmp_path: Path) -> None:
    made = {}
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        made[kind] = make(kind, tmp_path / kind)
    assert len({load_codec(tokenizer).mark() for tokenizer in made.values()}) == len(KINDS)
    build_index(TEXTS, tmp_path / "texts", tokenizer=made["json"])
    build_index([[1, 2, 3]], tmp_path / "ids", tokenizer=made["json"])  # ids do not say what cut them
    for kind, tokenizer in made.items():
        Index(tmp_path / "ids").check_tokenizer(tokenizer)
        if kind == "json":
            Index([tmp_path / "texts", tmp_path / "ids"]).check_tokenizer(tokenizer)
            continue
        with pytest.raises(ValueError, match="tokenizer must be the one the index was built with"):
            Index([tmp_path / "ids", tmp_path / "texts"]).check_tokenizer(tokenizer)


class FewWords:
    """A tokenizer that raises KeyError for other words."""

    def encode(self, text: str) -> list[int]:
        return [{"a": 1, "b": 2}[word] for word in text.split()]


def test_a_tokenizer_of_few_words_is_not_told_from_others(tmp_path: Path) -> None:
    assert load_codec(FewWords()).mark() == ""
    build_index(["a b", "b"], tmp_path / "index", tokenizer=FewWords())
    Index(tmp_path / "index").check_tokenizer("bytes")


def test_appending_texts_to_ids_and_the_other_way_round(tmp_path: Path) -> None:
    index = tmp_path / "index"
    build_index([[97, 98]], index)
    append_index(["ab"], index, tokenizer="bytes")  # the first texts
    append_index([[97]], index)
    json_file = make("json", tmp_path)
    before = sorted((p.name, p.stat().st_size) for p in index.iterdir())
    with pytest.raises(ValueError, match="built with, bytes"):
        append_index(["ab"], index, tokenizer=json_file)
    assert sorted((p.name, p.stat().st_size) for p in index.iterdir()) == before
    assert Index(index).count([97]) == 3
