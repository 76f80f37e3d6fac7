"""The sharding planner: hand-computed costs, validity, limits."""

from __future__ import annotations

import doctest

import pytest
from gramcore.dist import Cluster, Footprint, candidates, plan, planner
from gramcore.errors import LimitError

MODEL = Footprint(num_params=1e9)
CLUSTER = Cluster(num_ranks=16, group_ranks=4, intra_gb_s=100.0, inter_gb_s=10.0, memory_gb=100.0)


def test_costs_by_hand() -> None:
    by_name = {x.name: x for x in candidates(MODEL, CLUSTER, micro_batches=3)}
    # 2 GB of parameters and of gradients; a ring over 4 moves 3/4 at 100 GB/s; between groups a quarter of the bytes
    # moves by 3/4 at 10 GB/s.  One ring over all 16 ranks would take 2 * 15/16 / 10 s, more than both levels.
    inside, across = 2 * 3 / 4 / 100, 2 / 4 * 3 / 4 / 10
    ring = min(2 * 15 / 16 / 10, inside + across)
    assert by_name["NNN"].comm_s == pytest.approx(2 * ring)
    assert by_name["NNG"].comm_s == pytest.approx(2 * ring)
    assert by_name["NGG"].comm_s == pytest.approx(3 * ring + ring)
    assert by_name["GGG"].comm_s == pytest.approx(3 * 3 * ring)
    assert by_name["III"].comm_s == pytest.approx(3 * 3 * inside + 2 * across)
    assert by_name["NIG"].comm_s == pytest.approx(3 * inside + across + ring)
    assert by_name["IIG"].comm_s == pytest.approx(3 * 3 * inside + across + across)
    assert by_name["NNN"].memory_gb == pytest.approx(16.0)
    assert by_name["IIG"].memory_gb == pytest.approx(2 / 4 + 2 / 4 + 12 / 16)
    assert by_name["GGG"].memory_gb == pytest.approx(1.0)
    assert by_name["GGG"].known_as == "ZeRO-3"


def test_only_ordered_combinations_appear() -> None:
    names = [x.name for x in candidates(MODEL, CLUSTER)]
    assert len(names) == len(set(names)) == 10
    assert all("NIG".index(a) <= "NIG".index(b) <= "NIG".index(c) for a, b, c in names)
    times = [x.comm_s for x in candidates(MODEL, CLUSTER)]
    assert times == sorted(times)


@pytest.mark.parametrize("memory", [1.1, 1.8, 3.0, 5.0, 20.0])
def test_the_plan_is_the_cheapest_that_fits(memory: float) -> None:
    cluster = Cluster(16, 4, 100.0, 10.0, memory)
    chosen = plan(MODEL, cluster, micro_batches=2)
    fitting = [x for x in candidates(MODEL, cluster, micro_batches=2) if x.memory_gb <= memory]
    assert chosen.comm_s == min(x.comm_s for x in fitting)
    assert chosen in fitting
    assert chosen.settings


def test_less_memory_never_costs_less_time() -> None:
    times = [plan(MODEL, Cluster(16, 4, 100.0, 10.0, m), micro_batches=4).comm_s for m in (1.1, 2, 4, 8, 16, 32)]
    assert times == sorted(times, reverse=True)


def test_errors() -> None:
    with pytest.raises(LimitError, match=r"memory_gb must be >= 1\.00"):
        plan(MODEL, Cluster(16, 4, 100.0, 10.0, 0.5))
    with pytest.raises(ValueError, match="group_ranks must divide"):
        Cluster(10, 4, 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="inter_gb_s"):
        Cluster(8, 4, 1.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="micro_batches"):
        candidates(MODEL, CLUSTER, micro_batches=0)


def test_one_rank_needs_no_communication() -> None:
    assert all(x.comm_s == 0 for x in candidates(MODEL, Cluster(1, 1, 1.0, 1.0, 100.0)))


def test_examples_hold() -> None:
    assert doctest.testmod(planner).failed == 0
