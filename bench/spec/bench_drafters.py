"""Cost of drafting on texts of different length, and tokens per step when a known text is replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gramcore.ngram import SuffixAutomaton
from gramcore.spec import Context, CounterRng, NgramDrafter, Sampling, SuffixDrafter

from bench.harness import Bench, Contender
from bench.spec.replay import OurSide, peers, replay, texts

#: Longest text a peer is timed on: those that scan it need seconds beyond.
_PEER_LIMIT = 16_000


def passages(n: int) -> np.ndarray:
    """A text of repeating and edited passages over 4000 ids."""
    rng = np.random.default_rng(0)
    known = [rng.integers(0, 4000, 200) for _ in range(max(2, n // 2000))]
    out: list[int] = []
    while len(out) < n:
        passage = known[rng.integers(len(known))].copy()
        passage[rng.integers(200, size=4)] = rng.integers(0, 4000, 4)
        out += passage.tolist()
    return np.array(out[:n], np.int32)


def run(bench: Bench) -> None:
    for n in (1_000, 4_000, 16_000, 100_000, 1_000_000):
        propose(bench, n)
        add(bench, n)
    tokens_per_step(bench)


def propose(bench: Bench, n: int) -> None:
    ids = passages(n)
    suffix, ngram, automaton = SuffixDrafter(), NgramDrafter(), SuffixAutomaton(ids)
    suffix.observe(ids)
    ngram.observe(ids)
    ctx = Context(ids, n, Sampling(), CounterRng(0))
    contenders = [
        Contender("gramcore automaton", lambda: automaton.propose(10)),
        Contender("gramcore SuffixDrafter, as a tree object", lambda: suffix.propose(ctx, 10)),
        Contender("gramcore NgramDrafter, as a tree object", lambda: ngram.propose(ctx, 10)),
    ]
    if n <= _PEER_LIMIT:
        for name, make in peers().items():
            side = make()
            side.start(ids, 0)
            contenders.append(Contender(name, side.draft))
    bench.case(f"propose 10 after {n} tokens", contenders, check=lambda name, out: None)


def add(bench: Bench, n: int) -> None:
    """Appending 256 tokens; the automaton is set back before each repetition."""
    ids, more = passages(n), passages(n + 256)[n:]
    automaton = SuffixAutomaton(ids)
    contenders = [
        Contender(
            "gramcore automaton",
            lambda: automaton.extend(more),
            setup=lambda: automaton.rollback(automaton.num_tokens - n),
        ),
    ]
    if n <= _PEER_LIMIT:
        for name, make in peers().items():
            if "arctic" in name and "chain" in name:
                side = make()
                contenders.append(Contender(name, lambda s=side: s.add(more), setup=lambda s=side: s.start(ids, 256)))
    bench.case(f"add 256 tokens after {n}, per token", contenders, check=lambda name, out: None, units=256)


def tokens_per_step(bench: Bench) -> None:
    """Printed as notes: a count needs no clock."""
    from gramcore.model import load

    _, tokenizer = load("smollm2", bits=4)
    ours: dict[str, Callable[[], Any]] = {
        "gramcore SuffixDrafter": lambda: OurSide(SuffixDrafter),
        "gramcore SuffixDrafter, min_match 1": lambda: OurSide(lambda: SuffixDrafter(min_match=1, length_per_match=10)),
        "gramcore SuffixDrafter, tree": lambda: OurSide(lambda: SuffixDrafter(tree=True)),
        "gramcore NgramDrafter": lambda: OurSide(NgramDrafter),
        "gramcore NgramDrafter, tree": lambda: OurSide(lambda: NgramDrafter(tree=True)),
    }
    for name, make in {**ours, **peers()}.items():
        rates = [f"{task} {replay(make(), *text):.2f}" for task, text in texts(tokenizer).items()]
        bench.note(f"tokens per step, ten drafted: {name}: " + ", ".join(rates))
