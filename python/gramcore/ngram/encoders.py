"""Text to token ids: Hugging Face `tokenizers` files, SentencePiece, tiktoken-style ranks, raw bytes."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gramcore._checks import require
from gramcore.errors import FormatError

__all__ = ["Encoder", "load_encoder"]

#: Texts in, one integer array per text out.
Encoder: TypeAlias = Callable[[Sequence[str]], list[npt.NDArray[np.integer]]]

_GPT2_SPLIT = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


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
    if tokenizer is None or tokenizer == "bytes":
        return lambda texts: [np.frombuffer(t.encode(), np.uint8) for t in texts]
    if isinstance(tokenizer, (str, os.PathLike)):
        return _from_file(Path(tokenizer))
    if hasattr(tokenizer, "encode_batch") and hasattr(tokenizer, "get_vocab"):  # tokenizers.Tokenizer
        return lambda texts: [
            np.array(e.ids, np.int64) for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)
        ]
    if hasattr(tokenizer, "encode_ordinary"):  # tiktoken
        return lambda texts: [np.array(tokenizer.encode_ordinary(t), np.int64) for t in texts]
    if hasattr(tokenizer, "add_special_tokens") and callable(tokenizer):  # transformers
        return lambda texts: [np.array(tokenizer(t, add_special_tokens=False)["input_ids"], np.int64) for t in texts]
    if hasattr(tokenizer, "encode"):
        return lambda texts: [np.array(tokenizer.encode(t), np.int64) for t in texts]
    raise TypeError(f"tokenizer must be a path, None or have an encode method, got {type(tokenizer).__name__}")


def _from_file(path: Path) -> Encoder:
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: tokenizer file must exist; give tokenizer.json, .model or .tiktoken")
    if path.suffix == ".tiktoken":
        return _tiktoken(path)
    if path.suffix == ".model":
        module = require("sentencepiece", "index")
        try:
            processor = module.SentencePieceProcessor(model_file=str(path))
        except Exception as error:
            raise FormatError(f"{path}: must be a SentencePiece model, got {error}") from error
        return lambda texts: [np.array(ids, np.int64) for ids in processor.encode(list(texts))]
    module = require("tokenizers", "index")
    try:
        return load_encoder(module.Tokenizer.from_file(str(path)))
    except Exception as error:
        raise FormatError(f"{path}: must be a tokenizers JSON file, got {error}") from error


def _tiktoken(path: Path) -> Encoder:
    module = require("tiktoken", "index")
    ranks = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError as error:
            raise FormatError(f"{path}:{number}: must hold a base64 token and its rank, got {error}") from error
    encoding = module.Encoding(path.stem, pat_str=_GPT2_SPLIT, mergeable_ranks=ranks, special_tokens={})
    return load_encoder(encoding)
