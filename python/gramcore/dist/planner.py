"""Cost model of sharding parameters, gradients and optimizer state independently (PaRO, AMSP).

Each kind is N (a copy on every rank), I (split inside a group of closely linked ranks) or G (split over all ranks);
a plan is named by the three letters in the order parameters, gradients, optimizer state.
"""

from __future__ import annotations

from dataclasses import dataclass

from gramcore._checks import check_int, check_real
from gramcore.errors import LimitError

__all__ = ["Cluster", "Footprint", "Plan", "candidates", "plan"]

_ORDER = "NIG"
_KNOWN = {"NNN": "DDP", "NNG": "ZeRO-1", "NGG": "ZeRO-2", "GGG": "ZeRO-3", "III": "MiCS"}


@dataclass(frozen=True)
class Cluster:
    """Ranks and links.

    Attributes:
        num_ranks: all ranks.  group_ranks: ranks of a closely linked group; divides num_ranks.
        intra_gb_s: bandwidth of one rank inside its group, 10⁹ bytes per second.  inter_gb_s: between groups.
        memory_gb: memory of a rank for parameters, gradients and optimizer state, 10⁹ bytes.
    """

    num_ranks: int
    group_ranks: int
    intra_gb_s: float
    inter_gb_s: float
    memory_gb: float

    def __post_init__(self) -> None:
        check_int("num_ranks", self.num_ranks, low=1)
        check_int("group_ranks", self.group_ranks, low=1, high=self.num_ranks)
        if self.num_ranks % self.group_ranks:
            raise ValueError(f"group_ranks must divide num_ranks {self.num_ranks}, got {self.group_ranks}")
        for name in ("intra_gb_s", "inter_gb_s", "memory_gb"):
            check_real(name, getattr(self, name), low=0.0, low_open=True)


@dataclass(frozen=True)
class Footprint:
    """Bytes of a model.

    Attributes:
        num_params: parameters.  param_bytes, grad_bytes, state_bytes: per parameter; the defaults are bf16 parameters
            and gradients with an fp32 copy and two fp32 moments.
    """

    num_params: float
    param_bytes: float = 2.0
    grad_bytes: float = 2.0
    state_bytes: float = 12.0

    def __post_init__(self) -> None:
        check_real("num_params", self.num_params, low=1.0)
        for name in ("param_bytes", "grad_bytes", "state_bytes"):
            check_real(name, getattr(self, name), low=0.0)


@dataclass(frozen=True)
class Plan:
    """One combination and its cost.

    Attributes:
        name: letters of parameters, gradients, optimizer state.  known_as: its usual name, or "".
        memory_gb: per rank.  comm_s: seconds of communication per optimizer step, without overlap.
        settings: what it means for FSDP2 or DeepSpeed.
    """

    name: str
    known_as: str
    memory_gb: float
    comm_s: float
    settings: str


def candidates(model: Footprint, cluster: Cluster, *, micro_batches: int = 1) -> list[Plan]:
    """Every valid combination, cheapest communication first.

    Optimizer state is split at least as finely as gradients, and gradients as parameters.

    Args: micro_batches: backward passes per optimizer step, >= 1.

    Reference: Chen et al. 2023, arXiv:2311.00257, section 4; Wu et al. 2023, arXiv:2310.06003, section 3.
    """
    check_int("micro_batches", micro_batches, low=1)
    plans = [
        _price(p + g + o, model, cluster, micro_batches)
        for p in _ORDER
        for g in _ORDER[_ORDER.index(p) :]
        for o in _ORDER[_ORDER.index(g) :]
    ]
    return sorted(plans, key=lambda x: (x.comm_s, x.memory_gb, x.name))


