"""``gramcore bench``: the benchmark tables, from a source checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from gramcore.cli import app


@app.command()
def bench(
    selector: Annotated[str, typer.Argument(help="family or family.benchmark; default all")] = "",
    csv: Annotated[Path | None, typer.Option(help="append result rows to this file")] = None,
) -> None:
    """Verify, then time ours and the installed peers; prints ratios. Run it inside a source checkout."""
    root = next((p for p in (Path.cwd(), *Path.cwd().parents) if (p / "bench" / "harness.py").exists()), None)
    if root is None:
        raise FileNotFoundError(
            f"bench must run inside a gramcore source checkout, got {Path.cwd()}; change to the folder with bench/"
        )
    command = [sys.executable, "-m", "bench", *([selector] if selector else [])]
    if csv:
        command += ["--csv", str(csv.resolve())]
    raise typer.Exit(subprocess.run(command, cwd=root, check=False).returncode)
