"""What a generation did: tokens and statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gramcore.spec.base import StepRecord

__all__ = ["GenerationResult", "SpecStats"]


@dataclass
class SpecStats:
    """Counts and times of one generation (summed over the rows of a batch; times are shared by the rows).

    Attributes:
        steps: target forwards after the prompt, times the rows that took part.
        emitted: new tokens.
        drafted: nodes verified. accepted: nodes emitted.
        offered_at, accepted_at: ``[i]`` steps whose draft reached depth ``i + 1``, and that accepted that far.
        prefill_s, draft_s, target_s, verify_s: wall seconds.
        stop_reasons: per sequence: ``"eos"``, ``"length"``, ``"context"``, ``"grammar"`` or ``"stop_string"``.
    """

    steps: int = 0
    emitted: int = 0
    drafted: int = 0
    accepted: int = 0
    offered_at: list[int] = field(default_factory=list)
    accepted_at: list[int] = field(default_factory=list)
    prefill_s: float = 0.0
    draft_s: float = 0.0
    target_s: float = 0.0
    verify_s: float = 0.0
    stop_reasons: list[str] = field(default_factory=list)

    def add(self, step: StepRecord) -> None:
        """Count one step of one sequence (times are added by the loop)."""
        self.steps += 1
        self.drafted += step.drafted
        self.accepted += step.accepted
        missing = max(step.offered_depth, step.accepted) - len(self.offered_at)
        self.offered_at += [0] * missing
        self.accepted_at += [0] * missing
        for i in range(step.offered_depth):
            self.offered_at[i] += 1
        for i in range(step.accepted):
            self.accepted_at[i] += 1

    @property
    def tokens_per_step(self) -> float:
        """Emitted tokens per target forward and sequence."""
        return self.emitted / self.steps if self.steps else 0.0

    @property
    def seconds(self) -> float:
        """Draft, target and verification time, without the prompt."""
        return self.draft_s + self.target_s + self.verify_s

    @property
    def tokens_per_s(self) -> float:
        """Emitted tokens per second after the prompt."""
        return self.emitted / self.seconds if self.seconds > 0 else 0.0

    @property
    def accepted_by_position(self) -> list[float]:
        """``[i]``: share of the drafts that reached depth ``i + 1`` whose first ``i + 1`` tokens were accepted."""
        return [a / o if o else 0.0 for a, o in zip(self.accepted_at, self.offered_at, strict=True)]

    def __str__(self) -> str:
        total = self.seconds or 1.0
        lines = [
            f"{self.emitted} tokens in {self.steps} steps ({self.tokens_per_step:.2f} per step), "
            f"{self.tokens_per_s:.1f} tokens/s; prompt {self.prefill_s * 1e3:.0f} ms",
            f"drafted {self.drafted}, accepted {self.accepted}"
            + (f" ({self.accepted / self.drafted:.0%})" if self.drafted else ""),
            f"time: draft {self.draft_s / total:.1%}, target {self.target_s / total:.1%}, "
            f"verify {self.verify_s / total:.1%}",
        ]
        if self.accepted_at:
            shares = " ".join(f"{share:.2f}" for share in self.accepted_by_position[:16])
            lines.append(f"accepted by position: {shares}")
        if self.stop_reasons:
            lines.append("stopped by: " + ", ".join(self.stop_reasons))
        return "\n".join(lines)


@dataclass
class GenerationResult:
    """New tokens (without the prompt) of every sequence, and statistics."""

    sequences: Sequence[list[int]]
    stats: SpecStats

    @property
    def tokens(self) -> list[int]:
        """The new tokens of a single sequence.

        Raises:
            ValueError: the batch has several; read ``sequences``.
        """
        if len(self.sequences) != 1:
            raise ValueError(f"tokens must be read from a batch of one, got {len(self.sequences)}; use sequences")
        return self.sequences[0]
