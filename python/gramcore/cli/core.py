"""``gramcore info``."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from gramcore.cli import app


@app.command()
def info(as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """Show version, processor levels, threads, CUDA, torch and optional packages."""
    import gramcore

    facts = gramcore.info()
    typer.echo(json.dumps(dataclasses.asdict(facts), indent=2) if as_json else str(facts))
