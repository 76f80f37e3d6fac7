"""One call from a prompt to a text of a grammar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gramcore._checks import check_int
from gramcore.grammar.grammar import Grammar
from gramcore.grammar.matcher import GrammarCompiler
from gramcore.grammar.processor import GrammarLogitsProcessor
from gramcore.grammar.tokenizer import TokenizerInfo

__all__ = ["generate"]


def generate(
    model: Any,
    prompt: str,
    schema: Grammar | Mapping[str, Any] | str | type,
    *,
    tokenizer: Any = None,
    max_new_tokens: int = 256,
    **options: Any,
) -> str:
    """A text of the grammar that the model continues ``prompt`` with.

    Args:
        model: a causal language model of transformers.
        prompt: the text to continue (apply the chat template before, if the model has one).
        schema: a :class:`Grammar`, a JSON Schema as dict or JSON text, or a Pydantic model.
        tokenizer: the model's fast tokenizer; default ``model.tokenizer``.
        max_new_tokens: >= 1; the text is led to its end in time, and cut only if no text of the grammar is that short.
        options: passed to ``model.generate``.

    Returns:
        The new text alone.

    Raises:
        TypeError: no tokenizer, or not such a model. Errors of the grammar's front end.
    """
    import torch

    check_int("max_new_tokens", max_new_tokens, low=1)
    if not hasattr(model, "generate") or not hasattr(model, "config"):
        raise TypeError(
            f"model must be a causal language model of transformers, got {type(model).__name__}; "
            "gramcore.spec.generate(grammar=…) takes native ones"
        )
    tokenizer = tokenizer if tokenizer is not None else getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise TypeError("tokenizer must be given for a model without one, got None; pass tokenizer=")
    if isinstance(schema, Grammar):
        grammar = schema
    elif isinstance(schema, (str, Mapping)):
        grammar = Grammar.from_json_schema(schema)
    else:
        grammar = Grammar.from_pydantic(schema)
    width = model.config.get_text_config().vocab_size
    info = TokenizerInfo.from_huggingface(tokenizer, vocab_size=max(width, len(tokenizer)))
    compiled = GrammarCompiler(info).compile(grammar)
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids.to(model.device)
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        logits_processor=[GrammarLogitsProcessor(compiled, max_tokens=max_new_tokens)],
        pad_token_id=info.stop_tokens[0] if info.stop_tokens else None,
        **options,
    )
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
