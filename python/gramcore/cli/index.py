"""``gramcore index build|append|verify|query|accelerate|serve``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gramcore.cli import app

if TYPE_CHECKING:
    from gramcore.ngram import BuildReport

index_app = typer.Typer(help="Suffix-array indexes over token corpora.", no_args_is_help=True)
app.add_typer(index_app, name="index")

# What building and adding share.
Source = Annotated[list[Path], typer.Argument(help="files, directories or globs")]
Tokenizer = Annotated[str, typer.Option(help="tokenizer.json, .model, .tiktoken, bytes, a .gguf file, or smollm2")]
MemoryLimit = Annotated[int, typer.Option(min=0, help="bytes for sorting; 0: most of what is free")]
Accel = Annotated[bool, typer.Option(help="also write acceleration files")]
TextKey = Annotated[str, typer.Option(help="field or column that holds the text")]
OnError = Annotated[str, typer.Option(help="raise or skip")]


@index_app.command()
def build(
    source: Source,
    out: Annotated[Path, typer.Argument(help="directory to make")],
    tokenizer: Tokenizer = "bytes",
    token_dtype: Annotated[str, typer.Option(help="u8, u16 or u32")] = "u16",
    version: Annotated[int, typer.Option(help="layout version: 4 forward, 5 reversed")] = 4,
    shards: Annotated[int, typer.Option(min=1, help="deal documents to this many shards")] = 1,
    memory_limit: MemoryLimit = 0,
    threads: Annotated[int, typer.Option(min=0, help="shards sorted at once; 0: all threads")] = 0,
    accel: Accel = True,
    verify: Annotated[bool, typer.Option(help="read the finished index back and check every rank")] = True,
    metadata: Annotated[bool, typer.Option(help="also write where each document came from")] = False,
    text_key: TextKey = "text",
    on_error: OnError = "raise",
) -> None:
    """Build an index of text, JSON lines, Parquet or .npy token files."""
    from gramcore.ngram import build_index

    try:
        report = build_index(
            _files(source),
            out,
            tokenizer=_tokenizer(tokenizer),
            token_dtype=token_dtype,
            version=version,
            shards=shards,
            memory_limit=memory_limit or None,
            threads=threads or None,
            verify=verify,
            accel=accel,
            metadata=metadata,
            text_key=text_key,
            on_error=on_error,
        )
    except KeyboardInterrupt:
        typer.echo(f"interrupted; the same command goes on with what is in {out}", err=True)
        raise typer.Exit(130) from None
    _tell(report)


@index_app.command()
def append(
    source: Source,
    path: Annotated[Path, typer.Argument(help="index directory to add to")],
    tokenizer: Tokenizer = "bytes",
    shards: Annotated[int, typer.Option(min=1, help="deal documents to this many new shards")] = 1,
    memory_limit: MemoryLimit = 0,
    accel: Accel = True,
    text_key: TextKey = "text",
    on_error: OnError = "raise",
) -> None:
    """Add documents to an index as new shards; those it has are not touched."""
    from gramcore.ngram import append_index

    _tell(
        append_index(
            _files(source),
            path,
            tokenizer=_tokenizer(tokenizer),
            shards=shards,
            memory_limit=memory_limit or None,
            verify=True,
            accel=accel,
            text_key=text_key,
            on_error=on_error,
        )
    )


def _tokenizer(name: str) -> Any:
    """What the indexes take: the name, but for models, whose GGUF file holds a tokenizer."""
    if name in ("bytes", "ids") or Path(name).suffix in (".json", ".model", ".tiktoken") or Path(name).is_dir():
        return name
    from gramcore.model import find_model
    from gramcore.model.tokenizer import load_tokenizer
    from gramcore.quant import GgufFile

    try:
        model = find_model(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no tokenizer at {name!r}; give a tokenizer.json, .model or .tiktoken; {error}"
        ) from error
    with GgufFile(model) as file:
        tokenizer = load_tokenizer(file)
    tokenizer.name_or_path = name  # what the index is said to be built with
    return tokenizer


def _files(source: list[Path]) -> list[Path] | str:
    return source if len(source) > 1 else str(source[0])


def _tell(report: BuildReport) -> None:
    rate = report.num_tokens / max(report.seconds, 1e-9) / 1e6
    typer.echo(
        f"{report.path}: {report.num_documents} documents, {report.num_tokens} tokens, {report.num_shards} shards, "
        f"{report.num_bytes} bytes, {report.seconds:.2f} s ({rate:.1f} Mtok/s)"
    )
    if report.num_skipped:
        typer.echo(f"skipped {report.num_skipped} records, the first because: {report.first_skipped}", err=True)


@index_app.command()
def verify(path: Annotated[list[Path], typer.Argument(help="index directories")]) -> None:
    """Read indexes and check every document and every rank."""
    from gramcore.ngram import Index

    for directory in path:
        index = Index(directory)
        index.verify()
        facts = f"{index.num_shards} shards, {index.num_documents} documents, {index.num_tokens} tokens"
        typer.echo(f"{directory}: {facts}, in order")


@index_app.command()
def query(
    path: Annotated[Path, typer.Argument(help="index directory")],
    ids: Annotated[list[int] | None, typer.Argument(help="token ids of the n-gram")] = None,
    text: Annotated[str | None, typer.Option(help="the n-gram as text, in place of ids")] = None,
    tokenizer: Tokenizer = "bytes",
    following: Annotated[int, typer.Option("--next", min=0, help="also show so many of the tokens that follow")] = 0,
) -> None:
    """Count an n-gram; on request, what follows the longest end of it that occurs: count, id, text."""
    from gramcore.ngram import Index
    from gramcore.ngram.encoders import load_codec

    if (text is None) == (not ids):
        raise ValueError("an n-gram must be given as ids or as --text, and not both")
    given = _tokenizer(tokenizer)
    codec, index = load_codec(given), Index(path)
    if text is not None:
        index.check_tokenizer(given)
    wanted = codec.encode([text])[0].tolist() if text is not None else list(ids or ())
    typer.echo(index.count(wanted))
    if following == 0:
        return
    found = index.infgram_ntd(wanted, top=following)
    typer.echo(f"after {found.suffix_len} of {len(wanted)} tokens, {found.prompt_cnt} times:")
    for token, count in zip(found.token_ids.tolist(), found.cont_cnts.tolist(), strict=True):
        piece = "<end>" if token == index.separator else repr(codec.pieces([*wanted[-4:], token])[-1])
        typer.echo(f"{count}\t{token}\t{piece}")


@index_app.command()
def accelerate(path: Annotated[Path, typer.Argument(help="index directory")]) -> None:
    """Write acceleration files beside an index."""
    from gramcore.ngram import accelerate as write

    typer.echo(f"{path}: {write(path)} bytes of acceleration files")


@index_app.command()
def serve(
    path: Annotated[list[Path], typer.Argument(help="index directories")],
    tokenizer: Annotated[str, typer.Option(help="as for build, or ids")] = "bytes",
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen on; 0: any that is free")] = 8000,
    max_tokens: Annotated[int, typer.Option(help="longest query")] = 2048,
    max_concurrent: Annotated[int, typer.Option(help="requests at once")] = 16,
    max_seconds: Annotated[float, typer.Option(help="longest answer")] = 10.0,
) -> None:
    """Serve an index over HTTP, with a page to look at it."""
    from gramcore._checks import require
    from gramcore.ngram import Index
    from gramcore.ngram.serve import Limits, create_app

    limits = Limits(max_tokens=max_tokens, max_concurrent=max_concurrent, max_seconds=max_seconds)
    application = create_app(Index(path), tokenizer=_tokenizer(tokenizer), limits=limits)
    require("uvicorn", "serve").run(application, host=host, port=port)
