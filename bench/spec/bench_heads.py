"""Drafting with heads of SmolLM2's size (random weights), over all ids and over the 8192 most frequent."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gramcore.spec import ChainTree, Context, CounterRng, Eagle2Tree, FrequencyVocabulary, Sampling
from gramcore.spec.heads import BlockHeads, Clover, HeadDrafter, Koala, MLPSpeculator

from bench.harness import Bench, Contender

_WIDTH, _VOCAB, _HEADS = 576, 49_152, 3


def _target() -> Any:
    """What heads take from a target: its embedding and its output layer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=_VOCAB, hidden_size=_WIDTH, intermediate_size=64, num_hidden_layers=1, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def run(bench: Bench) -> None:
    model = _target()
    few = FrequencyVocabulary(np.arange(0, _VOCAB, _VOCAB // 8192), _VOCAB)
    state = torch.randn(1, _WIDTH, generator=torch.Generator().manual_seed(1))
    ctx = Context(np.int32([3, 4]), 2, Sampling(), CounterRng(0), state[0])
    for kind in (BlockHeads, Koala, MLPSpeculator, Clover):
        for vocabulary in (None, few):
            heads = kind.for_model(model, num_heads=_HEADS, vocabulary=vocabulary)
            chain, tree = (
                HeadDrafter(heads, builder=ChainTree(depth=3)),
                HeadDrafter(heads, builder=Eagle2Tree(depth=3)),
            )
            for drafter in (chain, tree):
                drafter.observe_hidden(state)
            expected = _argmax_chain(heads, state)

            def check(name: str, out: Any, expected: list[int] = expected) -> None:
                tokens = out if isinstance(out, list) else out.tokens.tolist()
                if "tree" not in name and tokens != expected:
                    raise AssertionError(f"{name} drafted {tokens}, the modules say {expected}")

            bench.case(
                f"{heads.kind}, {heads.num_rows} ids, {_HEADS} heads",
                [
                    Contender("gramcore chain", lambda d=chain: d.propose(ctx, 3)),
                    Contender("gramcore tree of 16", lambda d=tree: d.propose(ctx, 16)),
                    Contender("torch modules and argmax", lambda h=heads: _argmax_chain(h, state)),
                ],
                check=check,
                bytes_moved=4 * _HEADS * heads.num_rows * _WIDTH,
            )


def _argmax_chain(heads: Any, hidden: torch.Tensor) -> list[int]:
    """The most probable token of every head, without drafter, laws or tree."""
    with torch.inference_mode():
        state, token, out = heads.context(hidden[None])[0][0], 4, []
        for i in range(heads.num_heads):
            state, logits = heads.step(i, state, torch.tensor([token]))
            place = int(logits[0].argmax())
            token = place if heads.vocabulary is None else int(heads.vocabulary.ids[place])
            out.append(token)
    return out
