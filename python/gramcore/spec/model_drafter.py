"""Drafts from a small model, from the first layers of the target, or from the target with a short context."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gramcore._checks import check_int
from gramcore.spec.base import Context, Drafter, DraftTree, FloatArray, IntArray, Sampling, TargetRows
from gramcore.spec.restrict import restrict_head
from gramcore.spec.transformers_host import TransformersHost
from gramcore.spec.trees import ChainTree, TreeBuilder
from gramcore.spec.vocabulary import FrequencyVocabulary, build_over, vocabulary_ids

__all__ = ["ModelDrafter", "early_exit"]


class ModelDrafter(Drafter):
    """Another causal language model drafts; a builder decides the tree.

    Deterministic builders see the draft's softmax at temperature 1; random ones the law of the request (temperature,
    top-k, top-p), restricted to ``vocabulary`` when given, which is the law the drafts are truly drawn from.

    Args:
        model: a transformers model with the target's vocabulary; see :func:`early_exit` for the target's own layers.
        builder: default ``ChainTree(depth=5, min_prob=0.4)``.
        context: ``>= 1`` or None; the draft sees about the last so many tokens (between one and two times as many).
        vocabulary: ids the draft may propose, a :class:`FrequencyVocabulary` or plain ids; the draft's head then has
            these rows only. None: all.

    Differs from paper: none.
    Reference: Leviathan et al. 2022, arXiv:2211.17192; vocabulary: Zhao et al. 2025, arXiv:2502.14856 (FR-Spec).

    >>> ModelDrafter(None)
    Traceback (most recent call last):
    ...
    TypeError: model must be a transformers causal language model, got NoneType
    """

    bounded = True

    def __init__(
        self,
        model: Any,
        *,
        builder: TreeBuilder | None = None,
        context: int | None = None,
        vocabulary: FrequencyVocabulary | Sequence[int] | npt.NDArray[np.integer] | None = None,
    ) -> None:
        self.model = model
        self.builder = ChainTree(depth=5, min_prob=0.4) if builder is None else builder
        self.context = None if context is None else check_int("context", context, low=1)
        self._host = TransformersHost(model)
        self.vocabulary = vocabulary_ids(vocabulary, self._host.vocab_size)
        if self.vocabulary is not None:
            self._host = TransformersHost(restrict_head(model, self.vocabulary))
        self._cached: list[int] = []  # tokens whose keys and values are in the cache
        self._start = 0  # position of the first of them in the text
        self._capacity = 0

    def propose(self, ctx: Context, budget: int) -> DraftTree:
        with torch.inference_mode():
            self._follow([int(t) for t in ctx.tokens], budget)
            sampling = ctx.sampling if self.builder.random and ctx.sampling.temperature > 0 else Sampling(1.0)
            laws = _DraftLaws(self._host, int(ctx.tokens[-1]), sampling)
            return build_over(self.vocabulary, self.builder, laws, budget, ctx.rng)

    def _follow(self, tokens: list[int], budget: int) -> None:
        """Bring the cache to everything before the last token."""
        wanted = tokens[self._start : -1]
        common = 0
        while common < min(len(wanted), len(self._cached)) and wanted[common] == self._cached[common]:
            common += 1
        too_long = self.context is not None and len(wanted) > 2 * self.context
        if too_long or len(wanted) + budget + 1 > self._capacity or (common == 0 and self._cached):
            self._start = 0 if self.context is None else max(0, len(tokens) - 1 - self.context)
            wanted = tokens[self._start : -1]
            self._capacity = 2 * len(wanted) + 4 * budget + 256
            self._host.open(1, self._capacity, want_hidden=self.builder.needs_hidden)
            self._host.prefill([np.array(wanted, np.int32)])
        else:
            self._host.cache.lengths[0] = common
            fresh = np.array(wanted[common:], np.int32)
            if len(fresh):
                chain = DraftTree.chain(fresh[1:])
                self._host.forward([int(fresh[0])], [(chain.tokens, chain.parents)])
                self._host.commit(0, np.arange(len(chain), dtype=np.int32))
        self._cached = wanted

    def observe(self, accepted: IntArray) -> None:
        """The committed text comes with the context; the cache follows it there."""

    def rollback(self, n: int) -> None:
        """The cache follows the context, shorter ones too."""

    def fork(self) -> ModelDrafter:
        return ModelDrafter(self.model, builder=self.builder, context=self.context, vocabulary=self.vocabulary)


class _DraftLaws:
    """Laws of a draft model at the root and at the nodes of a tree; the rows of the last call stay computed."""

    def __init__(self, host: TransformersHost, root: int, sampling: Sampling) -> None:
        self._host, self._root, self._sampling = host, root, sampling
        self._paths: list[tuple[int, ...]] = []
        self._laws: FloatArray = np.empty((0, 0))
        #: ``(n + 1, width)`` of the last call, if the host keeps hidden states.
        self.hidden: Any = None

    def __call__(self, tree: DraftTree) -> FloatArray:
        out = self._host.forward([self._root], [(tree.tokens, tree.parents)])
        self.hidden = None if out.hidden is None else out.hidden[0]
        paths = [tuple(int(tree.tokens[node]) for node in tree.path_to(i)) for i in range(-1, len(tree))]
        known = {path: i for i, path in enumerate(self._paths)}
        laws = np.empty((len(paths), out.logits[0].shape[-1]))
        for row, path in enumerate(paths):
            laws[row] = self._laws[known[path]] if path in known else self._law(out.logits[0][row])
        self._paths, self._laws = paths, laws
        return laws

    def _law(self, logits: torch.Tensor) -> FloatArray:
        with np.errstate(divide="ignore"):
            return np.log(TargetRows(logits.float()[None], self._sampling).probs(0))


def early_exit(model: Any, num_layers: int) -> Any:
    """The first ``num_layers`` layers of a transformers model with its final norm and head, sharing all weights.

    Args:
        model: with ``model.model.layers``, as Llama and its relatives.
        num_layers: in [1, layers of the model].

    Raises:
        ValueError: no such layers.
    """
    layers = getattr(getattr(model, "model", None), "layers", None)
    if layers is None:
        raise ValueError(f"model must have model.layers for early exit, got {type(model).__name__}")
    check_int("num_layers", num_layers, low=1, high=len(layers))
    outer, inner = copy.copy(model), copy.copy(model.model)
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:num_layers]
    inner._modules = {**model.model._modules, "layers": torch.nn.ModuleList(list(layers)[:num_layers])}
    outer._modules = {**model._modules, "model": inner}
    outer.config = inner.config = config
    return outer
