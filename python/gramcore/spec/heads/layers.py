"""Small parts of heads: residual blocks, one-key attention on a token, causal transformer layers with a past."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from gramcore._checks import check_int

__all__ = ["CausalBlocks", "KeyValues", "ResidualBlocks", "TokenAttention"]


class ResidualBlocks(nn.Module):
    """K times ``x + SiLU(W x + b)``; W starts at 0, so the whole starts as the identity.

    Args:
        width: W.
        layers: ``>= 1``; K.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        for block in self.blocks:
            nn.init.zeros_(block.weight)  # type: ignore[arg-type]
            nn.init.zeros_(block.bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + nn.functional.silu(block(x))
        return x


class TokenAttention(nn.Module):
    """A state looks at one token: ``s + cos(Q norm(s), K e) V e`` per attention head.

    With a single key the softmax would be constant; the cosine of query and key takes its place.

    Args:
        width: W, a multiple of ``num_heads``.
        num_heads: attention heads.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        for layer in (self.query, self.key):
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.uniform_(self.value.weight, 0.0, 0.01)
        nn.init.zeros_(self.value.bias)

    def forward(self, state: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        def split(x: torch.Tensor) -> torch.Tensor:
            return x.reshape(*x.shape[:-1], self.num_heads, -1)

        agreement = nn.functional.cosine_similarity(
            split(self.query(self.norm(state))), split(self.key(token)), dim=-1, eps=1e-6
        )
        return state + (agreement[..., None] * split(self.value(token))).flatten(-2)


@dataclass
class KeyValues:
    """Keys and values ``(B, H, T, D)`` of every layer."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]

    def __len__(self) -> int:
        return self.layers[0][0].shape[2] if self.layers else 0

    def crop(self, length: int) -> KeyValues:
        """The first ``length`` positions."""
        return KeyValues([(k[:, :, :length], v[:, :, :length]) for k, v in self.layers])


class CausalBlocks(nn.Module):
    """Pre-norm transformer layers with rotary positions: attention over everything before, then a gated MLP.

    Output projections start at 0, so the whole starts as the identity.

    Args:
        width: W, a multiple of ``2 * num_heads``.
        num_heads: attention heads.
        layers: ``>= 0``.
        expand: ``>= 1``; MLP width over W.
    """

    def __init__(self, width: int, num_heads: int, layers: int, expand: int = 2) -> None:
        super().__init__()
        check_int("layers", layers, low=0, high=64)
        if width % (2 * num_heads):
            raise ValueError(f"width must be a multiple of 2 * num_heads = {2 * num_heads}, got {width}")
        self.layers = nn.ModuleList(_CausalBlock(width, num_heads, expand * width) for _ in range(layers))

    def forward(self, x: torch.Tensor, past: KeyValues | None = None) -> tuple[torch.Tensor, KeyValues]:
        out = KeyValues([])
        for i, layer in enumerate(self.layers):
            x, pair = layer(x, past.layers[i] if past is not None and len(past) else None)
            out.layers.append(pair)
        return x, out

    def step(
        self, x: torch.Tensor, past: KeyValues, path: torch.Tensor, at: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One more position for each of N independent continuations of the text.

        Args:
            x: ``(N, W)``.
            past: of the text.
            path: ``(N, S, layers, 2, W)`` keys and values of the S positions before in each continuation.
            at: ``(N,)`` sequence of the text, and ``(N,)`` how many of its positions are seen.

        Returns:
            ``(N, W)``, and the new keys and values ``(N, 1, layers, 2, W)``.
        """
        pairs = []
        for i, layer in enumerate(self.layers):
            x, pair = layer.step(x, past.layers[i], path[:, :, i], at)  # type: ignore[operator]
            pairs.append(pair)
        return x, torch.stack(pairs, 1)[:, None]


class _CausalBlock(nn.Module):
    def __init__(self, width: int, num_heads: int, inner: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.down.weight)

    def forward(
        self, x: torch.Tensor, past: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        before = 0 if past is None else past[0].shape[2]
        rows = torch.arange(before, before + x.shape[1])
        q, k, v = self._project(x, rows)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        seen = torch.arange(k.shape[2])[None] <= rows[:, None]
        return self._finish(x, q, k, v, seen), (k, v)

    def step(
        self,
        x: torch.Tensor,
        text: tuple[torch.Tensor, torch.Tensor],
        path: torch.Tensor,
        at: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`CausalBlocks.step`: ``path`` and the new keys and values are ``(N, S, 2, W)`` and ``(N, 2, W)``."""
        rows, lengths = at
        count, steps = path.shape[:2]
        q, k, v = self._project(x[:, None], (lengths + steps)[:, None, None])
        own = path.reshape(count, steps, 2, self.num_heads, path.shape[-1] // self.num_heads).permute(
            2, 0, 3, 1, 4
        )  # (2, N, H, S, D)
        shared = [y.expand(count, -1, -1, -1) if len(y) == 1 else y[rows] for y in text]
        length = shared[0].shape[2]
        keys, values = torch.cat([shared[0], own[0], k], 2), torch.cat([shared[1], own[1], v], 2)
        place = torch.arange(length + steps + 1)
        seen = (place < lengths[:, None]) | (place >= length)
        new = torch.stack([k, v], 1).flatten(2)  # (N, 2, W)
        return self._finish(x[:, None], q, keys, values, seen[:, None, None])[:, 0], new

    def _project(self, x: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        q, k, v = (y.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for y in self.qkv(self.norm1(x)).chunk(3, -1))
        return _rotate(q, places), _rotate(k, places), v

    def _finish(
        self, x: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor
    ) -> torch.Tensor:
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(nn.functional.silu(gate) * up)


def _rotate(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Rotary positions ``places`` (which broadcast to ``(B, H, T)``) of ``(B, H, T, D)``, base 10000, halves paired."""
    half = x.shape[-1] // 2
    speed = 10000.0 ** (-torch.arange(half, dtype=torch.float32) / half)
    angle = places[..., None].to(torch.float32) * speed
    cos, sin = angle.cos(), angle.sin()
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
