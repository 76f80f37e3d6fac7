"""Slow, obvious twins of gramcore.spec.heads, written from the papers' equations, one position at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def gelu(x: Array) -> Array:
    return np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x])


def layer_norm(x: Array, gain: Array, bias: Array) -> Array:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * gain + bias


def rms_norm(x: Array, gain: Array) -> Array:
    return x / np.sqrt((x * x).mean() + 1e-6) * gain


def softmax(x: Array) -> Array:
    w = np.exp(x - x.max())
    return w / w.sum()


def residual(x: Array, blocks: Sequence[tuple[Array, Array]]) -> Array:
    """x + SiLU(W x + b), repeated."""
    for weight, bias in blocks:
        inner = weight @ x + bias
        x = x + inner * sigmoid(inner)
    return x


def mlp_speculator(
    h: Array, tokens: Sequence[int], w: dict[str, Array], n: int, tied: bool, scaled: bool
) -> list[Array]:
    """Logits of every head; ``tokens[i]`` is the token head i reads."""
    state = (h - h.mean()) / np.sqrt(h.var() + 1e-5) / math.sqrt(2) if scaled else h
    out = []
    for i in range(n):
        k, p = (0, min(i, 1)) if tied else (i, i)
        d = len(w[f"norms.{k}.weight"])
        a = 0.5 ** (0.5 / n)
        b = math.sqrt((1 - a**2) * d / 2)
        mixed = w[f"projections.{p}.weight"] @ state + b / a * w[f"embeddings.{k}.weight"][tokens[i]]
        state = gelu(layer_norm(mixed, w[f"norms.{k}.weight"], w[f"norms.{k}.bias"]))
        out.append(w[f"outputs.{k}.weight"] @ state)
    return out


def residual_heads(h: Array, w: dict[str, Array], n: int, layers: int, rows: Array) -> list[Array]:
    """Blockwise and KOALA heads: every head from the same state."""
    heads = [
        [(w[f"heads.{i}.blocks.{k}.weight"], w[f"heads.{i}.blocks.{k}.bias"]) for k in range(layers)] for i in range(n)
    ]
    return [rows @ residual(h, blocks) for blocks in heads]


def turn(x: Array, position: int) -> Array:
    """Rotary embedding of one head: component c pairs with c + D/2, angle position * 10000^(-2c/D)."""
    half = len(x) // 2
    out = np.empty_like(x)
    for c in range(half):
        angle = position * 10000 ** (-2 * c / len(x))
        out[c] = x[c] * math.cos(angle) - x[c + half] * math.sin(angle)
        out[c + half] = x[c] * math.sin(angle) + x[c + half] * math.cos(angle)
    return out


def causal_block(text: Array, w: dict[str, Array], name: str, heads: int) -> Array:
    """One pre-norm transformer layer over ``(T, W)``."""
    width = text.shape[1]
    size = width // heads
    q, k, v = np.split(np.array([w[f"{name}.qkv.weight"] @ rms_norm(x, w[f"{name}.norm1.weight"]) for x in text]), 3, 1)
    out = []
    for t, x in enumerate(text):
        mixed = np.empty(width)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            query = turn(q[t, part], t)
            scores = np.array([query @ turn(k[s, part], s) / math.sqrt(size) for s in range(t + 1)])
            mixed[part] = softmax(scores) @ v[: t + 1, part]
        y = x + w[f"{name}.out.weight"] @ mixed
        gate, up = np.split(w[f"{name}.gate_up.weight"] @ rms_norm(y, w[f"{name}.norm2.weight"]), 2)
        out.append(y + w[f"{name}.down.weight"] @ (gate * sigmoid(gate) * up))
    return np.array(out)


def clover(
    text: Array, tokens: Sequence[int], w: dict[str, Array], n: int, blocks: int, heads: int, rows: Array, table: Array
) -> list[Array]:
    """Logits of every head after the states ``text`` of all positions so far."""
    for layer in range(blocks):
        text = causal_block(text, w, f"augment.layers.{layer}", heads)
    state = text[-1]
    size = len(state) // heads
    out = []
    for i in range(n):
        e = table[tokens[i]]
        q = w["decoder.query.weight"] @ rms_norm(state, w["decoder.norm.weight"]) + w["decoder.query.bias"]
        k = w["decoder.key.weight"] @ e + w["decoder.key.bias"]
        v = w["decoder.value.weight"] @ e + w["decoder.value.bias"]
        new = state.copy()
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            cosine = q[part] @ k[part] / (np.linalg.norm(q[part]) * np.linalg.norm(k[part]))
            new[part] += cosine * v[part]
        state = new
        out.append(rows @ residual(state, [(w[f"mixers.{i}.blocks.0.weight"], w[f"mixers.{i}.blocks.0.bias"])]))
    return out


def eagle(
    text: Array, ids: Sequence[int], w: dict[str, Array], n: int, layers: int, heads: int, rows: Array, table: Array
) -> list[Array]:
    """Logits of every step after the states ``text``; ``ids[s]`` is the token behind state s, drafted ones last."""
    states = list(text)
    out = []
    for _ in range(n):
        read = np.array([w["mix.weight"] @ np.concatenate([table[ids[s]], state]) for s, state in enumerate(states)])
        for layer in range(layers):
            read = causal_block(read, w, f"decoder.layers.{layer}", heads)
        out.append(rows @ read[-1])
        states.append(read[-1])  # the guess stands in for the target's next state
    return out


def logits_at(
    kind: str,
    settings: dict[str, Any],
    w: dict[str, Array],
    hidden: Array,
    tokens: Sequence[int],
    target: Any,
    before: Sequence[int] = (),
) -> list[Array]:
    """Any kind of heads after states ``hidden (t + 1, W)``; ``tokens`` follow them; ``target`` = (rows in F, table).

    ``before``: the tokens behind the states but the last.
    """
    if kind == "eagle":
        sizes = settings["num_heads"], settings["layers"], settings["attention_heads"]
        return eagle(hidden, [*before, *tokens], w, *sizes, *target)
    n = settings["num_heads"]
    if kind == "mlp_speculator":
        return mlp_speculator(hidden[-1], tokens, w, n, settings["tie_weights"], settings["scale_input"])
    if kind in ("block", "koala"):
        return residual_heads(hidden[-1], w, n, settings["layers"], target[0])
    return clover(hidden, tokens, w, n, settings["blocks"], settings["attention_heads"], *target)


def next_token_loss(logits: list[list[Array]], wanted: list[list[int]], decay: float) -> float:
    """``logits[i][p]`` against places ``wanted[i][p]``, -1 = cannot be drafted."""
    total = 0.0
    for i, (rows, places) in enumerate(zip(logits, wanted, strict=True)):
        terms = [-math.log(softmax(z)[y]) for z, y in zip(rows, places, strict=True) if y >= 0]
        total += decay**i * sum(terms) / max(1, len(terms))
    return total


def distill_loss(logits: list[list[Array]], target: list[list[Array]], decay: float) -> float:
    """KL from the target's logits to the heads', mean over places."""
    total = 0.0
    for i, (rows, goals) in enumerate(zip(logits, target, strict=True)):
        terms = []
        for z, g in zip(rows, goals, strict=True):
            p, q = softmax(g), softmax(z)
            terms.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
        total += decay**i * sum(terms) / len(terms)
    return total


def smooth_l1(a: Array, b: Array) -> float:
    gap = np.abs(a - b)
    return float(np.where(gap < 1, 0.5 * gap**2, gap - 0.5).mean())


def discriminator(law: Array, w: dict[str, Array]) -> float:
    """log-odds that a law is the target's."""
    inner = w["0.weight"] @ law + w["0.bias"]
    return float(w["2.weight"][0] @ np.where(inner > 0, inner, 0.2 * inner) + w["2.bias"][0])


