"""A real model (SmolLM2-135M-Instruct) in transformers: whole answers against transformers with and without drafts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gramcore.cli.spec import TASKS
from gramcore.model import load
from gramcore.spec import SuffixDrafter, generate

from bench.harness import Bench, Contender, peer_version

NEW = 32


def run(bench: Bench) -> None:
    measure(bench, ((32, "fp32"), (16, "bf16")))


def measure(bench: Bench, kinds: Sequence[tuple[int, str]]) -> None:
    """All tasks with these weight bits; a repetition is a whole answer, so three of them are enough."""
    bench.least, bench.max_seconds = 3, 1.0
    for bits, dtype in kinds:
        model, tokenizer = load("smollm2", bits=bits)
        for task, text in TASKS.items():
            case(bench, model, tokenizer, f"{dtype} {task}, {NEW} tokens, per token", text)


def case(bench: Bench, model: Any, tokenizer: Any, name: str, text: str) -> None:
    messages = [{"role": "user", "content": text}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = ids["input_ids"]
    peer = peer_version("transformers")
    settings: dict[str, Any] = {
        "attention_mask": torch.ones_like(ids),
        "max_new_tokens": NEW,
        "min_new_tokens": NEW,
        "do_sample": False,
    }

    def ours(**drafts: Any) -> list[int]:
        return generate(model, ids, max_new_tokens=NEW, eos_token_id=(), **drafts).tokens

    expected = ours()

    def check(contender: str, out: Any) -> None:
        if contender.startswith("gramcore") and model.dtype == torch.float32 and out != expected:
            raise AssertionError(f"{contender}: another text than plain decoding")

    bench.case(
        name,
        [
            Contender("gramcore suffix drafts", lambda: ours(drafter=SuffixDrafter())),
            Contender("gramcore suffix drafts, tree", lambda: ours(drafter=SuffixDrafter(tree=True))),
            Contender("gramcore plain", ours),
            Contender(f"{peer} plain", lambda: model.generate(ids, **settings)),
            Contender(f"{peer} prompt lookup 10", lambda: model.generate(ids, **settings, prompt_lookup_num_tokens=10)),
        ],
        check=check,
        units=NEW,
    )
