"""The tokenizer inside a GGUF file, as a transformers fast tokenizer, built offline."""

from __future__ import annotations

from typing import Any

from gramcore._checks import require
from gramcore.errors import FormatError
from gramcore.quant import GgufFile

__all__ = ["load_tokenizer"]

_CONTROL, _UNKNOWN, _USER = 3, 2, 4
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
#: `tokenizer.ggml.pre` -> (split pattern or None for GPT-2's, digits one by one, NFC)
_PRE: dict[str, tuple[str | None, bool, bool]] = {
    "default": (None, False, False),
    "gpt-2": (None, False, False),
    "smollm": (None, True, False),
    "starcoder": (None, True, False),
    "llama-bpe": (_LLAMA3, False, False),
    "llama3": (_LLAMA3, False, False),
    "qwen2": (_QWEN2, False, True),
}


def load_tokenizer(file: GgufFile) -> Any:
    """A ``PreTrainedTokenizerFast`` with the vocabulary, merges, special tokens and chat template of the file.

    Args:
        file: an open GGUF file whose tokenizer is byte-level BPE (``gpt2``) or SentencePiece BPE (``llama``).

    Raises:
        FormatError: tokenizer entries are missing or contradict each other.
        ValueError: another kind of tokenizer; the message lists the supported ones.
        MissingExtraError: transformers is not installed.
    """
    transformers = require("transformers", "hf")
    meta = file.metadata
    tokens = _strings(file, "tokens")
    kind = meta.get("tokenizer.ggml.model")
    if kind == "gpt2":
        backend = _byte_level(file, tokens)
    elif kind == "llama":
        backend = _sentence_piece(file, tokens)
    else:
        raise ValueError(f"tokenizer must be gpt2 or llama, got {kind!r} ({file.path}); convert another model")
    named = {role: _special(file, role, tokens) for role in ("bos", "eos", "unknown", "padding")}
    _add_specials(backend, file, tokens)
    prefix = meta.get("tokenizer.ggml.add_bos_token", kind == "llama")
    if prefix and named["bos"] is not None:
        from tokenizers.processors import TemplateProcessing

        bos = named["bos"]
        backend.post_processor = TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokens.index(bos))]
        )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=named["bos"],
        eos_token=named["eos"],
        unk_token=named["unknown"],
        pad_token=named["padding"] or named["eos"],
        clean_up_tokenization_spaces=False,
    )
    template = meta.get("tokenizer.chat_template")
    if isinstance(template, str):
        tokenizer.chat_template = template
    tokenizer.model_max_length = int(meta.get(f"{meta.get('general.architecture')}.context_length", 1 << 30))
    return tokenizer


def _strings(file: GgufFile, key: str) -> list[str]:
    values = file.metadata.get(f"tokenizer.ggml.{key}")
    if not isinstance(values, list) or not values or not all(isinstance(v, str) for v in values):
        raise FormatError(
            f"{file.path}: tokenizer.ggml.{key} must be a list of strings; the file has no usable tokenizer"
        )
    return values


def _special(file: GgufFile, role: str, tokens: list[str]) -> str | None:
    index = file.metadata.get(f"tokenizer.ggml.{role}_token_id")
    if index is None:
        return None
    if not isinstance(index, int) or not 0 <= index < len(tokens):
        raise FormatError(f"{file.path}: {role}_token_id must be in [0, {len(tokens)}), got {index!r}")
    return tokens[index]


def _vocabulary(file: GgufFile, tokens: list[str]) -> dict[str, int]:
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise FormatError(f"{file.path}: tokens must be distinct, got {len(tokens) - len(vocabulary)} repeated")
    return vocabulary


def _add_specials(backend: Any, file: GgufFile, tokens: list[str]) -> None:
    from tokenizers import AddedToken

    types = file.metadata.get("tokenizer.ggml.token_type", [1] * len(tokens))
    if not isinstance(types, list) or len(types) != len(tokens):
        raise FormatError(f"{file.path}: token_type must have one entry per token")
    for wanted, special in ((_CONTROL, True), (_UNKNOWN, True), (_USER, False)):
        chosen = [
            AddedToken(t, special=special, normalized=False) for t, k in zip(tokens, types, strict=True) if k == wanted
        ]
        (backend.add_special_tokens if special else backend.add_tokens)(chosen)


def _byte_level(file: GgufFile, tokens: list[str]) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    name = file.metadata.get("tokenizer.ggml.pre", "default")
    if name not in _PRE:
        raise ValueError(f"tokenizer.ggml.pre must be one of {', '.join(_PRE)}, got {name!r} ({file.path})")
    pattern, digits, nfc = _PRE[name]
    merges = [(left, right) for left, _, right in (m.partition(" ") for m in _strings(file, "merges"))]
    vocabulary = _vocabulary(file, tokens)
    for pair in merges:
        if any(part not in vocabulary for part in (*pair, "".join(pair))):
            raise FormatError(
                f"{file.path}: merges must join two known tokens into a known one, got {' '.join(pair)!r}"
            )
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=pattern == _LLAMA3))
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    if pattern is not None:
        steps.append(pre_tokenizers.Split(Regex(pattern), behavior="isolated"))
    space = bool(file.metadata.get("tokenizer.ggml.add_space_prefix", False))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=pattern is None))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    if nfc:
        backend.normalizer = normalizers.NFC()
    return backend


def _sentence_piece(file: GgufFile, tokens: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers

    scores = file.metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise FormatError(f"{file.path}: scores must have one entry per token")
    vocabulary = _vocabulary(file, tokens)
    # A SentencePiece BPE merges the pair whose result scores highest; as a merge list that is every split of every
    # token into two tokens, best result first.
    ranked = [
        (-scores[i], vocabulary[token[:cut]], vocabulary[token[cut:]], token[:cut], token[cut:])
        for i, token in enumerate(tokens)
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]
    ranked.sort()
    unknown = _special(file, "unknown", tokens)
    merges = [(left, right) for *_, left, right in ranked]
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    space = bool(file.metadata.get("tokenizer.ggml.add_space_prefix", True))
    steps: list[Any] = [normalizers.Prepend("▁")] if space else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    tail = [decoders.Strip(" ", 1, 0)] if space else []
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *tail])
    return backend
