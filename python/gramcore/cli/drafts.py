"""Drafters by name, and the picture of a draft tree: shared by ``gramcore generate`` and ``gramcore spec``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

#: Names of model-free drafters in the order of tables.
NAMES = ("suffix", "suffix-tree", "ngram", "ngram-tree", "recycling", "suffix+recycling", "trigram")
DRAFT_HELP = (
    f"{', '.join(NAMES)}, index:FOLDER (an infini-gram index), corpus:FILE (a saved automaton), "
    "heads:FILE (of gramcore spec train-heads) or none"
)


def make_drafter(name: str, target: Callable[[], Any] | None = None) -> Any:
    """The drafter called ``name``, or None for ``"none"``.

    Args:
        name: see ``DRAFT_HELP``.
        target: called for heads only: opens the model through transformers and returns its session.

    Raises:
        ValueError: no drafter of this name.
        FileNotFoundError: the folder or file after the colon is missing.
    """
    from gramcore import spec
    from gramcore.ngram import Index, SuffixAutomaton

    kind, colon, path = name.partition(":")
    if colon and kind in ("index", "corpus", "heads"):
        if not Path(path).exists():
            raise FileNotFoundError(f"--draft {kind} must name something that exists, got {path!r}; build it first")
        if kind == "index":
            return spec.AdaptiveDrafter(spec.InfinigramDrafter(Index(path)), min_match=3)
        if kind == "heads":
            return _load_heads(path, target)
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


def check_draft(drafter: Any, session: Any) -> None:
    """Raise ValueError where a drafter's index is of texts that another tokenizer than the model's has cut."""
    from gramcore import spec

    if isinstance(drafter, spec.AdaptiveDrafter) and isinstance(drafter.fallback, spec.InfinigramDrafter):
        drafter.fallback.index.check_tokenizer(session.tokenizer)


def _load_heads(path: str, target: Callable[[], Any] | None) -> Any:
    from gramcore.spec.heads import load_heads

    if target is None:
        raise ValueError("--draft must not be heads here, got heads without a model; use another drafter")
    session = target()
    return load_heads(path, session.host, tokenizer=session.tokenizer).drafter()


def target_of(drafter: Any, session: Any) -> Any:
    """What ``generate`` runs: the session's host, or heads' own way of running it."""
    heads = getattr(drafter, "heads", None)
    return session.host if heads is None else heads.target(session.host)


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
