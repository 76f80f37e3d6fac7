"""Runs the command line: in this process (imports are paid once), or in one of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from unittest import mock

from gramcore.cli import main


@dataclass(frozen=True)
class Result:
    """What a command printed and its exit status."""

    stdout: str
    stderr: str
    returncode: int


def gramcore(*arguments: str, stdin: str = "") -> Result:
    """Run ``gramcore ARGUMENTS`` in this process."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "stdin", io.StringIO(stdin)),
    ):
        try:
            main(list(arguments))
        except SystemExit as stop:
            status = int(stop.code or 0)
    return Result(out.getvalue(), err.getvalue(), status)


def gramcore_process(*arguments: str) -> Result:
    """Run ``gramcore ARGUMENTS`` as a user would."""
    command = [sys.executable, "-m", "gramcore.cli", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    return Result(done.stdout, done.stderr, done.returncode)


def sentence(result: Result) -> str:
    """The one-line message of a refused command."""
    assert result.returncode == 2, result.stdout + result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]
