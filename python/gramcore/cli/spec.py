"""``gramcore spec``: what drafting brings on this machine, and a look at one draft tree."""

from __future__ import annotations

import csv as csv_module
import functools
import statistics
from pathlib import Path
from typing import Annotated, Any

import typer

from gramcore._checks import check_choice, require
from gramcore._files import replacing
from gramcore.cli import app
from gramcore.cli._files import check_targets
from gramcore.cli.drafts import NAMES, check_draft, make_drafter, show, target_of

spec_app = typer.Typer(help="Speculative decoding: measure drafters, look at draft trees.", no_args_is_help=True)
app.add_typer(spec_app, name="spec")

_TEXT = (
    "The library keeps native cores under a thin layer of Python objects. Each object is small and documented, and "
    "each core is written once. A draft is a guess of what comes next; the model checks several guesses in one pass "
    "and keeps those it would have written itself. When the guesses are good, several tokens arrive in the time of "
    "one; when they are bad, the library stops guessing."
)
_CODE = """def add_all(values):
    \"\"\"Return the sum of all values.\"\"\"
    result = 0
    for value in values:
        result = result + value
    return result


def mean(values):
    \"\"\"Return the mean of all values.\"\"\"
    if len(values) == 0:
        raise ValueError("no values")
    return add_all(values) / len(values)
"""
#: What a user asks for: much, some and little of the answer stands in the question.
TASKS = {
    "copy": f"Repeat this text word for word:\n{_TEXT}",
    "edit": f"Rename the function add_all to total in this code and print the whole code again:\n```python\n{_CODE}```",
    "code": "Write a Python class for a stack with push, pop and peek.",
    "chat": "What makes a good cup of tea?",
    "summarise": f"Summarise this text in two sentences:\n{_TEXT}",
}
_COLUMNS = ["task", "drafter", "tokens_per_step", "speed_over_plain", "accepted", "drafted", "equal_text"]


def _ids(tokenizer: Any, text: str) -> Any:
    messages = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)[
        "input_ids"
    ]


@spec_app.command()
def bench(
    model: Annotated[str, typer.Option(help="GGUF file, model folder, or smollm2")] = "smollm2",
    bits: Annotated[int, typer.Option(help="weight bits: 4, 8, 16 or 32")] = 32,
    host: Annotated[str, typer.Option(help="auto, native or transformers")] = "transformers",
    draft: Annotated[list[str] | None, typer.Option(help=f"several times; default: {', '.join(NAMES)}")] = None,
    task: Annotated[list[str] | None, typer.Option(help=f"several times; default: {', '.join(TASKS)}")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="rounds of plain decoding and every drafter; medians")] = 3,
    csv: Annotated[Path | None, typer.Option(help="write the rows to this file")] = None,
    plot: Annotated[Path | None, typer.Option(help="write a bar chart to this PNG (needs matplotlib)")] = None,
) -> None:
    """Every drafter on every task: tokens per step and speed against plain decoding, and whether the text is equal."""
    check_targets(csv=csv, plot=plot)
    tasks = {check_choice("--task", name, tuple(TASKS)): TASKS[name] for name in task or TASKS}
    check_choice("--bits", str(bits), ("4", "8", "16", "32"))
    from gramcore import model as models
    from gramcore.spec import generate

    opened = functools.cache(lambda kind: models.open_model(model, bits=bits, host=kind))
    drafters = {name: make_drafter(name, lambda: opened("transformers")) for name in draft or NAMES}
    session = opened(host)
    for drafter in drafters.values():
        check_draft(drafter, session)
    rows: list[list[Any]] = []
    for name, text in tasks.items():
        ids = session.encode(text, chat=True)
        settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "eos_token_id": session.stop_token_ids}
        generate(session.host, ids, max_new_tokens=2)  # warm-up
        faster: dict[str, list[float]] = {label: [] for label in drafters}
        last: dict[str, Any] = {}
        for _ in range(repeats):  # in turn, so that a busy moment of the machine meets all alike
            plain = generate(session.host, ids, **settings)
            for label, drafter in drafters.items():
                last[label] = generate(target_of(drafter, session), ids, drafter=drafter, **settings)
                faster[label].append(plain.stats.seconds / last[label].stats.seconds)
        for label, fast in last.items():
            s = fast.stats
            equal = "yes" if fast.tokens == plain.tokens else "no"
            speed = statistics.median(faster[label])
            rows.append([name, label, f"{s.tokens_per_step:.2f}", f"{speed:.2f}", s.accepted, s.drafted, equal])
            typer.echo(f"{name:<9} {label:<18} {rows[-1][2]:>5} tokens/step  {rows[-1][3]:>5}x plain  equal {equal}")
    if csv is not None:
        _write_csv(csv, rows)
    if plot is not None:
        _write_plot(plot, rows, f"{session.name} host, {bits} bits, {max_new_tokens} tokens")


def _write_csv(path: Path, rows: list[list[Any]]) -> None:
    with replacing(path) as part, part.open("w", newline="") as file:
        writer = csv_module.writer(file)
        writer.writerow(_COLUMNS)
        writer.writerows(rows)


def _write_plot(path: Path, rows: list[list[Any]], title: str) -> None:
    """Speed over plain decoding by task, one bar per drafter."""
    require("matplotlib", "bench")
    from matplotlib.figure import Figure

    tasks, drafters = (list(dict.fromkeys(row[i] for row in rows)) for i in (0, 1))
    speed = {(row[0], row[1]): float(row[3]) for row in rows}
    figure = Figure(figsize=(2.5 + 1.7 * len(tasks), 4.0), layout="constrained")
    axes = figure.add_subplot()
    width = 0.84 / len(drafters)
    for i, drafter in enumerate(drafters):
        places = [k - 0.42 + (i + 0.5) * width for k in range(len(tasks))]
        axes.bar(places, [speed[task, drafter] for task in tasks], width * 0.9, label=drafter)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(tasks)), tasks)
    axes.set_ylabel("speed over plain decoding")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=2)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=130)


@spec_app.command()
def tree(
    prompt: Annotated[str, typer.Argument(help="the user's message")],
    model: Annotated[str, typer.Option(help="GGUF file, model folder, or smollm2")] = "smollm2",
    bits: Annotated[int, typer.Option(help="weight bits: 4, 8, 16 or 32")] = 4,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 32,
    png: Annotated[Path | None, typer.Option(help="also write a picture here (needs matplotlib)")] = None,
) -> None:
    """Show the draft tree of the step that accepted most: accepted path and the target's probabilities."""
    check_targets(png=png)
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
    show(recorder, tokenizer, png)
