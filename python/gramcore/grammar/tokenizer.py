"""What a grammar needs to know of a tokenizer: the bytes of every token and which tokens end a text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from gramcore._checks import require
from gramcore._core import grammar as _native

__all__ = ["TokenizerInfo"]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")


def _byte_level_table() -> dict[str, int]:
    """The characters that byte-level BPE writes for the 256 bytes (Radford et al. 2019)."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(b): b for b in visible}
    hidden = [b for b in range(256) if b not in set(visible)]
    return table | {chr(256 + i): b for i, b in enumerate(hidden)}


def _byte_level(token: str, table: dict[str, int]) -> bytes:
    try:
        return bytes(table[c] for c in token)
    except KeyError:  # an added token, stored as plain text
        return token.encode()


def _sentence_piece(token: str) -> bytes:
    match = _BYTE_TOKEN.match(token)
    return bytes([int(match[1], 16)]) if match else token.replace("▁", " ").encode()


class TokenizerInfo:
    """The vocabulary of a language model as byte strings.

    Args:
        tokens: the bytes of every token; the index is the token id. Empty: never allowed.
        special: ids of tokens that have no text (control, padding); allowed only where a grammar names them.
        stop: ids of the tokens that end a text; allowed exactly where the grammar may end.
        encode: how the tokenizer writes bytes in the middle of a text; for ``fast_forward_tokens``.

    Raises:
        IndexError: a special or stop id is not a token.

    Example:
        >>> from gramcore.grammar import TokenizerInfo
        >>> info = TokenizerInfo([b"a", b"b", b"ab", b"</s>"], stop=[3])
        >>> len(info), info.token(2), info.stop_tokens
        (4, b'ab', (3,))
    """

    def __init__(
        self,
        tokens: Sequence[bytes],
        *,
        special: Iterable[int] = (),
        stop: Iterable[int] = (),
        encode: Callable[[bytes], Sequence[int]] | None = None,
    ) -> None:
        #: How the tokenizer writes bytes that stand in the middle of a text, or None.
        self.encode = encode
        self._native = _native.Vocab(list(tokens), sorted(set(special)), sorted(set(stop)))

    def __len__(self) -> int:
        return len(self._native)

    def token(self, token_id: int) -> bytes:
        """The bytes of a token.

        Raises:
            IndexError: no such token.
        """
        if token_id < 0:
            raise IndexError(f"token must be >= 0, got {token_id}")
        return self._native.token(token_id)

    def is_special(self, token_id: int) -> bool:
        """Whether the token has no text."""
        return self._native.is_special(token_id)

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """Ids of the tokens that end a text."""
        return tuple(self._native.stop)

    @classmethod
    def from_huggingface(
        cls, tokenizer: Any, *, vocab_size: int | None = None, stop: Iterable[int] | None = None
    ) -> TokenizerInfo:
        """From a fast ``transformers`` tokenizer: byte-level BPE, or SentencePiece with byte fallback.

        Args:
            tokenizer: has ``backend_tokenizer``, ``get_vocab`` and ``all_special_ids``.
            vocab_size: number of logits of the model when it exceeds the tokenizer's; the rest is never allowed.
            stop: ids that end a text; the tokenizer's ``eos_token_id`` by default.

        Raises:
            TypeError: not a fast tokenizer.
            ValueError: it decodes in a way this class does not know, or ``vocab_size`` is too small.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise TypeError(
                f"tokenizer must be a fast transformers tokenizer, got {type(tokenizer).__name__}; "
                "load it with use_fast=True"
            )
        state = json.loads(backend.to_str())
        kinds = _types(state.get("decoder")) | _types(state.get("pre_tokenizer"))
        if "ByteLevel" in kinds:
            table = _byte_level_table()

            def decode(token: str) -> bytes:
                return _byte_level(token, table)
        elif kinds & {"ByteFallback", "Metaspace", "Replace"}:
            decode = _sentence_piece
        else:
            raise ValueError(
                f"tokenizer must be byte-level or SentencePiece, got decoder parts {sorted(kinds)}; "
                "give the byte strings to TokenizerInfo(tokens) directly"
            )
        vocab: dict[str, int] = tokenizer.get_vocab()
        size = max(vocab.values()) + 1
        if vocab_size is not None and vocab_size < size:
            raise ValueError(f"vocab_size must be >= the tokenizer's {size}, got {vocab_size}")
        added = {entry["id"]: entry for entry in state.get("added_tokens", ())}
        tokens = [b""] * (vocab_size or size)
        for text, index in vocab.items():
            tokens[index] = text.encode() if index in added else decode(text)
        special = {index for index, entry in added.items() if entry.get("special")} | set(tokenizer.all_special_ids)
        if stop is None:
            stop = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        encode = None
        if "ByteLevel" in kinds:

            def encode(data: bytes) -> Sequence[int]:
                text = data.decode(errors="ignore")
                return list(backend.encode(text, add_special_tokens=False).ids)

        return cls(tokens, special=(i for i in special if i < len(tokens)), stop=stop, encode=encode)

    @classmethod
    def from_tiktoken(cls, encoding: Any, *, stop: Iterable[int] | None = None) -> TokenizerInfo:
        """From a ``tiktoken.Encoding``.

        Args:
            encoding: the encoding.
            stop: ids that end a text; ``eot_token`` by default.

        Raises:
            TypeError: not an encoding.
        """
        if not hasattr(encoding, "token_byte_values") or not hasattr(encoding, "n_vocab"):
            raise TypeError(f"encoding must be a tiktoken.Encoding, got {type(encoding).__name__}")
        special = {encoding.encode_single_token(t) for t in encoding.special_tokens_set}
        tokens = [b""] * encoding.n_vocab
        for data in encoding.token_byte_values():
            tokens[encoding.encode_single_token(data)] = data
        for text in encoding.special_tokens_set:
            tokens[encoding.encode_single_token(text)] = text.encode()
        if stop is None:
            stop = [encoding.eot_token] if "<|endoftext|>" in encoding.special_tokens_set else []

        def encode(data: bytes) -> Sequence[int]:
            return list(encoding.encode_ordinary(data.decode(errors="ignore")))

        return cls(tokens, special=special, stop=stop, encode=encode)

    @classmethod
    def from_sentencepiece(cls, model: Any, *, stop: Iterable[int] | None = None) -> TokenizerInfo:
        """From a SentencePiece model: a ``SentencePieceProcessor`` or the path of a ``.model`` file.

        Args:
            model: the model.
            stop: ids that end a text; its end-of-sequence token by default.

        Raises:
            FileNotFoundError: no such file. MissingExtraError: sentencepiece is not installed.
        """
        if isinstance(model, (str, Path)):
            if not Path(model).is_file():
                raise FileNotFoundError(f"SentencePiece model must exist, got {str(model)!r}; give the .model file")
            model = require("sentencepiece", "index").SentencePieceProcessor(model_file=str(model))
        size = model.get_piece_size()
        pieces = [model.id_to_piece(i) for i in range(size)]
        tokens = [t.encode() if model.is_control(i) else _sentence_piece(t) for i, t in enumerate(pieces)]
        special = [i for i in range(size) if model.is_control(i) or model.is_unknown(i) or model.is_unused(i)]
        if stop is None:
            stop = [model.eos_id()] if model.eos_id() >= 0 else []
        return cls(tokens, special=special, stop=stop)

    @classmethod
    def from_gguf(cls, path: str | Path, *, stop: Iterable[int] | None = None) -> TokenizerInfo:
        """From the metadata of a GGUF file (``tokenizer.ggml.model`` gpt2 or llama).

        Args:
            path: the file.
            stop: ids that end a text; the file's end-of-sequence and end-of-turn tokens by default.

        Raises:
            FileNotFoundError: no such file.
            FormatError: not a GGUF file.
            ValueError: it holds no tokenizer of a supported kind.
        """
        from gramcore.quant import GgufFile

        with GgufFile(path) as file:
            meta = file.metadata
            kind = meta.get("tokenizer.ggml.model")
            texts = meta.get("tokenizer.ggml.tokens")
            if kind not in ("gpt2", "llama") or texts is None:
                raise ValueError(f"tokenizer.ggml.model must be gpt2 or llama, got {kind!r} ({path})")
            types = list(meta.get("tokenizer.ggml.token_type", [1] * len(texts)))
            if stop is None:
                keys = ("eos_token_id", "eot_token_id", "eom_token_id")
                stop = {int(meta[f"tokenizer.ggml.{k}"]) for k in keys if f"tokenizer.ggml.{k}" in meta}
        table = _byte_level_table()
        # token types: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte
        tokens = [
            text.encode() if t in (3, 4) else _byte_level(text, table) if kind == "gpt2" else _sentence_piece(text)
            for text, t in zip(texts, types, strict=True)
        ]
        special = [i for i, t in enumerate(types) if t in (2, 3, 5)]
        return cls(tokens, special=special, stop=stop)


def _types(part: Any) -> set[str]:
    """The ``type`` names inside a component of a serialised tokenizer."""
    if isinstance(part, dict):
        found = {part["type"]} if isinstance(part.get("type"), str) else set()
        return found.union(*(_types(v) for v in part.values()))
    if isinstance(part, list):
        return set().union(*(_types(v) for v in part))
    return set()
