"""Text to token ids and back: Hugging Face `tokenizers` files, SentencePiece, tiktoken-style ranks, raw bytes."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gramcore._checks import require
from gramcore.errors import FormatError

__all__ = ["Codec", "Encoder", "load_codec", "load_encoder"]

#: Texts in, one integer array per text out.
Encoder: TypeAlias = Callable[[Sequence[str]], list[npt.NDArray[np.integer]]]

_NEAR = 4  # tokens that can share a character, and that decoding needs to see of those before

# Texts that tokenizers cut differently.
_PROBES = (
    "The quick brown fox's 12 jumps, re-done! This is the other one that they were thinking of, and what of it?",
    "    for (int i = 0; i < n; ++i)\n\t\tx[i] += 3.14159;\r\n",
    "naïve Ωμέγα 東京 🙂 \u200d",
)

_GPT2_SPLIT = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


@dataclass(frozen=True)
class Codec:
    """A tokenizer as indexes use it: texts to ids, ids to text, and which ids it has."""

    encode: Encoder
    decode: Callable[[list[int]], str]
    knows: Callable[[int], bool]

    def mark(self) -> str:
        """What tells tokenizers apart: a digest of the ids of a few texts; empty where it cannot encode those.

        >>> load_codec("bytes").mark() == load_codec(None).mark() != ""
        True
        """
        try:
            ids = self.encode(_PROBES)
        except (KeyError, IndexError, ValueError):  # a tokenizer of a few words
            return ""
        return hashlib.sha256(b"".join(np.asarray(i, "<i8").tobytes() + b"|" for i in ids)).hexdigest()[:16]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text.

        A character made of several tokens comes with the last of them; an id that is no token is shown as ``<id>``.

        >>> load_codec("bytes").pieces(list("né".encode()) + [300])
        ['n', '', 'é', '<300>']
        """
        pieces: list[str] = []
        before: list[int] = []  # tokens whose text is out, the last few
        waiting: list[int] = []  # tokens of a character that is not whole

        def waited() -> str:
            return self.decode(before + waiting)[len(self.decode(before)) :] if waiting else ""

        for token in ids:
            if not self.knows(token):
                pieces.append(f"{waited()}<{token}>")
                before, waiting = [], []
                continue
            waiting.append(token)
            text = waited()
            if text.endswith("\ufffd") and len(waiting) < _NEAR:
                pieces.append("")
                continue
            pieces.append(text)
            before, waiting = (before + waiting)[-_NEAR:], []
        if waiting:
            pieces[-1] = waited()
        return pieces


def load_encoder(tokenizer: Any) -> Encoder:
    """An encoder from a description.

    Args: tokenizer: None or ``"bytes"`` for UTF-8 bytes; the path of a ``tokenizer.json``, a SentencePiece ``.model``
        or a ``.tiktoken`` rank file (GPT-2's splitting); or an object with ``encode_batch`` or ``encode``. Special
        tokens are not added.
    Raises: FileNotFoundError; FormatError for a file that is no such tokenizer; TypeError for another object;
        MissingExtraError.

    >>> [ids.tolist() for ids in load_encoder("bytes")(["ab", ""])]
    [[97, 98], []]
    """
    return load_codec(tokenizer).encode


def load_codec(tokenizer: Any) -> Codec:
    """A tokenizer from what :func:`load_encoder` takes; ids of an object that cannot decode are shown as numbers.

    >>> load_codec(None).decode([97, 98])
    'ab'
    """
    if tokenizer is None or tokenizer == "bytes":
        return Codec(
            lambda texts: [np.frombuffer(t.encode(), np.uint8) for t in texts],
            lambda ids: bytes(ids).decode("utf-8", "replace"),
            lambda token: 0 <= token < 256,
        )
    if isinstance(tokenizer, (str, os.PathLike)):
        return _from_file(Path(tokenizer))
    if hasattr(tokenizer, "encode_batch") and hasattr(tokenizer, "get_vocab"):  # tokenizers.Tokenizer
        return Codec(
            lambda texts: [
                np.array(e.ids, np.int64) for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)
            ],
            lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False)),
            lambda token: tokenizer.id_to_token(token) is not None,
        )
    if hasattr(tokenizer, "encode_ordinary"):  # tiktoken
        return Codec(
            _each(tokenizer.encode_ordinary), tokenizer.decode, frozenset(_tiktoken_ids(tokenizer)).__contains__
        )
    if hasattr(tokenizer, "add_special_tokens") and callable(tokenizer):  # transformers
        return Codec(
            _each(lambda t: tokenizer(t, add_special_tokens=False)["input_ids"]),
            lambda ids: str(tokenizer.decode(ids)),
            lambda token: 0 <= token < len(tokenizer),
        )
    if hasattr(tokenizer, "get_piece_size"):  # SentencePiece
        return Codec(_each(tokenizer.encode), tokenizer.decode, lambda token: 0 <= token < tokenizer.get_piece_size())
    if hasattr(tokenizer, "encode"):
        decode = getattr(tokenizer, "decode", None)
        return Codec(_each(tokenizer.encode), decode or str, lambda token: decode is not None)
    raise TypeError(f"tokenizer must be a path, None or have an encode method, got {type(tokenizer).__name__}")


def _each(encode: Callable[[str], Sequence[int]]) -> Encoder:
    return lambda texts: [np.array(encode(t), np.int64) for t in texts]


def _from_file(path: Path) -> Codec:
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: tokenizer file must exist; give tokenizer.json, .model or .tiktoken")
    if path.suffix == ".tiktoken":
        return _tiktoken(path)
    if path.suffix == ".model":
        module = require("sentencepiece", "index")
        try:
            return load_codec(module.SentencePieceProcessor(model_file=str(path)))
        except Exception as error:
            raise FormatError(f"{path}: must be a SentencePiece model, got {error}") from error
    module = require("tokenizers", "index")
    try:
        return load_codec(module.Tokenizer.from_file(str(path)))
    except Exception as error:
        raise FormatError(f"{path}: must be a tokenizers JSON file, got {error}") from error


def _tiktoken(path: Path) -> Codec:
    module = require("tiktoken", "index")
    ranks = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError as error:
            raise FormatError(f"{path}:{number}: must hold a base64 token and its rank, got {error}") from error
    encoding = module.Encoding(path.stem, pat_str=_GPT2_SPLIT, mergeable_ranks=ranks, special_tokens={})
    return load_codec(encoding)


def _tiktoken_ids(encoding: Any) -> set[int]:
    specials = (encoding.encode_single_token(token) for token in encoding.special_tokens_set)
    return {encoding.encode_single_token(token) for token in encoding.token_byte_values()} | set(specials)
