"""Forty prompts with every registered drafter and tree: greedy and seeded texts are those of plain decoding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gramcore._registry import rows
from gramcore.ngram import Index, SuffixAutomaton, build_index
from gramcore.spec import (
    AcceptanceHead,
    AcceptanceHeadStop,
    ChainTree,
    DiscoStop,
    Drafter,
    Eagle2Tree,
    FixedLength,
    InfinigramDrafter,
    MinProbStop,
    ModelDrafter,
    NgramDrafter,
    SuffixDrafter,
    TokenRecycling,
    collect_traces,
    early_exit,
    generate,
    train_disco,
)
from gramcore.spec.heads import (
    BlockHeads,
    BlockwiseDrafter,
    HeadDrafter,
    ModelRescorer,
    NgramRescorer,
    PromptTokenHeads,
    read_text,
    train_heads,
)

NEW = 9
#: What drafters need beyond keywords; those that name something else are another test's.
NEEDS = ("", "fallback", "index", "model")
DRAFTERS = [row for row in rows(family="spec", protocol="drafter") if row.facts.get("needs", "") in NEEDS]
TREES = rows(family="spec", protocol="tree")
HEADS = rows(family="spec", protocol="draft_head")


def prompts() -> list[list[int]]:
    """Repetitive, edited, short and long ones."""
    out = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        part = rng.integers(0, 97, int(rng.integers(1, 14))).tolist()
        edited = [t if rng.random() > 0.2 else int(rng.integers(97)) for t in part]
        out.append([*part, *edited, *part[: int(rng.integers(1, len(part) + 1))]])
    return out


@pytest.fixture(scope="module")
def plain(model: Any) -> dict[bool, list[list[int]]]:
    """Plain decoding, one prompt at a time when greedy; sampled rows have random numbers by their place."""
    greedy = [generate(model, ids, max_new_tokens=NEW).tokens for ids in prompts()]
    law = {"temperature": 0.8, "top_p": 0.9, "seed": 7}
    return {False: greedy, True: list(generate(model, prompts(), max_new_tokens=NEW, **law).sequences)}


@pytest.fixture(scope="module")
def parts(model: Any, plain: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("index")
    build_index(plain[False][:20], folder)
    corpus = SuffixAutomaton()
    for text in plain[False][:20]:
        corpus.add_sequence(np.int32(text))
    shallow = early_exit(model, 1)
    traces = collect_traces(model, shallow, prompts()[:3], depth=4, max_new_tokens=12)
    rng = np.random.default_rng(0)
    return {
        "fallback": TokenRecycling(),
        "index": Index(folder),
        "model": shallow,
        "corpus": corpus,
        "classifier": train_disco(traces, hidden=4, epochs=30),
        "head": AcceptanceHead(blocks=[], weight=rng.normal(size=(2, 32)), bias=np.zeros(2)),
    }


def check(model: Any, plain: dict[bool, list[list[int]]], drafter: Drafter, *, seeded: bool) -> int:
    """Compare the forty texts; returns the number of accepted drafts."""
    accepted = 0
    for sampled in (False, True) if seeded else (False,):
        law = {"temperature": 0.8, "top_p": 0.9, "seed": 7} if sampled else {}
        fast = generate(model, prompts(), drafter=drafter, policy=FixedLength(7), max_new_tokens=NEW, **law)
        assert list(fast.sequences) == plain[sampled]
        accepted += fast.stats.accepted
    return accepted


@pytest.mark.parametrize("row", DRAFTERS, ids=lambda r: r.name)
def test_every_registered_drafter(model: Any, plain: Any, parts: dict[str, Any], row: Any) -> None:
    need = row.facts.get("needs")
    drafter = row.load()(*([parts[need]] if need else []), **row.test_kwargs)
    check(model, plain, drafter, seeded=not row.facts.get("random"))


@pytest.mark.parametrize("row", TREES, ids=lambda r: r.name)
def test_every_registered_tree(model: Any, plain: Any, parts: dict[str, Any], row: Any) -> None:
    builder = row.load()(**row.test_kwargs)
    assert check(model, plain, ModelDrafter(parts["model"], builder=builder), seeded=False) > 8


def variants(parts: dict[str, Any]) -> Iterator[tuple[str, Drafter]]:
    yield "suffix tree", SuffixDrafter(tree=True, min_match=1)
    yield "suffix, corpus tree", SuffixDrafter(corpus=parts["corpus"], tree=True, corpus_bias=0)
    yield "suffix, frequent", SuffixDrafter(pick="frequent", min_match=1)
    yield "n-gram tree", NgramDrafter(tree=True)
    yield "index, any", InfinigramDrafter(parts["index"], min_prob=0.0, min_match=1)
    for rule in (DiscoStop(parts["classifier"]), AcceptanceHeadStop(parts["head"], min_tokens=1), MinProbStop(0.1)):
        yield type(rule).__name__, ModelDrafter(parts["model"], builder=ChainTree(depth=6, stop=rule))
    yield "sampled chain", ModelDrafter(parts["model"], builder=ChainTree(depth=4, sample=True))


def test_variants(model: Any, plain: Any, parts: dict[str, Any]) -> None:
    total = 0
    for name, drafter in variants(parts):
        try:
            total += check(model, plain, drafter, seeded="tree" in name)
        except AssertionError as error:
            raise AssertionError(f"{name}: another text") from error
    assert total > 200


@pytest.mark.parametrize("row", HEADS, ids=lambda r: r.name)
def test_every_registered_kind_of_heads(model: Any, plain: Any, row: Any) -> None:
    """Trained a little on twenty of the texts, as chains and as trees; independent ones also rescored."""
    heads = row.load().for_model(model, **row.test_kwargs)
    text = read_text(model, [t for ids in plain[False][:20] for t in ids] * 4, length=36)
    train_heads(model, heads, text, steps=30, lr=1e-2, progress=False)
    if isinstance(heads, PromptTokenHeads):
        target: Any = heads.target(model)
        drafters = [heads.drafter()]
    else:
        target = model
        drafters = [HeadDrafter(heads, builder=builder) for builder in (ChainTree(depth=3), Eagle2Tree(depth=3))]
        if type(heads) is BlockHeads:
            rescorers = NgramRescorer(vocab_size=97), ModelRescorer(early_exit(model, 1))
            drafters += [BlockwiseDrafter(heads, rescorer, paths=3) for rescorer in rescorers]
    for drafter in drafters:
        assert check(target, plain, drafter, seeded=True) > 8
