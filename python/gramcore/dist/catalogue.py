"""Registry rows of the planners."""

from __future__ import annotations

from gramcore._registry import Row, register

register(
    Row(
        name="PaRO",
        family="dist",
        protocol="planner",
        factory="gramcore.dist.planner:plan",
        summary="shard parameters, gradients and optimizer state separately",
        paper="Wu et al. 2023, arXiv:2310.06003",
    ),
    Row(
        name="AMSP",
        family="dist",
        protocol="planner",
        factory="gramcore.dist.planner:candidates",
        summary="every valid combination of sharding factors with its cost",
        paper="Chen et al. 2023, arXiv:2311.00257",
    ),
)
