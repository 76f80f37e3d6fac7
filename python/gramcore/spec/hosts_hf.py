"""Entry points in the shape of other engines: transformers' ``custom_generate`` and a batch proposer."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria, StopStringCriteria
from transformers.generation.utils import GenerateDecoderOnlyOutput

from gramcore._checks import check_int, check_real
from gramcore.spec.base import Context, CounterRng, Drafter, IntArray, LengthPolicy, Sampling, Verifier
from gramcore.spec.generation import generate
from gramcore.spec.guarded import GuardedDrafter
from gramcore.spec.suffix_drafter import SuffixDrafter

__all__ = ["BatchProposer", "hf_generate"]


def hf_generate(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any = None,
    stopping_criteria: Any = None,
    generation_config: Any = None,
    streamer: Any = None,
    drafter: Drafter | None = None,
    verifier: Verifier | None = None,
    policy: LengthPolicy | None = None,
    **model_kwargs: Any,
) -> Any:
    """Decoding function for ``model.generate(..., custom_generate=gramcore.spec.hf_generate)``.

    Processors and warpers are those transformers prepared, in its order, applied at every visited node; stopping
    criteria are asked after every token. With ``do_sample`` the seed is drawn from torch's default generator, so
    ``torch.manual_seed`` makes runs repeatable; the numbers are not those of transformers' own sampling.

    ``model.generate`` (5.24) hands neither ``streamer`` nor ``tokenizer`` on to a function. Bind the streamer to it as
    well, ``streamer=s, custom_generate=functools.partial(hf_generate, streamer=s)``, and give stop strings as
    ``stopping_criteria=[StopStringCriteria(tokenizer, strings)]``.

    Args:
        drafter: default ``SuffixDrafter(tree=True)``: a few more rows cost these models little.
        verifier, policy: as in :func:`generate`.

    Returns:
        ``(B, T + new)`` ids; shorter rows are filled with the pad token. With ``return_dict_in_generate`` they are the
        ``sequences`` of a ``GenerateDecoderOnlyOutput``.

    Raises:
        ValueError: embeddings instead of ids; beams; or scores, logits, attentions or hidden states asked for.

    Differs from paper: none.   Reference: arXiv:2211.17192, Algorithm 1.
    """
    if generation_config is None:
        raise ValueError("generation_config must be given by model.generate(..., custom_generate=hf_generate)")
    _check_config(generation_config)
    if model_kwargs.get("inputs_embeds") is not None:
        raise ValueError("inputs_embeds must be None with custom_generate=hf_generate, got embeddings; give input_ids")
    mask = model_kwargs.get("attention_mask")
    prompts = [
        row if mask is None else row[m.bool()] for row, m in zip(input_ids, _mask_rows(mask, input_ids), strict=True)
    ]
    criteria = [c for c in stopping_criteria or () if not isinstance(c, (MaxLengthCriteria, EosTokenCriteria))]
    limit = generation_config.max_length - input_ids.shape[1]
    result = generate(
        model,
        input_ids,
        attention_mask=mask,
        drafter=SuffixDrafter(tree=True) if drafter is None else drafter,
        verifier=verifier,
        policy=policy,
        processors=list(logits_processor or ()),
        temperature=1.0 if generation_config.do_sample else 0.0,
        generator=torch.default_generator if generation_config.do_sample else None,
        max_new_tokens=max(1, limit),
        eos_token_id=_ids(generation_config.eos_token_id),
        stop=[_Criteria(prompt, criteria) for prompt in prompts] if criteria else None,
        streamer=_Stream(streamer) if streamer is not None else None,
    )
    longest = max(len(s) for s in result.sequences)
    pad = generation_config.pad_token_id or 0
    rows = [s + [pad] * (longest - len(s)) for s in result.sequences]
    sequences: Any = torch.cat([input_ids, torch.tensor(rows, device=input_ids.device)], dim=1)
    return GenerateDecoderOnlyOutput(sequences) if generation_config.return_dict_in_generate else sequences


#: Settings a speculative loop cannot follow, and the values that ask for nothing.
_PLAIN = {
    "num_beams": 1,
    "penalty_alpha": None,
    "output_scores": False,
    "output_logits": False,
    "output_attentions": False,
    "output_hidden_states": False,
}


def _check_config(config: Any) -> None:
    """Refuse what a speculative loop cannot give, instead of leaving it out silently."""
    for name, plain in _PLAIN.items():
        value = getattr(config, name, plain)
        if value not in (plain, None) and value:
            raise ValueError(
                f"{name} must be {plain} with custom_generate=hf_generate, got {value}; use model.generate"
            )


def _mask_rows(mask: torch.Tensor | None, input_ids: torch.Tensor) -> Sequence[Any]:
    return [None] * len(input_ids) if mask is None else list(mask)


class _Criteria:
    """transformers' stopping criteria for one sequence; length and end tokens are the loop's own."""

    def __init__(self, prompt: torch.Tensor, criteria: Sequence[Any]) -> None:
        self._prompt = prompt
        self._criteria = criteria
        self.reason = "stop_string" if all(isinstance(c, StopStringCriteria) for c in criteria) else "stop"

    def __call__(self, new: list[int]) -> bool:
        ids = torch.cat([self._prompt, torch.tensor(new, device=self._prompt.device)])[None]
        return any(bool(torch.as_tensor(c(ids, None)).all()) for c in self._criteria)


class _Stream:
    """transformers' streamers take tensors."""

    def __init__(self, streamer: Any) -> None:
        self._streamer = streamer

    def put(self, ids: list[int]) -> None:
        for token in ids:
            self._streamer.put(torch.tensor([token]))

    def end(self) -> None:
        self._streamer.end()


