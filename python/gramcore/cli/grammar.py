"""``gramcore grammar check``: what a JSON Schema becomes, and where an instance leaves it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gramcore.cli import app
from gramcore.cli._files import naming, read_file

if TYPE_CHECKING:
    from gramcore.grammar import CompiledGrammar, GrammarMatcher

__all__: list[str] = []

grammar_app = typer.Typer(help="Grammars for constrained decoding.", no_args_is_help=True)
app.add_typer(grammar_app, name="grammar")


@grammar_app.command()
def check(
    schema: Annotated[Path, typer.Argument(help="a JSON Schema file")],
    instance: Annotated[Path | None, typer.Option(help="a JSON file to match against it")] = None,
    strict: Annotated[bool, typer.Option(help="refuse what cannot be enforced exactly")] = False,
    any_order: Annotated[bool, typer.Option(help="keys of objects in any order")] = False,
) -> None:
    """Compile SCHEMA and say, keyword by keyword, what is exact and what is approximated."""
    from rich.console import Console
    from rich.table import Table

    compiled = _compile(schema, strict=strict, any_order=any_order)
    data = b"" if instance is None else read_file("--instance", instance).strip().encode()
    report = compiled.grammar.report
    assert report is not None
    table = Table("place", "keyword", "status", "detail")
    for entry in report.keywords():
        table.add_row(entry.pointer, entry.keyword, entry.status, entry.detail)
    console = Console()
    console.print(table)
    console.print("every keyword is enforced exactly" if report.is_exact else "some keywords are approximated")
    if instance is None:
        return
    matcher, taken = _follow(compiled, data)
    if taken == len(data) and matcher.can_terminate():
        console.print(f"{instance}: matches")
        return
    before = data[:taken]
    line, column = before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode(errors="replace")) + 1
    got = repr(data[taken : taken + 1].decode(errors="replace")) if taken < len(data) else "the end"
    expected = ", ".join(repr(chr(t)) if t < 128 else "non-ASCII" for t in matcher.allowed_tokens()[:12].tolist())
    hint = ""
    if not any_order and _follow(_compile(schema, strict=strict, any_order=True), data)[1] > taken:
        hint = "; keys come in the schema's order without --any-order"
    raise ValueError(
        f"{instance} must match {schema}, got {got} at line {line}, column {column}; allowed: {expected}{hint}"
    )


def _compile(schema: Path, *, strict: bool, any_order: bool) -> CompiledGrammar:
    """Over a vocabulary of the 256 bytes; errors name the file."""
    from gramcore.grammar import Grammar, GrammarCompiler, TokenizerInfo

    text = read_file("schema", schema)
    with naming(schema):
        grammar = Grammar.from_json_schema(text, strict=strict, any_order=any_order)
        return GrammarCompiler(TokenizerInfo([bytes([b]) for b in range(256)])).compile(grammar)


def _follow(compiled: CompiledGrammar, data: bytes) -> tuple[GrammarMatcher, int]:
    """A matcher behind the longest beginning of ``data`` that the grammar allows, and its length."""
    from gramcore.grammar import GrammarMatcher

    matcher = GrammarMatcher(compiled)
    taken = next((i for i in range(len(data)) if not matcher.accept_bytes(data[i : i + 1])), len(data))
    return matcher, taken
