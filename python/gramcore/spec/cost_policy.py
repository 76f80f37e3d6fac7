"""The default length policy: what rows cost on this machine against how often drafts stand in this text."""

from __future__ import annotations

import bisect
import math
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from gramcore._checks import check_int, check_real
from gramcore.spec.base import Context, Drafter, DraftTree, FloatArray, LengthPolicy, StepRecord
from gramcore.spec.costs import RowCosts, row_costs

__all__ = ["CostModelLength"]

#: Strengths (match lengths) from which on a draft belongs to the next class.
_CLASSES = (1, 2, 4, 8, 16)
#: First guesses by class (0: unknown strength): a draft's first token stands, and a later one if those before do.
#: Rounded shares of suffix drafts in 24 answers of SmolLM2-135M-Instruct to questions of all kinds (96 tokens each);
#: where matches are short about a tenth lower: too much hope costs a short answer more than too much care.
_PRIORS = ((0.42, 0.72), (0.17, 0.45), (0.42, 0.58), (0.64, 0.74), (0.83, 0.82), (0.95, 0.96))
_PRIOR_WEIGHT = 4.0  # drafts that a first guess counts for
_CHEAP = 0.02  # of a plain step: a drafter that is always asked
_LEAST_GAIN = 1.05  # expected tokens per second over plain decoding's, below which drafts do not pay
_CARE, _CREDIT = 0.15, 1.0  # gain asked for on top per plain step lost lately; what earlier gains may make up for
_DOUBT = 0.1  # about the logarithm of a plain step's time, beyond which drafts must be better by that much
_PLAIN_STEPS, _CLEAR_GAIN = 24, 1.5  # a plain step is measured that often, unless drafts gain that much
_PROBE_NODES, _PROBE_STEPS = 4, (8, 128)  # size of a probe; steps between probes, at first and at last


class _Acceptance:
    """How often the i-th node of a draft stood, with exponential forgetting."""

    def __init__(self, max_nodes: int, keep: float, first: float, later: float) -> None:
        self._keep, self._first, self._later = keep, first, later
        self._offered = np.zeros(max_nodes)
        self._stood = np.zeros(max_nodes)

    def fade(self) -> None:
        """One more draft begins: earlier ones count less."""
        self._offered *= self._keep
        self._stood *= self._keep

    def saw(self, nodes: list[int], stood: list[int]) -> None:
        """What became of these nodes, each named once."""
        self._offered[nodes] += 1
        self._stood[stood] += 1

    def nodes(self, count: int) -> FloatArray:
        """Probability that each node stands; nodes seldom offered borrow from the one before."""
        shares, before = [], self._first / self._later
        for offered, stood in zip(self._offered[:count].tolist(), self._stood[:count].tolist(), strict=True):
            before = (stood + _PRIOR_WEIGHT * self._later * before) / (offered + _PRIOR_WEIGHT)
            shares.append(before)
        return np.array(shares)


class _Hindsight:
    """A proposed tree beside the text that was then emitted: which nodes would have stood, verified or not."""

    def __init__(self, tree: DraftTree, kind: _Acceptance, most: int) -> None:
        self._kind = kind
        self._tokens, self._parents = tree.tokens[:most].tolist(), tree.parents[:most].tolist()
        self._open = list(range(len(self._tokens)))
        self._node = -1
        kind.fade()

    def follow(self, emitted: Iterable[int]) -> bool:
        """Go on along the next tokens; whether there is more to learn."""
        for token in emitted:
            stood = next((n for n in self._open if self._parents[n] == self._node and self._tokens[n] == token), -2)
            if stood < 0:  # nothing else can stand
                self._kind.saw(self._open, [])
                return False
            fallen: set[int] = set()
            later = []
            for node in self._open:
                if node != stood and (self._parents[node] == self._node or self._parents[node] in fallen):
                    fallen.add(node)
                elif node != stood:
                    later.append(node)
            self._kind.saw([stood, *fallen], [stood])
            self._node, self._open = stood, later
            if not later:
                return False
        return True


class _Probes:
    """When to try what seems not to pay: at growing distances, from the start again once it paid."""

    def __init__(self) -> None:
        self.paid()

    def paid(self) -> None:
        self._silent, self._distance = 0, _PROBE_STEPS[0]

    def due(self) -> bool:
        self._silent += 1
        if self._silent < self._distance:
            return False
        self._silent, self._distance = 0, min(2 * self._distance, _PROBE_STEPS[1])
        return True


