"""``gramcore generate``: the main job. Exactly what plain decoding gives, sooner, inside a grammar if wanted."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gramcore.cli import app
from gramcore.cli._files import check_targets, naming, read_file
from gramcore.cli.drafts import DRAFT_HELP, check_draft, make_drafter, show, target_of

if TYPE_CHECKING:
    from gramcore.grammar import Grammar, GrammarMatcher


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="the user's message; - reads standard input")],
    model: Annotated[str, typer.Option(help="GGUF file, model folder, or smollm2")] = "smollm2",
    draft: Annotated[str, typer.Option(help=DRAFT_HELP)] = "suffix",
    grammar: Annotated[str | None, typer.Option(help="json, or a .json, .regex, .gbnf, .ebnf or .lark file")] = None,
    bits: Annotated[int, typer.Option(help="weight bits: 4, 8 or 16")] = 4,
    weights: Annotated[
        Path | None, typer.Option(help="a file of `gramcore quantize --out`, whatever --bits is")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy")] = 0.0,
    top_k: Annotated[int, typer.Option(min=0, help="0 keeps all")] = 0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0)] = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    host: Annotated[str, typer.Option(help="auto, native or transformers")] = "auto",
    raw: Annotated[bool, typer.Option(help="use the prompt as it is, without the chat template")] = False,
    stop: Annotated[list[str] | None, typer.Option(help="stop at this string; may be given several times")] = None,
    stats: Annotated[bool, typer.Option("--stats", help="print what speculation did, to standard error")] = False,
    show_tree: Annotated[bool, typer.Option("--show-tree", help="print the draft tree that brought most")] = False,
    tree_png: Annotated[Path | None, typer.Option(help="write that tree as a picture (needs matplotlib)")] = None,
) -> None:
    """Stream an answer. With --temperature 0 or a fixed --seed the text equals plain decoding's, token for token."""
    from gramcore import model as models
    from gramcore import spec
    from gramcore._checks import check_choice, check_real

    check_choice("--bits", str(bits), ("4", "8", "16"))
    check_real("--top-p", top_p, low=0.0, low_open=True, high=1.0)
    check_targets(tree_png=tree_png)
    if weights is not None and not weights.exists():
        raise FileNotFoundError(f"--weights must name a file of gramcore quantize --out, got {str(weights)!r}")
    if stop and not all(stop):
        raise ValueError("--stop must be a text of at least one character, got an empty one")
    opened = functools.cache(lambda kind: models.open_model(model, bits=bits, host=kind, weights=weights))
    drafter = make_drafter(draft, lambda: opened("transformers"))
    text = sys.stdin.read() if prompt == "-" else prompt
    pattern = _grammar(grammar) if grammar else None
    session = opened(host)
    check_draft(drafter, session)
    matcher = _matcher(session.tokenizer, pattern, grammar) if pattern and grammar else None
    recorder = spec.RecordingVerifier(_rule(stats, temperature))
    streamer = TokenPrinter(session.tokenizer)
    result = spec.generate(
        target_of(drafter, session),
        session.encode(text, chat=not raw),
        drafter=drafter,
        verifier=recorder if show_tree or tree_png else recorder.inner,
        grammar=matcher,
        stop=spec.StopStrings(session.tokenizer, stop) if stop else None,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        eos_token_id=session.stop_token_ids,
        streamer=streamer,
    )
    typer.echo()
    if stats:
        stored = f"{bits} bits" if weights is None else str(weights)
        typer.echo(f"{session.name} host, {stored}\n{result.stats}", err=True)
    if show_tree or tree_png:
        show(recorder, session.tokenizer, tree_png)


def _rule(stats: bool, temperature: float) -> Any:
    """The default rule; with statistics of a sampled text also the optimum it could reach."""
    from gramcore import spec

    rule = spec.DefaultVerifier()
    return spec.AcceptanceMeter(rule) if stats and temperature > 0 else rule


class TokenPrinter:
    """Prints text as tokens arrive; holds back bytes of an unfinished character. transformers' streamer protocol."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = 0

    def put(self, ids: Any) -> None:
        self._ids.extend(int(i) for i in ids)
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            typer.echo(text[self._shown :], nl=False)
            self._shown = len(text)

    def end(self) -> None:
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        typer.echo(text[self._shown :], nl=False)


#: Suffix of a grammar file -> name of the constructor of :class:`gramcore.grammar.Grammar`.
_GRAMMARS = {
    ".json": "from_json_schema",
    ".regex": "from_regex",
    ".txt": "from_regex",
    ".gbnf": "from_gbnf",
    ".ebnf": "from_ebnf",
    ".lark": "from_lark",
}


def _grammar(source: str) -> Grammar:
    """What ``--grammar`` names; read before the model is loaded, so that mistakes show at once."""
    from gramcore.grammar import Grammar

    if source == "json":
        return Grammar.from_json_schema("{}")
    path = Path(source)
    if path.suffix not in _GRAMMARS:
        raise ValueError(f"--grammar must be 'json' or a file ending in {', '.join(_GRAMMARS)}, got {source!r}")
    text = read_file("--grammar", path).strip()
    with naming(path):
        return getattr(Grammar, _GRAMMARS[path.suffix])(text)


def _matcher(tokenizer: Any, grammar: Grammar, source: str) -> GrammarMatcher:
    from gramcore.grammar import GrammarCompiler, GrammarMatcher, TokenizerInfo

    compiler = GrammarCompiler(TokenizerInfo.from_huggingface(tokenizer))
    with naming(source):
        return GrammarMatcher(compiler.compile(grammar))
