"""Slow, obvious twins of the quantisation family, and writers of small model files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "Q4_K": 12, "Q6_K": 14, "BF16": 30}
LLAMA_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """transformers parameter name -> GGUF tensor name."""
    stem, _, kind = name.rpartition(".")
    prefix = ""
    if stem.startswith("model.layers."):
        _, _, layer, stem = stem.split(".", 3)
        prefix = f"blk.{layer}."
    return f"{prefix}{LLAMA_NAMES[stem]}.{kind}"


def pair_rows(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a rotary projection from halves (transformers) to neighbouring pairs (llama.cpp)."""
    dim = weight.shape[0] // heads
    out = np.empty_like(weight)
    for h in range(heads):
        for i in range(dim // 2):
            out[h * dim + 2 * i] = weight[h * dim + i]
            out[h * dim + 2 * i + 1] = weight[h * dim + dim // 2 + i]
    return out


def random_six_bit(n: int, k: int) -> np.ndarray:
    """Bytes of a random Q6_K matrix ``(n, k)``: codes anywhere, scales within 30e-4."""
    rng = np.random.default_rng(n + k)
    blocks = rng.integers(0, 256, (n, k // 256, 210), dtype=np.uint8)
    blocks[..., 192:208] = rng.integers(-30, 31, (n, k // 256, 16)).astype(np.int8).view(np.uint8)
    blocks[..., 208:] = np.float16(1e-4).reshape(1).view(np.uint8)
    return blocks.reshape(n, -1)


def write_model(path: Path, model: Any, tensor_type: str = "F32") -> None:
    """A GGUF file of a tiny transformers Llama or Qwen2 model with a 256-token byte vocabulary; Q6_K matrices, which
    gguf cannot write, are random."""
    c = model.config
    arch = c.model_type
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    byte_level = [chr(b) for b in (*range(33, 127), *range(161, 173), *range(174, 256))]
    tokens = byte_level + [chr(256 + i) for i in range(256 - len(byte_level))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*tokens, "ab"])
    writer.add_token_types([1] * 257)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        value = parameter.float().numpy()
        if arch == "llama" and ("q_proj" in name or "k_proj" in name):
            value = pair_rows(value, c.num_attention_heads if "q_proj" in name else c.num_key_value_heads)
        kind = gguf.GGMLQuantizationType[tensor_type if value.ndim == 2 else "F32"]
        raw = random_six_bit(*value.shape) if kind.name == "Q6_K" else gguf.quants.quantize(value, kind)
        writer.add_tensor(gguf_name(name), raw, raw_shape=raw.shape, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def look_up(codes: np.ndarray, scales: np.ndarray, values: np.ndarray, group: int) -> np.ndarray:
    """``W[n, k] = scales[n, k // group] * values[codes[n, k]]`` in float64."""
    out = np.empty(codes.shape)
    for n in range(codes.shape[0]):
        for k in range(codes.shape[1]):
            out[n, k] = float(scales[n, k // group]) * float(values[codes[n, k]])
    return out


def dequantize_groups(
    codes: np.ndarray, scales: np.ndarray, mins: np.ndarray | None, group: int, zero: int
) -> np.ndarray:
    """``scale * (code - zero) + min`` element by element, in float64."""
    out = np.empty(codes.shape)
    for n in range(codes.shape[0]):
        for k in range(codes.shape[1]):
            g = k // group
            out[n, k] = float(scales[n, g]) * (int(codes[n, k]) - zero)
            if mins is not None:
                out[n, k] += float(mins[n, g])
    return out


def int8_activation_bound(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Largest possible error of ``x @ weight.T`` when x is rounded to int8 in blocks of 32 columns (half a step per
    element), plus fp32 rounding of the sums."""
    m, k = x.shape
    step = np.empty((m, k))
    for b in range(0, k, 32):
        step[:, b : b + 32] = np.abs(x[:, b : b + 32]).max(axis=1, keepdims=True) / 127
    magnitude = np.abs(x) @ np.abs(weight).T
    return 0.5001 * step @ np.abs(weight).T + 1e-5 * magnitude + 1e-30


def bipolar_values(bits: int) -> list[int]:
    """All sums of ``+-2^i`` for i below ``bits``."""
    values = [0]
    for i in range(bits):
        values = [v + sign * 2**i for v in values for sign in (-1, 1)]
    return sorted(values)


def bipolar_activations(x: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Bipolar codes of x in blocks of 32 columns, as odd numbers, and the scale of every element, one by one: the
    nearest sums of ``+-2^i`` under the largest magnitude, or signs under the mean one."""
    values = bipolar_values(bits)
    codes, scales = np.empty(x.shape, dtype=np.int64), np.empty(x.shape)
    for m in range(x.shape[0]):
        for first in range(0, x.shape[1], 32):
            block = x[m, first : first + 32].astype(np.float64)
            t = np.abs(block).mean() if bits == 1 else np.abs(block).max() / (2**bits - 1)
            for i, v in enumerate(block):
                nearest = min(values, key=lambda value: abs(float(v) - t * value))
                codes[m, first + i] = (1 if v >= 0 else -1) if bits == 1 else nearest
                scales[m, first + i] = t
    return codes, scales


def bit_plane_product(w: np.ndarray, x: np.ndarray, w_bits: int, x_bits: int) -> int:
    """``sum_k w_k x_k`` of odd numbers by their planes of bits: ``sum_ij 2^(i + j) (K - 2 popcount(W_i ^ X_j))``."""
    total = 0
    for i in range(w_bits):
        for j in range(x_bits):
            w_i = ((w + 2**w_bits - 1) // 2 >> i) & 1
            x_j = ((x + 2**x_bits - 1) // 2 >> j) & 1
            total += 2 ** (i + j) * (len(w) - 2 * int((w_i ^ x_j).sum()))
    return total


def fp8_values(fmt: str) -> np.ndarray:
    """Every finite value of an 8-bit format, from its definition, ascending."""
    exponent_bits, mantissa_bits, bias = {"e4m3": (4, 3, 7), "e5m2": (5, 2, 15)}[fmt]
    values = set()
    for code in range(128):
        exponent, mantissa = code >> mantissa_bits, code & ((1 << mantissa_bits) - 1)
        if fmt == "e5m2" and exponent == 31:
            continue  # infinity and NaN
        if fmt == "e4m3" and code == 127:
            continue  # NaN
        if exponent == 0:
            value = mantissa * 2.0 ** (1 - bias - mantissa_bits)
        else:
            value = (1 + mantissa / 2**mantissa_bits) * 2.0 ** (exponent - bias)
        values |= {value, -value}
    assert exponent_bits + mantissa_bits == 7
    return np.array(sorted(values))


def power_error(row: np.ndarray, bits: int, a: float) -> float:
    """Squared error of one group coded as ``sgn(w) (|w| / s)^a`` rounded to integers, element by element; s in fp16,
    values of codes in bfloat16."""
    top, s = 2 ** (bits - 1) - 1, float(np.float16(np.abs(row).max()))
    total = 0.0
    for w in row.astype(np.float64):
        fraction, exponent = np.frexp((round(min(top, top * (abs(w) / s) ** a)) / top) ** (1 / a))
        total += (abs(w) - s * round(fraction * 256) / 256 * 2.0**exponent) ** 2
    return total


def billm_block(w: np.ndarray, salient: list[int]) -> np.ndarray:
    """One BiLLM block, row by row: two residual levels for salient columns, two magnitudes at the best of 81
    percentiles of the block for the others."""
    n, k = w.shape
    out = np.empty((n, k))
    plain = [c for c in range(k) if c not in salient]
    for r in range(n):
        v = w[r, salient]
        mean = v.mean()
        a1 = np.abs(v - mean).mean()
        left = [x - mean - (a1 if x >= mean else -a1) for x in v]
        a2 = np.abs(left).mean()
        for c, x, e in zip(salient, v, left, strict=True):
            out[r, c] = mean + (a1 if x >= mean else -a1) + (a2 if e >= 0 else -a2)
    best = np.inf
    for share in np.linspace(0.1, 0.9, 81):
        cut = np.quantile(np.abs(w[:, plain]), share)
        trial = np.empty((n, len(plain)))
        for r in range(n):
            sizes = np.abs(w[r, plain])
            groups = [sizes[sizes <= cut], sizes[sizes > cut]]
            low, high = (g.mean() if g.size else 0.0 for g in groups)
            for i, x in enumerate(w[r, plain]):
                trial[r, i] = (1 if x >= 0 else -1) * (high if abs(x) > cut else low)
        loss = ((trial - w[:, plain]) ** 2).sum()
        if loss < best:
            best = loss
            out[:, plain] = trial
    return out


def gptq_codes(
    w: np.ndarray, x: np.ndarray, scales: np.ndarray, mins: np.ndarray, zero: int, top: int, damping: float
) -> np.ndarray:
    """GPTQ by its definition: columns by falling input energy; after each one is rounded, the columns still free are
    solved for anew, so that the (damped) output error is least given all the rounded ones.  scales, mins: (N, K)."""
    n, k = w.shape
    h = x.T @ x
    energy = h.diagonal().copy()
    h = h + np.eye(k) * (damping * energy.mean() if energy.mean() > 0 else 1.0)
    order = sorted(range(k), key=lambda c: -energy[c])
    now, value, codes = w.copy(), np.zeros((n, k)), np.zeros((n, k), dtype=np.int64)
    for i, c in enumerate(order):
        for r in range(n):
            code = zero if scales[r, c] == 0 else np.rint((now[r, c] - mins[r, c]) / scales[r, c] + zero)
            codes[r, c] = min(max(code, 0), top)
            value[r, c] = (codes[r, c] - zero) * scales[r, c] + mins[r, c]
        done, free = order[: i + 1], order[i + 1 :]
        if free:
            pull = np.linalg.solve(h[np.ix_(free, free)], h[np.ix_(free, done)])
            now[:, free] = w[:, free] + (w[:, done] - value[:, done]) @ pull.T
    return codes
