"""``gramcore index build|query``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gramcore.cli import app

index_app = typer.Typer(help="Suffix-array indexes over token corpora.", no_args_is_help=True)
app.add_typer(index_app, name="index")


@index_app.command()
def build(
    source: Annotated[Path, typer.Argument(help="a .npy array of token ids (one document, or (documents, length))")],
    out: Annotated[Path, typer.Argument(help="directory to make")],
    token_dtype: Annotated[str, typer.Option(help="u8, u16 or u32")] = "u16",
    version: Annotated[int, typer.Option(help="layout version: 4 forward, 5 reversed")] = 4,
) -> None:
    """Build an index."""
    import numpy as np

    from gramcore.ngram import build_index

    report = build_index(np.load(source, mmap_mode="r"), out, token_dtype=token_dtype, version=version)
    rate = report.num_tokens / max(report.seconds, 1e-9) / 1e6
    typer.echo(
        f"{report.path}: {report.num_documents} documents, {report.num_tokens} tokens, {report.num_bytes} bytes, "
        f"{report.seconds:.2f} s ({rate:.1f} Mtok/s)"
    )


@index_app.command()
def query(
    path: Annotated[Path, typer.Argument(help="index directory")],
    ids: Annotated[list[int], typer.Argument(help="token ids of the n-gram")],
) -> None:
    """Count an n-gram."""
    from gramcore.ngram import Index

    typer.echo(Index(path).count(ids))


@index_app.command()
def accelerate(path: Annotated[Path, typer.Argument(help="index directory")]) -> None:
    """Write acceleration files beside an index."""
    from gramcore.ngram import accelerate as write

    typer.echo(f"{path}: {write(path)} bytes of acceleration files")
