"""``gramcore spec``: what drafting brings on this machine, and a look at one draft tree."""

from __future__ import annotations

import csv as csv_module
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from gramcore.cli import app

spec_app = typer.Typer(help="Speculative decoding: measure drafters, look at draft trees.", no_args_is_help=True)
app.add_typer(spec_app, name="spec")

_TASKS = {
    "copy": "Repeat this text word for word: The library keeps native cores under a thin layer of Python objects. "
    "Each object is small and documented, and each core is written once.",
    "edit": "Rewrite this function with the name total instead of add_all:\n"
    "def add_all(values):\n    result = 0\n    for value in values:\n        result = result + value\n"
    "    return result\n",
    "code": "Write a Python class for a stack with push, pop and peek.",
    "chat": "What makes a good cup of tea?",
}


def _drafters() -> dict[str, Any]:
    from gramcore import spec

    return {
        "suffix": spec.SuffixDrafter(),
        "ngram": spec.NgramDrafter(),
        "recycling": spec.TokenRecycling(),
        "suffix+recycling": spec.AdaptiveDrafter(spec.TokenRecycling()),
        "trigram": spec.TrigramDrafter(),
    }


def _ids(tokenizer: Any, text: str) -> Any:
    messages = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)[
        "input_ids"
    ]


@spec_app.command()
def bench(
    model: Annotated[str, typer.Option(help="GGUF file, model folder, or smollm2")] = "smollm2",
    bits: Annotated[int, typer.Option(help="weight bits: 4, 8, 16 or 32")] = 32,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    csv: Annotated[Path | None, typer.Option(help="write the rows to this file")] = None,
) -> None:
    """Every drafter on every task: tokens per step and speed against plain decoding, and whether the text is equal."""
    from gramcore import model as models
    from gramcore.spec import generate

    lm, tokenizer = models.load(model, bits=bits)
    eos = models.stop_tokens(lm, tokenizer)
    rows: list[list[Any]] = []
    for task, text in _TASKS.items():
        ids = _ids(tokenizer, text)
        settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "eos_token_id": eos}
        generate(lm, ids, max_new_tokens=2)  # warm-up
        started = time.perf_counter()
        plain = generate(lm, ids, **settings)
        plain_s = time.perf_counter() - started
        for name, drafter in _drafters().items():
            started = time.perf_counter()
            fast = generate(lm, ids, drafter=drafter, **settings)
            seconds = time.perf_counter() - started
            equal = "yes" if fast.tokens == plain.tokens else "no"
            rows.append([task, name, f"{fast.stats.tokens_per_step:.2f}", f"{plain_s / seconds:.2f}", equal])
            typer.echo(f"{task:<6} {name:<18} {rows[-1][2]:>5} tokens/step  {rows[-1][3]:>5}x plain  equal {equal}")
    if csv is not None:
        part = csv.with_name(csv.name + ".part")
        with part.open("w", newline="") as file:
            writer = csv_module.writer(file)
            writer.writerow(["task", "drafter", "tokens_per_step", "speed_over_plain", "equal_text"])
            writer.writerows(rows)
        part.replace(csv)


@spec_app.command()
def tree(
    prompt: Annotated[str, typer.Argument(help="the user's message")],
    model: Annotated[str, typer.Option(help="GGUF file, model folder, or smollm2")] = "smollm2",
    bits: Annotated[int, typer.Option(help="weight bits: 4, 8, 16 or 32")] = 4,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 32,
    png: Annotated[Path | None, typer.Option(help="also write a picture here (needs matplotlib)")] = None,
) -> None:
    """Show the draft tree of the step that accepted most: accepted path and the target's probabilities."""
    from gramcore import model as models
    from gramcore import spec

    lm, tokenizer = models.load(model, bits=bits)
    recorder = spec.RecordingVerifier(spec.GreedyVerifier())
    drafter = spec.AdaptiveDrafter(spec.TokenRecycling(), min_match=3)
    spec.generate(
        lm,
        _ids(tokenizer, prompt),
        drafter=drafter,
        verifier=recorder,
        policy=spec.FixedLength(12),
        max_new_tokens=max_new_tokens,
        eos_token_id=models.stop_tokens(lm, tokenizer),
    )
    if recorder.last is None:
        raise ValueError("prompt must lead to a draft, got none in this text; ask for more tokens")

    def name(token: int) -> str:
        return repr(tokenizer.decode([token]))

    typer.echo(spec.draw_tree(*recorder.last, name))
    if png is not None:
        spec.save_tree_png(png, *recorder.last, name)
