"""DDP and FSDP2 over two processes."""

from __future__ import annotations

from tests.optim.launch import launch


def test_two_processes_equal_one() -> None:
    launch("distributed_worker.py", 2)
