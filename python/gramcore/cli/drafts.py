"""Drafters by name, and the picture of a draft tree: shared by ``gramcore generate`` and ``gramcore spec``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

#: Names of model-free drafters in the order of tables.
NAMES = ("suffix", "suffix-tree", "ngram", "ngram-tree", "recycling", "suffix+recycling", "trigram")
DRAFT_HELP = f"{', '.join(NAMES)}, index:FOLDER (an infini-gram index), corpus:FILE (a saved automaton) or none"


def make_drafter(name: str) -> Any:
    """The drafter called ``name``, or None for ``"none"``.

    Raises:
        ValueError: no drafter of this name.
        FileNotFoundError: the folder or file after the colon is missing.
    """
    from gramcore import spec
    from gramcore.ngram import Index, SuffixAutomaton

    kind, colon, path = name.partition(":")
    if colon and kind in ("index", "corpus"):
        if not Path(path).exists():
            raise FileNotFoundError(f"--draft {kind} must name something that exists, got {path!r}; build it first")
        if kind == "index":
            return spec.AdaptiveDrafter(spec.InfinigramDrafter(Index(path)), min_match=3)
        return spec.SuffixDrafter(corpus=SuffixAutomaton.load(path), tree=True)
    makers: dict[str, Callable[[], Any]] = {
        "suffix": spec.SuffixDrafter,
        "suffix-tree": lambda: spec.SuffixDrafter(tree=True),
        "ngram": spec.NgramDrafter,
        "ngram-tree": lambda: spec.NgramDrafter(tree=True),
        "recycling": spec.TokenRecycling,
        "suffix+recycling": lambda: spec.AdaptiveDrafter(spec.TokenRecycling()),
        "trigram": spec.TrigramDrafter,
        "none": lambda: None,
    }
    if name not in makers:
        raise ValueError(f"--draft must be {DRAFT_HELP}, got {name!r}")
    return makers[name]()


def show(recorder: Any, tokenizer: Any, png: Path | None) -> None:
    """Print the recorded tree to standard output and write the picture if asked for."""
    from gramcore import spec

    if recorder.last is None:
        typer.echo("no draft tree: nothing was drafted in this text", err=True)
        return

    def name(token: int) -> str:
        return repr(tokenizer.decode([token]))

    tree, verdict, probs = recorder.last
    typer.echo(spec.draw_tree(tree, verdict, probs, name))
    if png is not None:
        spec.save_tree_png(png, tree, verdict, probs, name)