def _ids(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return (int(value),) if isinstance(value, int) else tuple(int(t) for t in torch.as_tensor(value).reshape(-1))


class BatchProposer:
    """Chain drafts for many requests: ``propose(histories) -> drafts``, the shape serving engines call.

    One forked drafter per request follows its history: only tokens that are new since the last call are read.

    Args:
        drafter: prototype; default ``SuffixDrafter()``. Trees are cut to their first path.
        num_tokens: ``>= 1``; longest draft.
        draft_timeout_s: ``> 0``; a request's drafter that raises, or needs longer for one call, is switched off with a
            warning, and its drafts are empty from then on.

    Differs from paper: none.   Reference: Hu et al. 2024, arXiv:2411.10666.

    >>> BatchProposer(num_tokens=3).propose([[5, 6, 7, 8, 5, 6], [1, 2, 3]])
    [[7, 8, 5], []]
    """

    def __init__(self, drafter: Drafter | None = None, *, num_tokens: int = 8, draft_timeout_s: float = 1.0) -> None:
        self.drafter = SuffixDrafter() if drafter is None else drafter
        self.num_tokens = check_int("num_tokens", num_tokens, low=1)
        self.draft_timeout_s = check_real("draft_timeout_s", draft_timeout_s, low=0, low_open=True)
        self._requests: dict[Hashable, tuple[GuardedDrafter, IntArray]] = {}

    def propose(
        self, histories: Sequence[Sequence[int]], request_ids: Sequence[Hashable] | None = None
    ) -> list[list[int]]:
        """A draft per history. ``request_ids`` name the requests across calls; default: their place in the batch."""
        names = list(range(len(histories))) if request_ids is None else list(request_ids)
        if len(names) != len(histories):
            raise ValueError(f"request_ids must be one per history, got {len(names)} for {len(histories)}")
        return [self._one(name, np.array(h, np.int32)) for name, h in zip(names, histories, strict=True)]

    def forget(self, request_id: Hashable) -> None:
        """Drop a finished request."""
        if request_id in self._requests:
            self._requests.pop(request_id)[0].close()

    def _one(self, name: Hashable, history: IntArray) -> list[int]:
        if name not in self._requests:
            self._requests[name] = GuardedDrafter(self.drafter, self.draft_timeout_s), np.empty(0, np.int32)
        drafter, seen = self._requests[name]
        both = min(len(seen), len(history))
        different = np.flatnonzero(seen[:both] != history[:both])
        common = int(different[0]) if len(different) else both
        if common < len(seen):
            drafter.rollback(len(seen) - common)
        drafter.observe(history[common:])
        self._requests[name] = (drafter, history)
        if not len(history):
            return []
        tree = drafter.propose(Context(history, len(history), Sampling(), CounterRng(0)), self.num_tokens)
        if tree is None:
            return []
        path: list[int] = []
        row = 0
        while len(children := tree.children(row)):
            path.append(int(tree.tokens[children[0]]))
            row = int(children[0]) + 1
        return path
