"""One engine that trains anything that drafts: the target is frozen and its text was read once."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from gramcore._checks import check_int, check_real
from gramcore.spec.heads.base import Batch, Rollout, TrainableDraft
from gramcore.spec.heads.checkpoint import Checkpoint
from gramcore.spec.heads.losses import DraftLoss, NextTokenLoss
from gramcore.spec.heads.text import ReadText
from gramcore.spec.restrict import head_weight

__all__ = ["TrainReport", "evaluate_heads", "train_heads"]


@dataclass
class TrainReport:
    """``losses``: of every step. ``before``, ``after``: held-out results of :func:`evaluate_heads`, if asked for."""

    losses: list[float] = field(default_factory=list)
    before: dict[str, list[Any]] = field(default_factory=dict)
    after: dict[str, list[Any]] = field(default_factory=dict)


def train_heads(
    model: Any,
    draft: TrainableDraft,
    text: ReadText,
    *,
    loss: DraftLoss | None = None,
    steps: int = 200,
    lr: float = 1e-3,
    batch: int = 4,
    positions: int = 32,
    warmup: int = 20,
    weight_decay: float = 0.0,
    max_norm: float = 1.0,
    seed: int = 0,
    held_out: ReadText | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 100,
    progress: bool = True,
) -> TrainReport:
    """Train heads in place; the target does not change.

    A step takes ``batch`` pieces and ``positions`` places of them (a function of seed and step), rolls the heads out
    there with the text's own tokens, and moves their parameters by AdamW, the rate rising over ``warmup`` steps and
    falling to 0 as a cosine. Call it again for a second stage, for example on :func:`own_text`.

    Args:
        model: the target ``draft`` is attached to.
        draft: the heads.
        text: from :func:`read_text`.
        loss: default ``NextTokenLoss()``.
        steps, batch, positions: ``>= 1``.
        lr: ``> 0``.
        warmup: ``>= 0``.
        weight_decay, max_norm: ``>= 0``; max_norm 0 clips nothing.
        seed: of the choice of pieces and places.
        held_out: text on which the report compares before and after.
        checkpoint: file written every ``checkpoint_every`` steps and at the end; if it exists, the run it belongs to
            goes on from there, to the same bits.
        checkpoint_every: ``>= 1``.
        progress: show a progress bar (on a terminal).

    Raises:
        ValueError: pieces too short for the heads, a loss that is not finite, or a checkpoint of another run.
        FormatError: a file that is no checkpoint.

    Differs from paper: one schedule for all heads; the papers train far longer.
    Reference: the heads' papers.
    """
    check_int("steps", steps, low=1)
    check_int("checkpoint_every", checkpoint_every, low=1)
    check_real("lr", lr, low=0, low_open=True)
    check_int("warmup", warmup, low=0)
    check_real("max_norm", max_norm, low=0)
    objective = NextTokenLoss() if loss is None else loss
    run = {
        "draft": [draft.kind, draft.settings()],
        "text": text.digest(),
        "loss": objective.name,
        "settings": [steps, lr, batch, positions, warmup, weight_decay, max_norm, seed],
    }
    file = Checkpoint(checkpoint, run)
    with torch.inference_mode(False), torch.enable_grad():
        trainer = _Trainer(draft, objective, lr=lr, weight_decay=weight_decay, max_norm=max_norm)
        if (saved := file.load()) is not None:
            trainer.restore(saved)
        elif held_out is not None:
            trainer.report.before = evaluate_heads(model, draft, held_out)
        draft.train()
        first = len(trainer.report.losses)
        bar = tqdm(range(first, steps), desc=f"training {draft.kind}", disable=None if progress else True, leave=False)
        for step in bar:
            part, places = _choose(text, draft.num_heads, batch, positions, seed, step)
            rising, falling = min(1.0, (step + 1) / (warmup + 1)), 0.5 * (1 + math.cos(math.pi * step / steps))
            bar.set_postfix(loss=f"{trainer.step(part, places, lr * rising * falling):.3f}")
            if (step + 1) % checkpoint_every == 0 or step + 1 == steps:
                file.save(trainer.state())
        draft.eval()
    if held_out is not None:
        trainer.report.after = evaluate_heads(model, draft, held_out)
    return trainer.report


class _Trainer:
    """Heads, loss and optimizer of one run, and what it has done so far."""

    def __init__(
        self, draft: TrainableDraft, objective: DraftLoss, *, lr: float, weight_decay: float, max_norm: float
    ) -> None:
        self._draft, self._objective, self._max_norm = draft, objective, max_norm
        self._parameters = [p for p in draft.parameters() if p.requires_grad]
        decay = check_real("weight_decay", weight_decay, low=0)
        self._optimizer = torch.optim.AdamW(self._parameters, lr=lr, weight_decay=decay)
        self.report = TrainReport()

    def step(self, part: Batch, places: torch.Tensor, lr: float) -> float:
        """One step; returns the loss before it."""
        rollout = self._draft.rollout(part, places)
        detached = Rollout([x.detach() for x in rollout.logits], [x.detach() for x in rollout.states])
        self._objective.prepare(self._draft, part, places, detached)
        value = self._objective(self._draft, part, places, rollout)
        number = float(value.detach())
        if not math.isfinite(number):
            where = f"step {len(self.report.losses)}"
            raise ValueError(f"loss must stay finite, got {number} at {where}; lower lr = {lr:g}")
        self._optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        if self._max_norm > 0:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._max_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self.report.losses.append(number)
        return number

    def state(self) -> dict[str, Any]:
        return {
            "draft": self._draft.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "loss": self._objective.state_dict(),
            "losses": self.report.losses,
            "before": self.report.before,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._draft.load_state_dict(state["draft"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._objective.load_state_dict(state["loss"])
        self.report.losses, self.report.before = state["losses"], state["before"]


def _choose(
    text: ReadText, num_heads: int, batch: int, positions: int, seed: int, step: int
) -> tuple[Batch, torch.Tensor]:
    """Pieces and places of one step."""
    numbers = np.random.default_rng([seed, step])
    chosen = numbers.choice(len(text), min(check_int("batch", batch, low=1), len(text)), replace=False)
    rows = torch.from_numpy(chosen)
    return Batch(text.ids[rows], text.hidden[rows]), _places(text, num_heads, positions, numbers)


def _places(text: ReadText, num_heads: int, positions: int, numbers: np.random.Generator) -> torch.Tensor:
    """Places that have a token for every head, ascending."""
    room = text.ids.shape[1] - 1 - num_heads
    if room < 1:
        need = f"{num_heads + 2} tokens for {num_heads} heads"
        raise ValueError(
            f"text must have pieces of at least {need}, got {text.ids.shape[1]}; read it with a larger length"
        )
    count = min(check_int("positions", positions, low=1), room)
    return torch.from_numpy(np.sort(numbers.choice(room, count, replace=False)))


def evaluate_heads(
    model: Any, draft: TrainableDraft, text: ReadText, *, positions: int = 32, top: int = 10, seed: int = 0
) -> dict[str, list[Any]]:
    """Held-out quality of every head, with the text's own tokens before it.

    Args:
        model: the target.
        draft: the heads.
        text: from :func:`read_text`.
        positions: ``>= 1``; places per piece.
        top: ``>= 1``; ranks counted.
        seed: of the choice of places.

    Returns:
        ``"loss"``: ``[i]`` cross-entropy in nats over the text's tokens that can be drafted. ``"accuracy"``: ``[i][r]``
        share of places where the target's most probable token (of all) is the head's rank-r guess, what greedy decoding
        accepts; feed it to :func:`best_choices`.
    """
    places = _places(text, draft.num_heads, positions, np.random.default_rng(seed))
    output = head_weight(model)
    weight, bias = output[0].float(), None if output[1] is None else output[1].float()
    losses = [[0.0, 0] for _ in range(draft.num_heads)]
    hits = np.zeros((draft.num_heads, check_int("top", top, low=1)))
    with torch.no_grad():
        for i in range(0, len(text), 4):
            part = Batch(text.ids[i : i + 4], text.hidden[i : i + 4])
            for d, logits in enumerate(draft.rollout(part, places).logits):
                flat = logits.flatten(0, 1)
                wanted = draft.places(part.ids[:, places + 2 + d]).flatten()
                losses[d][0] += float(torch.nn.functional.cross_entropy(flat, wanted, ignore_index=-1, reduction="sum"))
                losses[d][1] += int((wanted >= 0).sum())
                best = torch.nn.functional.linear(part.hidden[:, places + 1 + d], weight, bias).argmax(-1)
                ranked = flat.topk(min(top, flat.shape[1])).indices
                found = ranked == draft.places(best).flatten()[:, None]
                hits[d, : ranked.shape[1]] += found.sum(0).numpy()
    return {
        "loss": [total / max(1, n) for total, n in losses],
        "accuracy": (hits / (len(text) * len(places))).tolist(),
    }
