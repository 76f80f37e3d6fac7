"""A real model (SmolLM2-135M-Instruct): whole answers, prompt included, against peers with and without drafts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from gramcore.cli.spec import TASKS
from gramcore.model import open_model
from gramcore.spec import SuffixDrafter, generate

from bench.harness import Bench, Contender, peer_version
from bench.peers import open_llama

#: New tokens of an answer; a few milliseconds each in the native decoder.
NEW, NATIVE_NEW = 32, 64


def run(bench: Bench) -> None:
    measure(bench, ((32, "fp32"), (16, "bf16")))
    measure_native(bench)


def measure(bench: Bench, kinds: Sequence[tuple[int, str]], tasks: Sequence[str] = tuple(TASKS)) -> None:
    """These tasks with these weight bits; a repetition is a whole answer, so three of them are enough."""
    bench.least, bench.max_seconds = 3, 1.0
    for bits, dtype in kinds:
        session = open_model("smollm2", bits=bits, host="transformers")
        for task in tasks:
            ids = session.encode(TASKS[task])
            name = f"{dtype} {task}"
            case(bench, name, session, ids, NEW, exact=dtype == "fp32", peers=_transformers(session.host, ids))


def measure_native(bench: Bench, tasks: Sequence[str] = tuple(TASKS)) -> None:
    """The native decoder on the file's own 4-bit codes, beside llama.cpp decoding plainly."""
    bench.least, bench.max_seconds = 5, 1.0
    session = open_model("smollm2", bits=4, host="native")
    llama = open_llama(torch.get_num_threads(), bench)
    for task in tasks:
        ids = session.encode(TASKS[task])
        name = f"native 4 bits {task}"
        case(bench, name, session, ids, NATIVE_NEW, exact=True, peers=[] if llama is None else [_llama(llama, ids)])


def case(bench: Bench, name: str, session: Any, ids: Any, new: int, *, exact: bool, peers: Sequence[Contender]) -> None:
    """``exact``: drafted text must be plain decoding's, token for token."""

    def ours(**drafts: Any) -> list[int]:
        return generate(session.host, ids, max_new_tokens=new, eos_token_id=(), **drafts).tokens

    expected = ours()

    def check(contender: str, out: Any) -> None:
        if contender.startswith("gramcore") and exact and out != expected:
            raise AssertionError(f"{contender}: another text than plain decoding")

    bench.case(
        f"{name}, {new} tokens, per token",
        [
            Contender("gramcore suffix drafts", lambda: ours(drafter=SuffixDrafter())),
            Contender("gramcore suffix drafts, tree", lambda: ours(drafter=SuffixDrafter(tree=True))),
            Contender("gramcore plain", ours),
            *peers,
        ],
        check=check,
        units=new,
    )


def _transformers(model: Any, ids: Any) -> list[Contender]:
    peer = peer_version("transformers")
    settings: dict[str, Any] = {
        "attention_mask": torch.ones_like(ids),
        "max_new_tokens": NEW,
        "min_new_tokens": NEW,
        "do_sample": False,
    }
    return [
        Contender(f"{peer} plain", lambda: model.generate(ids, **settings)),
        Contender(f"{peer} prompt lookup 10", lambda: model.generate(ids, **settings, prompt_lookup_num_tokens=10)),
    ]


def _llama(model: Any, ids: Any) -> Contender:
    prompt = ids[0].tolist()

    def answer() -> list[int]:
        model.reset()
        return list(itertools.islice(model.generate(prompt, temp=0.0, repeat_penalty=1.0, reset=False), NATIVE_NEW))

    return Contender(f"{peer_version('llama-cpp-python')} plain", answer)