def prompt_states(model: Any, ids: Sequence[int], prompts: Any) -> Array:
    """Mean over copies of the target's last states at ``prompts (g, m, W)`` behind ``ids``, one forward per copy."""
    import torch

    copies = []
    with torch.no_grad():
        for copy in prompts:
            rows = torch.cat([model.get_input_embeddings()(torch.tensor(ids)), copy])
            states = model(inputs_embeds=rows[None], output_hidden_states=True).hidden_states[-1][0]
            copies.append(states[len(ids) :].double().numpy())
    return np.mean(copies, 0)


def walk_of_plan(trees: Sequence[dict[tuple[int, ...], int]], accuracy: Array, steps: int, seed: int) -> float:
    """Tokens per step of decoding with a PPD plan when the rank-r guess at distance d is right with accuracy[d, r]."""
    rng = np.random.default_rng(seed)
    state, emitted = len(trees) - 1, 0
    for _ in range(steps):
        path: tuple[int, ...] = ()
        for row in accuracy:
            ranks = [*range(len(row)), None]
            right = ranks[rng.choice(len(ranks), p=[*row, 1 - row.sum()])]
            if right is None or (*path, right) not in trees[state]:
                break
            path = (*path, right)
        emitted += len(path) + 1
        state = trees[state][path]
    return emitted / steps


def witten_bell(texts: Sequence[Sequence[int]], vocab: int, context: Sequence[int], token: int) -> float:
    """P(token | context) by counting every place of every text."""
    followers = [
        text[i + len(context)]
        for text in texts
        for i in range(len(text) - len(context))
        if list(text[i : i + len(context)]) == list(context)
    ]
    shorter = 1 / vocab if not context else witten_bell(texts, vocab, context[1:], token)
    if not followers:
        return shorter
    different = len(set(followers))
    return (followers.count(token) + different * shorter) / (len(followers) + different)


def best_paths(laws: Array, k: int, score: Any, weight: float, local: bool) -> list[tuple[int, ...]]:
    """All paths through the k most probable tokens of every law, best first; ``score(path, token)`` log-probability."""
    found: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for law in laws:
        tokens = np.argsort(-law, kind="stable")[:k].tolist()
        longer = []
        for value, path in found:
            steps = [law[t] + weight * score(path, t) for t in tokens]
            norm = math.log(sum(math.exp(s) for s in steps)) if local else 0.0
            longer += [(value + s - norm, (*path, t)) for s, t in zip(steps, tokens, strict=True)]
        found = longer
    return [path for _, path in sorted(found, key=lambda item: -item[0])]
