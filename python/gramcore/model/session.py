"""A model ready to generate: host, tokenizer and stop tokens from one path or name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gramcore._checks import check_choice, require

__all__ = ["Session", "open_model"]


@dataclass(frozen=True)
class Session:
    """What :func:`gramcore.spec.generate` needs, and what turns text into ids and back.

    Attributes:
        host: a model that ``spec.generate`` accepts.
        tokenizer: the fast tokenizer of transformers.
        stop_token_ids: ids that end a text.
        name: ``"native"`` or ``"transformers"``.
    """

    host: Any
    tokenizer: Any
    stop_token_ids: tuple[int, ...]
    name: str

    def encode(self, text: str, *, chat: bool = True) -> Any:
        """Ids ``(1, T)`` of a user's message in the chat template, or of the text as it is."""
        if not chat or not getattr(self.tokenizer, "chat_template", None):
            return self.tokenizer(text, return_tensors="pt", verbose=False).input_ids
        messages = [{"role": "user", "content": text}]
        prompt = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return self.tokenizer(prompt, return_tensors="pt", add_special_tokens=False, verbose=False).input_ids


def open_model(
    path_or_name: str | Path, *, bits: int = 4, host: str = "auto", weights: str | Path | None = None
) -> Session:
    """Open a GGUF file, a packaged model or a folder written by ``save_pretrained``; nothing is downloaded.

    Args:
        path_or_name: path, or ``"smollm2"``.
        bits: 4 and 8 keep the codes of a GGUF file and quantise a folder's weights (groups of 32), unless the folder
            holds them quantised; 16 and 32 are dense bf16 and fp32.
        host: ``"native"`` is :class:`gramcore.model.Decoder`; ``"transformers"`` runs the modules of transformers;
            ``"auto"`` takes the native decoder where it supports the model.
        weights: a file of :func:`gramcore.quant.save_quantized` (``gramcore quantize --out``) made from this model, run
            in place of the model's own weights whatever ``bits`` is.

    Raises:
        FileNotFoundError, FormatError, ValueError: as :func:`gramcore.model.load`, :class:`gramcore.model.Decoder` and
            :func:`gramcore.quant.load_quantized_`.
    """
    check_choice("bits", str(bits), ("4", "8", "16", "32"))
    check_choice("host", host, ("auto", "native", "transformers"))
    path = Path(path_or_name)
    if (path / "config.json").is_file():
        return _open_folder(path, bits, host, weights)
    return _open_gguf(path_or_name, bits, host, weights)


def _open_gguf(path_or_name: str | Path, bits: int, host: str, weights: str | Path | None) -> Session:
    from gramcore.model.decoder import Decoder
    from gramcore.model.hf import find_model, load, stop_tokens
    from gramcore.model.tokenizer import load_tokenizer
    from gramcore.quant.gguf import GgufFile

    if host == "transformers" or bits >= 16 or weights is not None:
        model, tokenizer = load(path_or_name, bits=bits if weights is None else 32)
        _take(model, weights)
        stops = stop_tokens(model, tokenizer)
        if host == "transformers":
            return Session(model, tokenizer, stops, "transformers")
        return Session(Decoder.from_module(model).host(), tokenizer, stops, "native")
    path = find_model(path_or_name)
    decoder = Decoder.from_gguf(path)  # checks the whole file first
    tokenizer = load_tokenizer(GgufFile(path))
    return Session(decoder.host(), tokenizer, stop_tokens(decoder, tokenizer), "native")


def _open_folder(folder: Path, bits: int, host: str, weights: str | Path | None) -> Session:
    from gramcore.model.decoder import Decoder
    from gramcore.model.hf import load_folder, stop_tokens
    from gramcore.model.native import supports

    torch = require("torch", "torch")
    dtype = torch.bfloat16 if bits == 16 and weights is None else torch.float32
    model, tokenizer = load_folder(folder, dtype)
    stops = stop_tokens(model, tokenizer)
    _take(model, weights)
    as_is = bits >= 16 or weights is not None or getattr(model, "quantization_method", None) == "gramcore"
    if host == "native" or (host == "auto" and as_is and supports(model.config)):
        if not as_is:
            raise ValueError(f"host must be transformers for a folder at {bits} bits, got native; use --bits 16 or 32")
        return Session(Decoder.from_module(model).host(), tokenizer, stops, "native")
    if not as_is:
        from gramcore.quant import quantize_

        quantize_(model, f"int{bits}_g32" if bits == 4 else "int8", progress=False)
    return Session(model, tokenizer, stops, "transformers")


def _take(model: Any, weights: str | Path | None) -> None:
    """Quantised layers of a file in place of the dense ones; activations are not rounded."""
    if weights is None:
        return
    from gramcore.model.hf import set_activations
    from gramcore.quant import load_quantized_

    load_quantized_(model, weights)
    set_activations(model, "float32")
