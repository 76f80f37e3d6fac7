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
        emitted: new tokens. from_prompt: of these the first of each sequence, which the prompt's forward gave.
        drafted: nodes verified. accepted: nodes emitted.
        offered_at, reached_at, accepted_at: ``[i]`` steps whose draft had depth ``i + 1``; of these, those that
            accepted the ``i`` tokens before it; those that accepted that one too.
        prefill_s, draft_s, target_s, verify_s: wall seconds.
        draft_ends: why trees were no larger: ``"budget"`` (full), ``"drafter"`` (it stopped by itself), ``"no match"``,
            ``"policy cut"``, ``"policy off"``, ``"no room"`` or ``"no drafter"``; number of steps.
        stop_reasons: per sequence: ``"eos"``, ``"length"``, ``"context"``, ``"grammar"``, ``"stop_string"`` or
            ``"stop"``.
        notes: what policy (of the first sequence) and verifier report: :meth:`LengthPolicy.report`,
            :meth:`Verifier.report`, :class:`AcceptanceMeter`.
    """

    steps: int = 0
    emitted: int = 0
    from_prompt: int = 0
    drafted: int = 0
    accepted: int = 0
    offered_at: list[int] = field(default_factory=list)
    reached_at: list[int] = field(default_factory=list)
    accepted_at: list[int] = field(default_factory=list)
    prefill_s: float = 0.0
    draft_s: float = 0.0
    target_s: float = 0.0
    verify_s: float = 0.0
    draft_ends: dict[str, int] = field(default_factory=dict)
    stop_reasons: list[str] = field(default_factory=list)
    notes: dict[str, float] = field(default_factory=dict)

    def add(self, step: StepRecord, draft_end: str = "") -> None:
        """Count one step of one sequence (times are added by the loop)."""
        self.steps += 1
        self.drafted += step.drafted
        self.accepted += step.accepted
        if draft_end:
            self.draft_ends[draft_end] = self.draft_ends.get(draft_end, 0) + 1
        depth = max(step.offered_depth, step.accepted)
        for counts in (self.offered_at, self.reached_at, self.accepted_at):
            counts += [0] * (depth - len(counts))
        for i in range(depth):
            self.offered_at[i] += 1
            self.reached_at[i] += step.accepted >= i
            self.accepted_at[i] += step.accepted > i

    @property
    def tokens_per_step(self) -> float:
        """Tokens emitted per target forward after the prompt, and sequence."""
        return (self.emitted - self.from_prompt) / self.steps if self.steps else 0.0

    @property
    def seconds(self) -> float:
        """Draft, target and verification time, without the prompt."""
        return self.draft_s + self.target_s + self.verify_s

    @property
    def tokens_per_s(self) -> float:
        """Tokens emitted per second after the prompt."""
        return (self.emitted - self.from_prompt) / self.seconds if self.seconds > 0 else 0.0

    @property
    def accepted_by_position(self) -> list[float]:
        """``[i]``: share of the drafts of depth ``> i`` whose first ``i + 1`` tokens were accepted."""
        return [a / o if o else 0.0 for a, o in zip(self.accepted_at, self.offered_at, strict=True)]

    @property
    def accepted_given_before(self) -> list[float]:
        """``[i]``: share of the drafts of depth ``> i`` with ``i`` tokens accepted whose next one was accepted too."""
        return [a / r if r else 0.0 for a, r in zip(self.accepted_at, self.reached_at, strict=True)]

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
            for name, shares in (
                ("accepted by position", self.accepted_by_position),
                ("given those before", self.accepted_given_before),
            ):
                lines.append(f"{name}: " + " ".join(f"{share:.2f}" for share in shares[:16]))
        if self.draft_ends:
            ends = sorted(self.draft_ends.items(), key=lambda item: -item[1])
            lines.append("drafts ended by: " + ", ".join(f"{name} {count}" for name, count in ends))
        lines += [f"{name}: {value:.4g}" for name, value in self.notes.items()]
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
