"""PPD: trained prompt tokens that guess further tokens in the forward that verifies a draft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from gramcore._checks import check_int
from gramcore._core import spec as _native
from gramcore.spec.base import Drafter, IntArray
from gramcore.spec.generation import as_host
from gramcore.spec.heads.base import Batch, DraftHeads, Rollout
from gramcore.spec.host import Host, TreeOutput
from gramcore.spec.sparse_trees import SparsePlan, SparseTree, sparse_plan
from gramcore.spec.transformers_host import embed_with
from gramcore.spec.trees import TreeBuilder, typical_accuracy

__all__ = ["PromptTokenHeads", "PromptTokenHost"]


class PromptTokenHeads(DraftHeads):
    """Prompt tokens: embeddings e_1 .. e_m that stand behind a token and make the target guess the m tokens after next.

    ``logits_i = H mean_g target(x_{<= t}, e_{g,1} .. e_{g,i+1})`` at the last of them, g over independent copies: the
    target's own layers do the work, in the forward that verifies the drafts. Parameters: ``ensemble m W``. Decode with
    ``generate(heads.target(model), ..., drafter=heads.drafter())``.

    Args:
        hidden_size, vocab_size: of the target; see :meth:`for_model`.
        num_heads: in [1, 64]; m.
        ensemble: in [1, 64]; copies whose states are averaged.
        vocabulary: ids that may be drafted; None: all.

    Differs from paper: the loss is the caller's (:class:`DistillLoss` is the paper's); start at the mean embedding.
    Reference: Chen et al. 2024, arXiv:2405.18628 (PPD), sections 3 and 4.

    >>> PromptTokenHeads(hidden_size=8, vocab_size=16, num_heads=2).prompts.shape
    torch.Size([1, 2, 8])
    """

    kind = "prompt_tokens"
    regressive: ClassVar[bool] = False

    def __init__(
        self, *, hidden_size: int, vocab_size: int, num_heads: int = 3, ensemble: int = 1, vocabulary: Any = None
    ) -> None:
        super().__init__(hidden_size=hidden_size, vocab_size=vocab_size, num_heads=num_heads, vocabulary=vocabulary)
        self.ensemble = check_int("ensemble", ensemble, low=1, high=64)
        self.prompts = nn.Parameter(torch.randn(self.ensemble, self.num_heads, hidden_size))
        self._plan: SparsePlan | None = None
        self._model: list[Any] = []  # not a submodule: its weights are not ours

    @property
    def plan(self) -> SparsePlan:
        """Which nodes carry how many prompt tokens; set it to one for measured accuracies and costs."""
        if self._plan is None:
            m = self.num_heads
            self._plan = sparse_plan(typical_accuracy(m, 6), max(24, 4 * m))
        return self._plan

    @plan.setter
    def plan(self, plan: SparsePlan) -> None:
        if len(plan.trees) != self.num_heads + 1:
            raise ValueError(f"plan must be for {self.num_heads} guesses, got one for {len(plan.trees) - 1}")
        self._plan = plan

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "ensemble": self.ensemble}

    def attach(self, model: Any) -> None:
        super().attach(model)
        self._model = [model]

    def start(self) -> None:
        with torch.no_grad():
            self.prompts.mul_(self.target_embedding.std()).add_(self.target_embedding.mean(0))

    def target(self, model: Any) -> Any:
        return PromptTokenHost(model, self)

    def drafter(self, *, builder: TreeBuilder | None = None) -> Drafter:
        return super().drafter(builder=SparseTree(plan=self.plan) if builder is None else builder)

    def step(
        self,
        index: int,
        state: torch.Tensor,
        tokens: torch.Tensor,
        past: Any = None,
        at: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if state.shape[-1] != self.num_heads * self.hidden_size:
            raise ValueError("model must be heads.target(model) for prompt tokens, got states of another width")
        width = self.hidden_size
        return state, self.target_logits(state[..., index * width : (index + 1) * width])

    def rollout(self, batch: Batch, positions: torch.Tensor) -> Rollout:
        """As the class says; only the text's ids are used. Gradients reach the prompt tokens through the target."""
        model, (count, length) = self._model[0], batch.ids.shape
        chain = np.arange(-1, length - 2, dtype=np.int32)
        tokens, parents, where = with_prompts(self, chain, _counts(length, positions, self.num_heads))
        ids = torch.cat([batch.ids, torch.as_tensor(tokens).expand(count, -1)], 1)
        mask = torch.empty(1, 1, ids.shape[1], ids.shape[1])
        _native.fill_tree_mask(parents, 0, 0, mask[0, 0])
        embedded = embed_with(self.prompts.flatten(0, 1), ids, model.get_input_embeddings(), self.vocab_size)
        out = functional_call(
            model,
            {name: value.detach() for name, value in model.named_parameters()},
            kwargs={
                "inputs_embeds": embedded,
                "attention_mask": mask.expand(count, -1, -1, -1).to(embedded.dtype),
                "position_ids": torch.as_tensor(_native.tree_depths(parents)).long().expand(count, -1),
                "use_cache": False,
                "output_hidden_states": True,
            },
        )
        states = out.hidden_states[-1].float()[:, torch.from_numpy(where[positions.numpy()])].mean(-2)  # (B, P, m, W)
        parts = list(states.unbind(2))
        return Rollout([self.target_logits(part) for part in parts], parts)


