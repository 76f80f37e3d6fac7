"""Planning how model state is spread over devices."""

from __future__ import annotations

from gramcore.dist.planner import Cluster, Footprint, Plan, candidates, plan

__all__ = ["Cluster", "Footprint", "Plan", "candidates", "plan"]
