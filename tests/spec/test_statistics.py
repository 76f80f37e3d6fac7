"""Statistics of a generation and the meter of acceptance."""

from __future__ import annotations

from typing import Any

import numpy as np
from gramcore.spec import Context, DraftTree, FixedLength, NgramDrafter, generate

from .scripted import ALWAYS, Scripted, prompt


def test_statistics_add_up(model: Any) -> None:
    ids = prompt(30, 4)
    result = generate(model, ids, policy=ALWAYS, drafter=NgramDrafter(), max_new_tokens=40)
    stats = result.stats
    assert stats.emitted == len(result.tokens) == 40
    assert stats.from_prompt == 1
    assert stats.emitted <= 1 + stats.steps + stats.accepted <= stats.emitted + 1
    assert stats.tokens_per_step == 39 / stats.steps
    assert all(a <= o for a, o in zip(stats.accepted_at, stats.offered_at, strict=True))
    assert sum(stats.accepted_at) == stats.accepted
    assert all(a <= r <= o for a, r, o in zip(stats.accepted_at, stats.reached_at, stats.offered_at, strict=True))
    assert stats.reached_at[0] == stats.offered_at[0]
    assert all(stats.reached_at[i + 1] <= stats.accepted_at[i] for i in range(len(stats.reached_at) - 1))
    assert sum(stats.draft_ends.values()) == stats.steps
    assert "tokens in" in str(stats)
    assert stats.tokens_per_s > 0


def test_statistics_by_position_of_a_known_draft(model: Any) -> None:
    ids = prompt()
    plain = generate(model, ids, max_new_tokens=40).tokens

    def two_of_four(ctx: Context, budget: int) -> DraftTree:
        right = plain[len(ctx.tokens) - len(ids) :][:4]
        return DraftTree.chain(np.int32([*right[:2], *((t + 1) % 97 for t in right[2:])]))

    stats = generate(model, ids, drafter=Scripted(two_of_four), policy=FixedLength(9), max_new_tokens=30).stats
    assert stats.steps == 10
    assert stats.accepted_by_position == [1.0, 1.0, 0.0, 0.0]
    assert stats.accepted_given_before == [1.0, 1.0, 0.0, 0.0]
    assert stats.reached_at == [10, 9, 9, 0]  # the last draft is as deep as one more token may be
    assert stats.draft_ends == {"drafter": 10}
    full = generate(model, ids, drafter=Scripted(two_of_four), policy=FixedLength(4), max_new_tokens=30).stats
    assert full.draft_ends == {"budget": 10}
    off = generate(model, ids, drafter=Scripted(two_of_four), policy=FixedLength(0), max_new_tokens=5).stats
    assert off.draft_ends == {"policy off": 3, "no room": 1}


def test_meter_reports_the_optimum(model: Any) -> None:
    from gramcore.spec import AcceptanceMeter, ChainTree, DefaultVerifier, GreedyTailTree, ModelDrafter, early_exit

    for builder in (GreedyTailTree(branching=(3, 1)), ChainTree(depth=3)):
        drafter = ModelDrafter(early_exit(model, 1), builder=builder)
        settings: dict[str, Any] = {"policy": FixedLength(8), "temperature": 0.9, "seed": 2, "max_new_tokens": 150}
        metered = generate(model, prompt(), drafter=drafter, verifier=AcceptanceMeter(DefaultVerifier()), **settings)
        assert metered.tokens == generate(model, prompt(), drafter=drafter, **settings).tokens
        notes = metered.stats.notes
        # these rules reach the optimum, so the share is it up to chance: over 100 nodes, 0.2 is 4 sigma at worst
        assert abs(notes["acceptance per node"] - notes["optimal acceptance"]) < 0.2
        assert 0.01 < notes["optimal acceptance"] < 0.95
        assert "optimal acceptance" in str(metered.stats)
