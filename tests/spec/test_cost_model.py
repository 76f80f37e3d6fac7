"""The cost model's policy on simulated machines: bounded regret, memory between requests, runs that repeat."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest
from gramcore.spec import (
    Context,
    CostModelLength,
    CounterRng,
    DraftTree,
    FixedLength,
    LengthPolicy,
    RowCosts,
    Sampling,
    StepRecord,
    row_costs,
)

Curve = Callable[[int], float]

#: C(rows) of machines: flat, even, steep, flat up to a tile of 8, and dearer with every row than plain decoding.
CURVES: dict[str, Curve] = {
    "flat": lambda rows: 1 + 0.01 * (rows - 1),
    "even": lambda rows: 1 + 0.1 * (rows - 1),
    "steep": lambda rows: 1 + 0.4 * (rows - 1),
    "tiles": lambda rows: 1.0 + 0.8 * ((rows - 1) // 8),
    "losing": lambda rows: 0.8 + 1.2 * rows,
}


class Machine:
    """A target whose text is ``0, 1, 2, ...`` and whose forwards take ``curve(rows)`` with noise and hiccups."""

    def __init__(self, curve: Curve, seed: int) -> None:
        self.curve = curve
        self.rng = np.random.default_rng(seed)
        self.busy = 1.0

    def answer(
        self, policy: LengthPolicy, acceptance: Callable[[int], float], tokens: int, strength: float = 4.0
    ) -> tuple[float, list[int]]:
        """Time for so many tokens, and the nodes verified; ``acceptance(depth)``: the next token of a draft stands."""
        at, spent, used = 0, 0.0, []
        policy.begin(self, self)  # a drafter that was asked before
        while at < tokens:
            ctx = Context(np.arange(1 + at, dtype=np.int32), 1, Sampling(), CounterRng(0))
            tree = self._draft(at, min(policy.budget(ctx), 16), acceptance, strength)
            n = min(policy.cut(tree), len(tree))
            stood = 0
            while stood < n and tree.tokens[stood] == at + stood:
                stood += 1
            seconds = self._seconds(n + 1)
            emitted = tuple(range(at, at + stood + 1))
            policy.observe(StepRecord(n, n, stood, 1e-5, seconds, 0.0, None, strength, emitted))
            at += stood + 1
            spent += self.curve(n + 1)
            used.append(n)
        return spent, used

    def _seconds(self, rows: int) -> float:
        hiccup = 3.0 if self.rng.random() < 0.01 else 1.0
        return self.curve(rows) * self.busy * hiccup * float(self.rng.normal(1, 0.03))

    def _draft(self, at: int, length: int, acceptance: Callable[[int], float], strength: float) -> DraftTree:
        right = self.rng.random(length) < [acceptance(i) for i in range(length)]
        good = int(np.argmin(right)) if not right.all() else length
        return DraftTree.chain([at + i if i < good else -1 for i in range(length)], strength)


def best_rate(curve: Curve, acceptance: Callable[[int], float]) -> float:
    """Tokens per unit of time of the best fixed length, plain decoding among them."""
    rates, expected, stands = [1 / curve(1)], 1.0, 1.0
    for n in range(1, 17):
        stands *= acceptance(n - 1)
        expected += stands
        rates.append(expected / curve(n + 1))
    return max(rates)


def mean_time(
    make: Callable[[RowCosts], LengthPolicy], curve: Curve, acceptance: float, tokens: int = 64, strength: float = 4.0
) -> float:
    """Of an answer, over 40 machines that have answered two other requests before."""
    times = []
    for seed in range(40):
        machine, costs = Machine(curve, seed), RowCosts()
        for other in (0.9, 0.3):
            machine.answer(make(costs), lambda _, p=other: p, 64)
        times.append(machine.answer(make(costs), lambda _: acceptance, tokens, strength)[0])
    return float(np.mean(times))


def ours(costs: RowCosts) -> LengthPolicy:
    return CostModelLength(costs=costs)


@pytest.mark.parametrize(("acceptance", "strength"), [(0.0, 1), (0.1, 1), (0.2, 2), (0.3, 2), (0.5, 4)])
@pytest.mark.parametrize("name", CURVES)
def test_short_answers_hardly_lose_to_plain_decoding(name: str, acceptance: float, strength: float) -> None:
    plain = 64 * CURVES[name](1)
    assert mean_time(ours, CURVES[name], acceptance, strength=strength) <= plain / 0.94
    if CURVES[name](2) < 2:  # where a row costs more than a forward even the first try is dear
        assert mean_time(ours, CURVES[name], acceptance, strength=strength) <= plain / 0.96


@pytest.mark.parametrize("name", CURVES)
def test_drafts_that_look_better_than_they_are_cost_little(name: str) -> None:
    assert mean_time(ours, CURVES[name], 0.0, strength=4) <= 64 * CURVES[name](1) / 0.9


@pytest.mark.parametrize("acceptance", [0.0, 0.2, 0.5, 0.7, 0.8, 0.95])
@pytest.mark.parametrize("name", CURVES)
def test_regret_against_the_best_fixed_length_is_bounded(name: str, acceptance: float) -> None:
    curve = CURVES[name]
    best = best_rate(curve, lambda _: acceptance)
    assert mean_time(ours, curve, acceptance, 64) * best <= 1.3 * 64  # with all that is learned in the answer
    assert mean_time(ours, curve, acceptance, 256) * best <= 1.2 * 256


def test_the_bounds_can_fail() -> None:
    # a policy that always drafts eight tokens breaks both, and so does one that never drafts
    assert mean_time(lambda _: FixedLength(8), CURVES["even"], 0.2) > 64 / 0.97
    best = best_rate(CURVES["flat"], lambda _: 0.8)
    assert mean_time(lambda _: FixedLength(0), CURVES["flat"], 0.8) * best > 1.3 * 64


def test_text_that_starts_to_be_copied_is_drafted_soon() -> None:
    # nothing stands for 40 tokens, then everything
    for seed in range(8):
        machine, costs = Machine(CURVES["even"], seed), RowCosts()
        policy = ours(costs)
        machine.answer(policy, lambda _: 0.0, 40)
        assert max(machine.answer(policy, lambda _: 1.0, 64)[1]) >= 8


def test_a_second_request_knows_what_rows_cost() -> None:
    machine, costs = Machine(CURVES["even"], 0), RowCosts()
    machine.answer(ours(costs), lambda _: 0.9, 64)
    assert costs.ratio([2, 5, 9]) == pytest.approx([1.1, 1.4, 1.8], rel=0.1)
    policy = ours(costs)
    assert policy.report()["plain step, ms"] == pytest.approx(1e3, rel=0.15)  # few plain steps, some with hiccups
    assert policy.report()["row costs known before, measurements"] == costs.measured > 0
    assert policy.fork().costs is costs
    costs.reset()
    assert costs.measured == 0


def test_a_busier_machine_moves_the_level_and_not_the_ratios() -> None:
    machine, costs = Machine(CURVES["even"], 1), RowCosts()
    policy = ours(costs)
    machine.answer(policy, lambda _: 0.8, 200)
    machine.busy = 2.0
    machine.answer(policy, lambda _: 0.8, 100)
    assert costs.seconds(1) == pytest.approx(2.0, rel=0.15)
    assert costs.ratio(6) == pytest.approx(1.5, rel=0.15)


def test_a_changed_curve_is_noticed() -> None:
    costs = RowCosts()
    for slope in (0.02, 0.3):
        for step in range(300):
            rows = (1, 2, 4, 8)[step % 4]
            costs.observe(rows, 1 + slope * (rows - 1))
    assert costs.ratio([4, 8]) == pytest.approx([1.9, 3.1], rel=0.15)


def test_rows_not_measured_follow_their_neighbours_and_one_outlier_does_not_decide() -> None:
    costs = RowCosts()
    for _ in range(10):
        costs.observe(1, 1.0)
        costs.observe(8, 3.0)
    ratios = costs.ratio(np.arange(1, 33))
    assert (np.diff(ratios) > 0).all()
    assert ratios[15] > 3
    costs.observe(8, 60.0)
    assert costs.ratio(8) == pytest.approx(3.0, rel=0.05)


def test_ranges_of_contexts_and_batches_are_kept_apart_and_start_from_each_other() -> None:
    costs = RowCosts()
    for _ in range(30):
        costs.observe(1, 1.0, context=100)
        costs.observe(8, 2.0, context=100)
    assert costs.ratio(8, context=4000) == pytest.approx(2.0, rel=0.02)
    assert costs.ratio(16, context=100, batch=2) == pytest.approx(2.0, rel=0.02)
    for _ in range(60):
        costs.observe(1, 1.5, context=4000)
        costs.observe(8, 4.5, context=4000)
    assert costs.ratio(8, context=4000) == pytest.approx(3.0, rel=0.1)
    assert costs.ratio(8, context=100) == pytest.approx(2.0, rel=0.02)


def test_given_costs_make_runs_that_repeat() -> None:
    costs = RowCosts.fixed({1: 1.0, 9: 1.8})
    runs = []
    for busy in (1.0, 3.0):
        machine = Machine(CURVES["even"], 5)
        machine.busy = busy
        runs.append(machine.answer(CostModelLength(costs=costs), lambda _: 0.7, 200)[1])
    assert runs[0] == runs[1]
    assert max(runs[0]) > 0
    assert costs.measured == 0
    for bad in ({}, {2: 1.0}, {0: 1.0, 1: 1.0}, {1: 0.0}):
        with pytest.raises(ValueError, match="seconds must be"):
            RowCosts.fixed(bad)
    with pytest.raises(TypeError, match="costs must be a RowCosts"):
        CostModelLength(costs={1: 1.0})  # type: ignore[arg-type]


def test_shared_costs_live_as_long_as_their_model() -> None:
    from gramcore.spec import costs as module

    class Model: ...

    model = Model()
    before = len(module._shared)
    row_costs(model).observe(1, 1.0)
    assert row_costs(model).measured == 1
    del model
    gc.collect()
    assert len(module._shared) == before


def plain_step(token: int) -> StepRecord:
    return StepRecord(0, 0, 0, 1e-5, 1.0, 0.0, None, 0, (token,))


def test_a_drafter_that_cannot_be_a_key_is_timed_by_the_policy_alone() -> None:
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

    policy = CostModelLength(costs=RowCosts())
    policy.begin(Machine(CURVES["even"], 0), Unhashable())  # type: ignore[arg-type]
    policy.cut(DraftTree.chain([1]))
    policy.observe(plain_step(1))
    assert policy.costs is not None
    assert policy.costs.draft_seconds(policy) == pytest.approx(1e-5)


def test_drafts_that_were_not_verified_teach_by_hindsight() -> None:
    # two siblings, the second one with a child: the text takes the second branch and both its nodes
    tree = DraftTree(np.int32([1, 2, 3, 4]), np.int32([-1, -1, 1, 0]), strength=3)
    policy = CostModelLength(costs=RowCosts.fixed({1: 1.0, 5: 100.0}))
    for _ in range(60):
        assert policy.cut(tree) == 0
        policy.observe(plain_step(2))
        policy.observe(plain_step(3))
        assert not policy._tried  # a branch that fell has nothing to wait for
    assert policy._kinds[2].nodes(4) == pytest.approx([0.0, 1.0, 1.0, 0.0], abs=0.12)


def test_strengths_are_told_apart_and_trees_cut_where_they_pay() -> None:
    # of four siblings the third one stands if the draft is strong, none if it is weak
    policy = CostModelLength(costs=RowCosts.fixed({1: 1.0, 11: 3.0}))
    used: dict[int, list[int]] = {2: [], 20: []}
    for step in range(160):
        strength = 20 if step % 2 else 2
        n = policy.cut(DraftTree(np.int32([1, 2, 3, 4]), np.int32([-1] * 4), strength=strength))
        used[strength].append(n)
        hit = strength == 20 and n >= 3
        text = (3, 9) if hit else (3,) if strength == 20 else (9,)
        policy.observe(StepRecord(n, min(n, 1), int(hit), 0.0, 1.0, 0.0, (2,) if hit else (), strength, text))
    assert set(used[20][20:]) == {3}
    assert set(used[2][40:]) == {0}


def test_an_expensive_drafter_is_asked_at_growing_distances() -> None:
    policy = CostModelLength(costs=RowCosts())
    asked = []
    for step in range(400):
        ctx = Context(np.arange(1 + step, dtype=np.int32), 1, Sampling(), CounterRng(0))
        n = policy.budget(ctx)
        n = policy.cut(DraftTree.chain([-1] * n)) if (drafting := n > 0) else 0
        asked.append(drafting)
        policy.observe(StepRecord(n, n, 0, 0.5 * drafting, 1 + 0.02 * n, 0.0, None, 0, (step,), asked=drafting))
    assert 2 <= sum(asked) <= 24
    assert sum(asked[200:]) <= 3


def test_random_drafts_are_judged_by_verification_alone() -> None:
    law = np.log(np.full((4, 4), 0.25))
    tree = DraftTree(np.int32([0, 1, 2]), np.int32([-1, 0, 1]), law, "iid", strength=4)
    policy = CostModelLength(costs=RowCosts.fixed({1: 1.0, 4: 1.3}))
    used = []
    for _ in range(300):
        n = policy.cut(tree)
        used.append(n)
        policy.observe(StepRecord(n, n, 0, 0.0, 1.0, 0.0, (), 4, (0,), fixed=n == 0))
    assert used[0] > 0  # the first guess
    assert 1 <= sum(n > 0 for n in used[40:]) <= 10  # probes, and tries when lost time is forgotten
    assert sum(used) <= 45


def test_probes_are_never_further_apart_than_the_last_distance() -> None:
    law = np.log(np.full((2, 4), 0.25))
    policy = CostModelLength(costs=RowCosts.fixed({1: 1.0, 2: 3.0}))
    used = []
    for _ in range(1000):
        n = policy.cut(DraftTree(np.int32([0]), np.int32([-1]), law, "iid", strength=4))
        used.append(n)
        policy.observe(StepRecord(n, n, 0, 0.0, 1.0, 0.0, (), 4, (0,), fixed=n == 0))
    apart = np.diff(np.flatnonzero(used))
    assert apart.tolist() == [16, 32, 64, *[128] * (len(apart) - 3)]
    assert len(apart) >= 9


def test_more_rows_are_never_taken_for_cheaper_than_one() -> None:
    costs = RowCosts()
    for _ in range(200):  # clocks that lie: eight rows in half the time of one
        costs.observe(1, 1.0)
        costs.observe(8, 0.5)
    assert (costs.ratio(np.arange(1, 33)) > 0.9).all()


def test_batches_are_priced_with_the_rows_of_the_others() -> None:
    # rows are free up to 16; a draft of one sequence fits beside nine rows of the others only in part
    costs = RowCosts.fixed({1: 1.0, 16: 1.0, 17: 9.0})
    policy = CostModelLength(costs=costs)
    policy.observe(StepRecord(0, 0, 0, 0.0, 1.0, 0.0, (), 0, (1,), rows=10, batch=2))
    assert policy.cut(DraftTree.chain([1] * 16, strength=20)) == 6


@pytest.mark.parametrize(("fallen", "plain", "weak_pays"), [(0, 0, True), (3, 0, False), (3, 100, True)])
def test_lost_time_asks_for_more_and_is_forgotten(fallen: int, plain: int, weak_pays: bool) -> None:
    policy = CostModelLength(costs=RowCosts.fixed({1: 1.0, 9: 2.0}))
    for _ in range(fallen):  # drafts of a third strength: a plain step lost by each
        policy.observe(StepRecord(8, 8, 0, 0.0, 2.0, 0.0, strength=8, emitted=(5,), rows=9))
    for _ in range(plain):
        policy.observe(StepRecord(0, 0, 0, 0.0, 1.0, 0.0, emitted=(5,), rows=1))
    assert (policy.cut(DraftTree.chain([7] * 8, strength=2)) > 0) == weak_pays
    assert policy.cut(DraftTree.chain([7] * 8, strength=20)) > 0
