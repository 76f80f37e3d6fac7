"""``gramcore spec train-heads``: draft heads for a model, learnt on text and on the model's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from gramcore._checks import check_choice
from gramcore.cli._files import check_targets, read_file
from gramcore.cli.spec import spec_app

_KINDS = ("block", "koala", "eagle", "mlp_speculator", "clover", "prompt_tokens")
_LOSSES = ("next", "distill", "adversarial", "hidden")


@spec_app.command()
def train_heads(
    out: Annotated[Path, typer.Argument(help="file to write; FILE.1 and FILE.2 hold what a cut run needs to go on")],
    text: Annotated[list[Path], typer.Argument(help="text files to learn from")],
    kind: Annotated[str, typer.Option(help=", ".join(_KINDS))] = "mlp_speculator",
    model: Annotated[str, typer.Option(help="GGUF file, model folder, or smollm2")] = "smollm2",
    num_heads: Annotated[int, typer.Option(min=1, help="longest draft")] = 3,
    ids: Annotated[int, typer.Option(min=0, help="draft only the most frequent so many ids of the text; 0: all")] = 0,
    loss: Annotated[str, typer.Option(help=", ".join(_LOSSES))] = "next",
    max_tokens: Annotated[int, typer.Option(min=1, help="read at most so many tokens of text")] = 100_000,
    own_tokens: Annotated[int, typer.Option(min=0, help="then learn from so many tokens the model writes")] = 0,
    length: Annotated[int, typer.Option(min=4, help="tokens per piece of text")] = 128,
    steps: Annotated[int, typer.Option(min=1, help="per stage")] = 500,
    lr: Annotated[float, typer.Option(help="highest learning rate")] = 1e-3,
    batch: Annotated[int, typer.Option(min=1, help="pieces per step")] = 8,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Train draft heads on the CPU; the model stays as it is. The same command goes on with a run that was cut."""
    check_choice("--kind", kind, _KINDS)
    check_choice("--loss", loss, _LOSSES)
    check_targets(out=out)
    texts = [read_file("text", path, errors="replace") for path in text]

    from gramcore import model as models
    from gramcore.spec import FrequencyVocabulary
    from gramcore.spec.heads import own_text, read_text, save_heads
    from gramcore.spec.heads.kinds import kinds

    made: Any = kinds()[kind]
    session = models.open_model(model, bits=32, host="transformers")
    lm, tokenizer = session.host, session.tokenizer
    tokens = _cut([tokenizer(t, verbose=False)["input_ids"] for t in texts], max_tokens)
    vocab_size = int(lm.config.vocab_size)
    few = FrequencyVocabulary.from_text(texts, tokenizer, ids, vocab_size=vocab_size) if ids else None
    draft = made.for_model(lm, num_heads=num_heads, vocabulary=few, seed=seed)
    stages: list[Callable[[], list[list[int]]]] = [lambda: tokens]
    if own_tokens:
        start = _user_turn(session)
        count = -(-own_tokens // (2 * length))
        stages.append(lambda: own_text(lm, [start] * count, new_tokens=2 * length, seed=seed))
    settings: dict[str, Any] = {"steps": steps, "lr": lr, "batch": batch, "seed": seed}
    checkpoints = [out.with_name(f"{out.name}.{i + 1}") for i in range(len(stages))]
    for name, stage, checkpoint in zip(("given", "own"), stages, checkpoints, strict=False):
        read = read_text(lm, stage(), length=length)
        report = _stage(lm, draft, read, loss, checkpoint, settings)
        typer.echo(f"{name} text: {read.ids.numel()} tokens, loss {report.losses[0]:.3f} -> {report.losses[-1]:.3f}")
        for i in range(num_heads):
            nats, right = ([r[key][i] for r in (report.before, report.after)] for key in ("loss", "accuracy"))
            typer.echo(
                f"  head {i + 1}, held out: loss {nats[0]:.2f} -> {nats[1]:.2f}, "
                f"the model's token first {right[0][0]:.0%} -> {right[1][0]:.0%}"
            )
    save_heads(out, draft, tokenizer=tokenizer)
    for checkpoint in checkpoints:
        checkpoint.unlink()
    typer.echo(f"{out}: {sum(p.numel() for p in draft.parameters())} weights")


def _stage(model: Any, draft: Any, text: Any, loss: str, checkpoint: Path, settings: dict[str, Any]) -> Any:
    """One call of train_heads; a twentieth of the text is held out."""
    from gramcore.spec.heads import AdversarialLoss, DistillLoss, HiddenLoss, NextTokenLoss, train_heads

    objective: Any = DistillLoss() if loss == "distill" else NextTokenLoss()
    if loss == "adversarial":
        objective = objective + 0.1 * AdversarialLoss(draft, seed=settings["seed"])
    elif loss == "hidden":
        objective = objective + 0.5 * HiddenLoss()
    if len(text) < 2:
        raise ValueError(f"text must give at least 2 pieces of --length tokens, got {len(text)}; use a smaller length")
    learn, held_out = text.split(max(1, len(text) // 20))
    return train_heads(model, draft, learn, loss=objective, held_out=held_out, checkpoint=checkpoint, **settings)


def _cut(sequences: list[list[int]], most: int) -> list[list[int]]:
    """The first ``most`` tokens in all."""
    kept: list[list[int]] = []
    for ids in sequences:
        kept.append(ids[:most])
        most -= len(kept[-1])
    return kept


def _user_turn(session: Any) -> list[int]:
    """Ids after which the model writes a user's message and then its own answer."""
    tokenizer, mark = session.tokenizer, "@"
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "--own-tokens must be 0 for a model without a chat template, got one; give its answers as text files"
        )
    turn = tokenizer.apply_chat_template([{"role": "user", "content": mark}], tokenize=False)
    return list(tokenizer(turn[: turn.rindex(mark)], add_special_tokens=False)["input_ids"])
