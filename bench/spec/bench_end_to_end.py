"""A real model (SmolLM2-135M-Instruct): whole answers, against transformers with and without prompt lookup."""

from __future__ import annotations

from typing import Any

import torch
from gramcore.model import load
from gramcore.spec import SuffixDrafter, generate

from bench.harness import Bench, Contender, peer_version

TASKS = {
    "copy": "Repeat this text word for word: The library keeps native cores under a thin layer of Python objects.",
    "chat": "What makes a good cup of tea?",
}


def run(bench: Bench) -> None:
    for bits, dtype in ((32, "fp32"), (16, "bf16")):
        model, tokenizer = load("smollm2", bits=bits)
        for task, text in TASKS.items():
            case(bench, model, tokenizer, f"{dtype} {task}, 32 tokens, per token", text)


def case(bench: Bench, model: Any, tokenizer: Any, name: str, text: str) -> None:
    messages = [{"role": "user", "content": text}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = ids["input_ids"]
    peer = peer_version("transformers")
    settings: dict[str, Any] = {
        "attention_mask": torch.ones_like(ids),
        "max_new_tokens": 32,
        "min_new_tokens": 32,
        "do_sample": False,
    }

    def plain() -> list[int]:
        return generate(model, ids, max_new_tokens=32, eos_token_id=()).tokens

    def drafted() -> list[int]:
        return generate(model, ids, drafter=SuffixDrafter(), max_new_tokens=32, eos_token_id=()).tokens

    expected = plain()

    def check(contender: str, out: Any) -> None:
        if contender.startswith("gramcore") and model.dtype == torch.float32 and out != expected:
            raise AssertionError(f"{contender}: another text than plain decoding")

    bench.case(
        name,
        [
            Contender("gramcore suffix drafts", drafted),
            Contender("gramcore plain", plain),
            Contender(f"{peer} plain", lambda: model.generate(ids, **settings)),
            Contender(f"{peer} prompt lookup 10", lambda: model.generate(ids, **settings, prompt_lookup_num_tokens=10)),
        ],
        check=check,
        units=32,
    )