def plan(model: Footprint, cluster: Cluster, *, micro_batches: int = 1) -> Plan:
    """The combination with the least communication that fits the memory.

    Time of a step: ring collectives, each moving (k−1)/k of its bytes over the slower of the links it crosses; over
    all ranks the faster of one ring and a ring per level.
    Per micro-batch: gathering split parameters for the forward and the backward pass, reducing split gradients.
    Per step: bringing gradients to the owners of the optimizer state, and parameters back.

    Args: model, cluster.  micro_batches: backward passes per optimizer step, >= 1.

    Raises: LimitError: nothing fits; the message says what the smallest needs.

    Differs from paper: no overlap with computation; ties go to the plan that needs less memory.

    Reference: Wu et al. 2023, arXiv:2310.06003, section 3; Chen et al. 2023, arXiv:2311.00257, section 4.

    Example:
        >>> from gramcore.dist import Cluster, Footprint, plan
        >>> cluster = Cluster(num_ranks=64, group_ranks=8, intra_gb_s=300, inter_gb_s=25, memory_gb=60)
        >>> best = plan(Footprint(num_params=7e9), cluster, micro_batches=8)
        >>> best.name, round(best.memory_gb, 2)
        ('NNG', 29.31)
    """
    every = candidates(model, cluster, micro_batches=micro_batches)
    for one in every:
        if one.memory_gb <= cluster.memory_gb:
            return one
    least = min(every, key=lambda x: x.memory_gb)
    raise LimitError(
        f"memory_gb must be >= {least.memory_gb:.2f} for {model.num_params:.3g} parameters on {cluster.num_ranks} "
        f"ranks (plan {least.name}), got {cluster.memory_gb}; add ranks or use optimizer state in fewer bytes"
    )


def _ring(num_bytes: float, ranks: int, gb_s: float) -> float:
    return num_bytes * (ranks - 1) / ranks / (gb_s * 1e9)


def _price(name: str, model: Footprint, cluster: Cluster, micro_batches: int) -> Plan:
    world, group = cluster.num_ranks, cluster.group_ranks
    parts = {"N": 1, "I": group, "G": world}
    p, g, o = tuple(name)
    params = model.num_params * model.param_bytes
    grads = model.num_params * model.grad_bytes
    memory = params / parts[p] + grads / parts[g] + model.num_params * model.state_bytes / parts[o]
    wide = cluster.intra_gb_s if world == group else min(cluster.intra_gb_s, cluster.inter_gb_s)

    def inside(num_bytes: float) -> float:
        return _ring(num_bytes, group, cluster.intra_gb_s)

    def across(num_bytes: float) -> float:  # between the ranks that hold the same part of their groups
        return _ring(num_bytes / group, world // group, cluster.inter_gb_s)

    def over_all(num_bytes: float) -> float:
        flat = _ring(num_bytes, world, wide)
        return min(flat, inside(num_bytes) + across(num_bytes))  # one ring, or one per level

    gather = {"N": 0.0, "I": 2 * inside(params), "G": 2 * over_all(params)}[p]
    reduce = {"N": 0.0, "I": inside(grads), "G": over_all(grads)}[g]
    to_owner = {
        "NN": 2 * over_all(grads),
        "NI": inside(grads) + 2 * across(grads),
        "NG": over_all(grads),
        "II": 2 * across(grads),
        "IG": across(grads),
        "GG": 0.0,
    }[g + o]
    back = {
        "NN": 0.0,
        "NI": inside(params),
        "NG": over_all(params),
        "II": 0.0,
        "IG": across(params),
        "GG": 0.0,
    }[p + o]
    seconds = micro_batches * (gather + reduce) + to_owner + back
    return Plan(name, _KNOWN.get(name, ""), memory / 1e9, seconds, _settings(name, group))


def _settings(name: str, group: int) -> str:
    mesh = f"a 2-D mesh of groups of {group}"
    return {
        "NNN": "DistributedDataParallel",
        "NNG": "DeepSpeed stage 1, or ZeroRedundancyOptimizer over all ranks",
        "NGG": "DeepSpeed stage 2, or fully_shard over all ranks with reshard_after_forward=False",
        "GGG": "fully_shard over all ranks, or DeepSpeed stage 3",
        "III": f"fully_shard over {mesh} (replicate between groups, shard inside)",
    }.get(
        name,
        f"{mesh}: parameters {_words(name[0])}, gradients {_words(name[1])}, optimizer state {_words(name[2])}",
    )


def _words(letter: str) -> str:
    return {"N": "replicated", "I": "split inside a group", "G": "split over all ranks"}[letter]
