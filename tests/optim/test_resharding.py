"""Quantised state saved on two processes and loaded on one and on three."""

from __future__ import annotations

from pathlib import Path

from tests.optim.launch import launch


def test_codes_move_to_another_number_of_processes(tmp_path: Path) -> None:
    launch("reshard_worker.py", 2, "save", str(tmp_path))
    for processes in (1, 2, 3):
        launch("reshard_worker.py", processes, "load", str(tmp_path))
    launch("reshard_worker.py", 3, "refuse", str(tmp_path))