class CostModelLength(LengthPolicy):
    """Drafts as much as pays on this machine, and nothing when nothing pays.

    Verifies the first ``n`` nodes of a draft, n maximising ``E(n) / C(n + 1)``: ``E(n) = 1 + sum_{i <= n} P_i`` the
    expected tokens of a step and ``C`` the time of a forward by its rows, :class:`RowCosts`. Nothing is verified
    unless that is at least 5 % more than plain decoding's ``1 / C(1)``, and 15 % more for every plain step of time that
    recent drafts of this request have lost: a text in which first guesses fail costs little over plain decoding.

    * ``C`` is measured while decoding and belongs to the machine: all requests of the process on one model share it,
      so that only the first one learns what rows cost.
    * ``P_i`` belongs to the text: the share of earlier drafts of like strength (match length) whose i-th node stood,
      with exponential forgetting and a first guess. A deterministic draft need not be verified for that, it is compared
      with the text that came: until evidence says that they pay, drafts of a cheap drafter cost nothing but their
      proposal. Random drafts show their worth only when verified; while they do not pay, a short one is tried now and
      then, at growing distances.
    * A drafter whose call takes more than 2 % of a plain step is asked only when that pays too, else now and then.

    Clocks change how many tokens are drafted, never which tokens a lossless rule for deterministic drafts emits; with
    ``costs=RowCosts.fixed(...)`` no clock is read and the number is a function of the text.

    Args:
        max_nodes: ``>= 1``; longest draft.
        memory_steps: ``>= 1``; drafts after which an observation counts half.
        first: in ``[1, max_nodes]``; longest draft before the drafter's time is known.
        costs: of rows; None: those shared on this model, :func:`row_costs`.

    Differs from paper: C(n) and the acceptance are learned while decoding instead of before; switches itself off.
    Reference: expected length of Leviathan et al. 2022, arXiv:2211.17192, section 3.

    >>> from gramcore.spec import DraftTree, RowCosts
    >>> policy = CostModelLength(costs=RowCosts.fixed({1: 1.0, 11: 1.5}))
    >>> policy.cut(DraftTree.chain([7] * 10, strength=20)), policy.cut(DraftTree.chain([7] * 10, strength=1))
    (10, 2)
    """

    def __init__(
        self, *, max_nodes: int = 32, memory_steps: float = 24.0, first: int = 10, costs: RowCosts | None = None
    ) -> None:
        if costs is not None and not isinstance(costs, RowCosts):
            raise TypeError(f"costs must be a RowCosts or None, got {type(costs).__name__}")
        self.max_nodes = check_int("max_nodes", max_nodes, low=1)
        self.memory_steps = check_real("memory_steps", memory_steps, low=1)
        self.first = check_int("first", first, low=1, high=max_nodes)
        self.costs = costs
        self._keep = 0.5 ** (1 / self.memory_steps)
        self._used = RowCosts() if costs is None else costs
        self._drafter: Any = self  # whose time is remembered; before a request names it, nobody's
        self._kinds = [_Acceptance(max_nodes, self._keep, *prior) for prior in _PRIORS]
        self._probes = [_Probes() for _ in _PRIORS]  # of verification
        self._questions = _Probes()  # of a drafter whose time does not pay
        self._last = 0  # class of the last draft, for decisions before drafting
        self._tried: list[_Hindsight] = []
        self._sees_text = True  # records say what was emitted
        self._since_plain = 0  # steps since the last one without drafts
        self._lost = 0.0  # plain steps of time that recent drafts have cost over what they saved
        self._batch, self._others, self._context = 1, 0, 0  # of the last step: sequences, rows of the others, length
        self._known_before = self._used.measured

    def begin(self, host: Any, drafter: Drafter) -> None:
        if self.costs is None:
            self._used = row_costs(host)
        self._drafter = drafter if isinstance(drafter, Hashable) else self
        self._used.new_request()
        self._known_before = self._used.measured

    def budget(self, ctx: Context | None) -> int:
        if ctx is not None:
            self._context = len(ctx.tokens)
        draft_s = self._used.draft_seconds(self._drafter)
        if draft_s is None:
            return self.first
        if draft_s < _CHEAP * self._plain_seconds():
            return self.max_nodes
        if few := self._choose(self._last, self.max_nodes, draft_s):
            self._questions.paid()
            return few
        return min(_PROBE_NODES, self.max_nodes) if self._questions.due() else 0

    def cut(self, tree: DraftTree) -> int:
        few = min(len(tree), self.max_nodes)
        if not few:
            return 0
        place = bisect.bisect_right(_CLASSES, tree.strength)
        if tree.logq is None:
            self._tried.append(_Hindsight(tree, self._kinds[place], self.max_nodes))
        free = tree.logq is None and self._sees_text  # evidence without verification
        draft_s = self._used.draft_seconds(self._drafter)
        if not free and draft_s is not None and draft_s >= _CHEAP * self._plain_seconds():
            return few  # decided before drafting
        if best := self._choose(place, few, 0.0):
            self._probes[place].paid()
            return best
        return min(_PROBE_NODES, few) if not free and self._probes[place].due() else 0

    def _plain_seconds(self) -> float:
        if not self._others:
            return self._used.plain_seconds(context=self._context, batch=self._batch)
        return float(self._used.seconds(self._batch + self._others, context=self._context, batch=self._batch))

    def _choose(self, place: int, most: int, draft_s: float) -> int:
        """The best length of at most ``most`` nodes for drafts of this class, 0 if none pays."""
        rows = self._batch + self._others + np.arange(most + 1)
        seconds = np.maximum.accumulate(self._used.seconds(rows, context=self._context, batch=self._batch))
        gain = (self._batch + np.cumsum(self._kinds[place].nodes(most))) / (seconds[1:] + draft_s)
        best = int(np.argmax(gain))
        better = float(gain[best] * seconds[0]) / self._batch
        doubt = max(0.0, self._used.plain_doubt(context=self._context, batch=self._batch) - _DOUBT)
        stale = self._since_plain >= _PLAIN_STEPS and better < _CLEAR_GAIN and self._used.learns
        least = (_LEAST_GAIN + _CARE * max(0.0, self._lost)) * math.exp(doubt)
        return best + 1 if better > least and not stale else 0

    def observe(self, step: StepRecord) -> None:
        rows = step.rows or step.drafted + 1
        self._batch, self._others = step.batch, max(0, rows - step.drafted - step.batch)
        self._since_plain = self._since_plain + 1 if step.drafted else 0
        seconds = step.target_s + step.verify_s
        self._used.observe(rows, seconds, context=self._context, batch=self._batch)
        if step.asked:
            self._used.observe_draft(self._drafter, step.draft_s)
        self._sees_text = step.emitted is not None
        place = bisect.bisect_right(_CLASSES, step.strength)
        self._lost *= self._keep
        if step.drafted:
            self._last = place
            ratio = float(self._used.ratio(rows, context=self._context, batch=self._batch))
            share = step.drafted / max(1, rows - step.batch)  # of the rows that drafts added
            self._lost = max(-_CREDIT, self._lost + (ratio - 1.0) * share - step.accepted)
        if step.emitted is None or (step.drafted and not step.fixed):
            self._tried.clear()
            self._learn_verified(step, self._kinds[place])
        else:
            self._tried = [tree for tree in self._tried if tree.follow(step.emitted)]

    def _learn_verified(self, step: StepRecord, kind: _Acceptance) -> None:
        if not step.drafted:
            return
        path = range(step.accepted) if step.path is None else step.path
        most = min(step.drafted, self.max_nodes)
        kind.fade()
        kind.saw(list(range(most)), [node for node in path if node < most])

    def report(self) -> dict[str, float]:
        """Row costs in use: what was known before this request, the time of a plain step, and ratios to it."""
        notes = {
            "row costs known before, measurements": float(self._known_before),
            "plain step, ms": 1e3 * self._plain_seconds(),
        }
        for nodes in (1, 3, 7, 15):
            ratio = self._used.ratio(self._batch * (nodes + 1), context=self._context, batch=self._batch)
            notes[f"{nodes + 1} rows over 1"] = float(ratio)
        return notes

    def fork(self) -> CostModelLength:
        """The same settings and ``costs``, with no drafts seen."""
        return CostModelLength(
            max_nodes=self.max_nodes, memory_steps=self.memory_steps, first=self.first, costs=self.costs
        )
