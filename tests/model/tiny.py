"""Small models with random weights, and random trees."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers

SIZES: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 48,
    "intermediate_size": 88,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama tied, llama3 rope": ("Llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    "llama linear rope": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
    "mistral one kv head": ("Mistral", {"num_key_value_heads": 1, "sliding_window": None}),
    "qwen2 biases": ("Qwen2", {}),
    "qwen3 norms, wide heads": ("Qwen3", {"head_dim": 32}),
}
IDS = np.random.default_rng(0).integers(0, 101, 70)


def tiny(variant: str, dtype: torch.dtype = torch.float32) -> Any:
    kind, changes = VARIANTS[variant]
    torch.manual_seed(1)
    model = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**(SIZES | changes)))
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return model.eval().to(dtype)


def random_tree(seed: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([rng.integers(-1, i) if i else -1 for i in range(n)], np.int32)


def path_to(parents: np.ndarray, node: int) -> list[int]:
    path = []
    while node >= 0:
        path.append(node)
        node = int(parents[node])
    return path[::-1]