class PromptTokenHost(Host):
    """Runs trees with prompt tokens behind their nodes; a row's hidden state is what its prompt tokens came to.

    Hidden states are ``(n + 1, m W)``, NaN for prompt tokens that a row did not carry.

    Args:
        model: what ``generate`` takes, with the weights the heads were trained for: a transformers model, the native
            decoder, or another host that takes embedding rows (:meth:`Host.forward_embedded`).
        heads: their plan says how many prompt tokens a node carries.

    Raises:
        ValueError: a model of another vocabulary.
    """

    def __init__(self, model: Any, heads: PromptTokenHeads) -> None:
        self._host, self._heads = as_host(model), heads
        self.vocab_size = self._host.vocab_size
        if self.vocab_size != heads.vocab_size:
            raise ValueError(f"model must have {heads.vocab_size} ids as the heads' target, got {self.vocab_size}")
        limit = self._host.context_limit
        self.context_limit = None if limit is None else max(1, limit - heads.num_heads)
        self._want_hidden = False

    @property
    def model_key(self) -> Any:
        return self._heads  # rows that carry prompt tokens cost more than the model's own

    def open(self, batch: int, capacity: int, *, want_hidden: bool = False) -> None:
        room = 257 * self._heads.num_heads * self._heads.ensemble if want_hidden else 0
        self._host.open(batch, capacity + room, want_hidden=want_hidden)
        self._want_hidden = want_hidden

    def prefill(self, prompts: Sequence[IntArray]) -> TreeOutput | None:
        out = self._host.prefill(prompts)  # no prompt tokens there: its states are not what the heads read
        return None if out is None else TreeOutput(out.logits)

    def commit(self, sequence: int, path: IntArray) -> None:
        self._host.commit(sequence, path)

    def select(self, sequences: Sequence[int]) -> None:
        self._host.select(sequences)

    def forward(self, roots: Sequence[int], trees: Sequence[tuple[IntArray, IntArray]]) -> TreeOutput:
        if not self._want_hidden:
            return self._host.forward(roots, trees)
        grown = [with_prompts(self._heads, parents, self._heads.plan.counts(parents)) for _, parents in trees]
        full = [
            (np.concatenate([tokens, new]), parents)
            for (tokens, _), (new, parents, _) in zip(trees, grown, strict=True)
        ]
        rows = [1 + len(tokens) for tokens, _ in trees]
        extra = self._heads.prompts.detach().flatten(0, 1).float().contiguous()
        out = self._host.forward_embedded(roots, full, extra, rows)
        states = []
        for hidden, count, (_, _, where) in zip(out.hidden, rows, grown, strict=True):
            came = hidden.new_full((count, self._heads.num_heads, hidden.shape[-1]), float("nan"))
            at, depth = np.nonzero(where[:, :, 0] >= 0)
            came[at, depth] = hidden[torch.from_numpy(where[at, depth])].mean(1)
            states.append(came.flatten(1))
        return TreeOutput(out.logits, states)


def with_prompts(
    heads: PromptTokenHeads, parents: IntArray, counts: Sequence[int]
) -> tuple[IntArray, IntArray, np.ndarray]:
    """Chains of prompt tokens behind the rows of a tree.

    Returns:
        Ids of the new nodes (V and above), parents of all nodes, and ``(rows, m, ensemble)`` the row of each prompt
        token, -1 where there is none.
    """
    ids: list[int] = []
    above = parents.tolist()
    where = np.full((len(counts), heads.num_heads, heads.ensemble), -1)
    for row, count in enumerate(counts):
        for copy in range(heads.ensemble):
            parent = row - 1
            for depth in range(count):
                above.append(parent)
                parent = len(above) - 1
                where[row, depth, copy] = parent + 1
                ids.append(heads.vocab_size + copy * heads.num_heads + depth)
    return np.array(ids, np.int32), np.array(above, np.int32), where


def _counts(length: int, positions: torch.Tensor, m: int) -> list[int]:
    chosen = set(positions.tolist())
    return [m if t in chosen else 0 for t in range(length)]
