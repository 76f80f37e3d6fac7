"""Adam-mini."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from gramcore import _core
from gramcore._checks import check_int, check_real
from gramcore.optim.base import check_betas
from gramcore.optim.direction import DirectionOptimizer, Scaled, fold_matrix
from gramcore.optim.rows import Part, Rows, rows_of

__all__ = ["AdamMini", "adam_mini_groups"]

#: Elements of a block that stays in a second-level cache with its moment and gradient.
_LARGEST_BLOCK = 1 << 17


class AdamMini(DirectionOptimizer):
    """Adam with one second-moment number per block of a parameter.

    v_b ← β2 v_b + (1−β2) mean(g_b²);  m as Adam;  W_b ← (1−ηλ) W_b − η (m / (1−β1ᵗ)) / (√(v_b / (1−β2ᵗ)) + ε)

    A block is a run of rows of the first axis: ``block_rows`` of a group says how many, 0 means the whole tensor.
    :func:`adam_mini_groups` sets it from the names of a transformer: head by head for queries and keys, row by row for
    embeddings, values, outputs and MLPs, whole for norms, one per element for biases.

    State: one moment of the parameter's shape and one number per block.

    Args:
        params: parameters or groups, each with its ``block_rows``.
        lr: η >= 0.
        betas: (β1, β2), each in [0, 1).
        eps: ε >= 0.
        weight_decay: λ >= 0.
        block_rows: rows of a block, >= 0; must divide the first axis, else the tensor is one block.
        options: see :class:`~gramcore.optim.FusedOptimizer`.

    Raises:
        ValueError: a number outside its interval.  TypeError: an unknown option or another kind of tensor.

    Differs from paper: blocks are given as rows, not found by substrings inside the optimizer.

    Reference: Zhang et al. 2024, arXiv:2406.16793, Alg. 1 and 2.

    Example:
        >>> import torch
        >>> from gramcore.optim import AdamMini
        >>> w = torch.nn.Parameter(torch.ones(2, 2))
        >>> optimizer = AdamMini([w], lr=0.1, weight_decay=0.0)
        >>> (w * 3).sum().backward(); optimizer.step()
        >>> [round(x, 4) for x in w.flatten().tolist()]
        [0.9, 0.9, 0.9, 0.9]
    """

    scales_gradients = True

    def __init__(
        self,
        params: Any,
        *,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        block_rows: int = 1,
        **options: Any,
    ) -> None:
        numbers = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "block_rows": block_rows}
        super().__init__(params, numbers, options)

    def hyper(self, group: Mapping[str, Any]) -> dict[str, float]:
        return {"lr": float(group["lr"])}

    def check_hyper(self, group: Mapping[str, Any]) -> None:
        check_betas(group["betas"])
        check_real("eps", group["eps"], low=0.0)
        check_real("weight_decay", group["weight_decay"], low=0.0)
        check_int("block_rows", group["block_rows"], low=0)
        if group["state"] != "fp32":
            raise ValueError(f"state must be fp32 for AdamMini, got {group['state']!r}")

    @staticmethod
    def _by_row(blocks: int, rows: Rows) -> bool:
        # A number per row can live where the row does.
        return rows.split and blocks == rows.total

    def _blocks(self, group: Mapping[str, Any], p: torch.Tensor) -> int:
        rows = group["block_rows"]
        return p.shape[0] // rows if rows and p.ndim and p.shape[0] % rows == 0 else 1

    def init_state(self, group: Mapping[str, Any], p: torch.Tensor) -> dict[str, torch.Tensor]:
        state, rows, blocks = super().init_state(group, p), rows_of(p), self._blocks(group, p)
        state["exp_avg"] = torch.zeros_like(p, dtype=torch.float32, requires_grad=False)
        spread = self._by_row(blocks, rows)
        squares = torch.zeros(rows.count if spread else blocks, dtype=torch.float32, device=p.device)
        state["block_sq"] = rows.spread(squares) if spread else squares
        return state

    def direction(
        self, group: dict[str, Any], part: Part, state: dict[str, Any], g: torch.Tensor, t: int
    ) -> torch.Tensor | Scaled | None:
        beta1, beta2 = group["betas"]
        m, v, scale, rows = state["exp_avg"], state["block_sq"], self.gradient_scale(group), part.rows
        if not rows.split and self._step_in_place(group, part, state, g, t):
            return None
        flat = (rows.count, part.p.numel() // max(1, rows.total))
        if g.ndim >= 2 and g.is_contiguous() and m.is_contiguous():  # one pass for the moment and the squares
            by_row, _ = fold_matrix(g.view(flat), scale=scale, moment=m.view(flat), weight=1 - beta1)
        else:
            x = g.float() * scale
            m.lerp_(x, 1 - beta1)
            by_row = x.reshape(flat).square().mean(dim=1)
        blocks = self._blocks(group, part.p)
        v.lerp_(by_row if self._by_row(blocks, rows) else rows.block_means(by_row, blocks), 1 - beta2)
        inverse = v.sqrt().div_(math.sqrt(1 - beta2**t)).add_(group["eps"]).mul_(1 - beta1**t).reciprocal_()
        if not self._by_row(blocks, rows):
            inverse = inverse[rows.blocks(blocks)] if rows.split else inverse.repeat_interleave(rows.total // blocks)
        if g.ndim == 2:
            return Scaled(m, inverse)
        return m * inverse.view(-1, *[1] * (g.ndim - 1)) if g.ndim else m * inverse[0]

    def _step_in_place(self, group: dict[str, Any], part: Part, state: dict[str, Any], g: torch.Tensor, t: int) -> bool:
        """Step block by block, where blocks are enough to share out and fit a cache."""
        w, m, v = part.w, state["exp_avg"], state["block_sq"]
        if not all(x.is_contiguous() for x in (w, g, m)) or w.numel() == 0 or w.numel() // v.numel() > _LARGEST_BLOCK:
            return False
        beta1, beta2 = group["betas"]
        bias1, shrink = 1 - beta1**t, -float(group["lr"]) * group["weight_decay"]
        _core.optim.step_blocks(
            w,
            g,
            m,
            v,
            float(group["lr"]) / bias1,
            (1 - beta1, 1 - beta2),
            (1 - beta2**t) ** -0.5,
            group["eps"],
            self.gradient_scale(group),
            (shrink, 0.0),
            remainder=state.get("remainder"),
            noise=(group["seed"], part.index, t) if group["rounding"] == "stochastic" else None,
        )
        return True


def adam_mini_groups(model: torch.nn.Module, *, num_heads: int, weight_decay: float = 0.0) -> list[dict[str, Any]]:
    """Parameter groups of a transformer with the blocks of the paper.

    Args:
        model: names decide: ``q_proj``, ``k_proj``, ``wq``, ``wk``, ``query``, ``key`` are cut by head.
        num_heads: heads of the queries; keys use blocks of as many rows.
        weight_decay: λ of everything but norms and biases.
    """
    check_int("num_heads", num_heads, low=1)
    groups: dict[tuple[int, float], list[torch.Tensor]] = {}
    head_rows = 0
    for name, p in model.named_parameters():
        parts = name.lower()
        if any(k in parts for k in ("q_proj", "wq", "query")) and p.ndim == 2 and p.shape[0] % num_heads == 0:
            head_rows = p.shape[0] // num_heads
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        parts = name.lower()
        attention = any(k in parts for k in ("q_proj", "k_proj", "wq", "wk", "query", "key"))
        if p.ndim < 2:
            rows = 1 if "bias" in parts else 0
        else:
            rows = head_rows if attention and head_rows and p.shape[0] % head_rows == 0 else 1
        groups.setdefault((rows, weight_decay if p.ndim >= 2 else 0.0), []).append(p)
    return [{"params": ps, "block_rows": rows, "weight_decay": wd} for (rows, wd), ps in groups.items()]
