"""The native decoder: logits of transformers, trees bit-equal to plain decoding, cache handling, bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gramcore
import numpy as np
import pytest
import torch
import transformers
from gramcore.errors import FormatError
from gramcore.model import Decoder, find_model, load

from tests.model.tiny import IDS, SIZES, VARIANTS, path_to, random_tree, tiny
from tests.reference.quant import write_model


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_transformers(isa: str, variant: str) -> None:
    model = tiny(variant)
    with torch.no_grad():
        want = model(torch.from_numpy(IDS)[None]).logits[0].numpy()
    decoder = Decoder.from_module(model)
    np.testing.assert_allclose(decoder.forward(IDS), want, rtol=0, atol=1e-4)
    decoder.reset()
    np.testing.assert_allclose(decoder.forward(IDS, last_only=True), want[-1:], rtol=0, atol=1e-4)


def test_bf16_weights_are_used_as_they_are(isa: str) -> None:
    model = tiny("llama", torch.bfloat16)
    got = Decoder.from_module(model).forward(IDS)
    with torch.no_grad():
        want = model.float()(torch.from_numpy(IDS)[None]).logits[0].numpy()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16"])
def test_gguf_weights_within_the_error_of_int8_activations(kind: str, tmp_path: Path) -> None:
    config = transformers.Qwen2Config(**(SIZES | {"vocab_size": 257, "hidden_size": 96, "intermediate_size": 160}))
    torch.manual_seed(4)
    write_model(tmp_path / "m.gguf", transformers.Qwen2ForCausalLM(config), kind)
    model, _ = load(tmp_path, bits=32)
    with torch.no_grad():
        want = model(torch.from_numpy(IDS)[None]).logits[0].numpy()
    np.testing.assert_allclose(Decoder.from_gguf(tmp_path, dense=True).forward(IDS), want, rtol=0, atol=1e-4)
    got = Decoder.from_gguf(tmp_path).forward(IDS)
    # Rounding to 1/254 of a block's largest value in seven products per layer: within 3 % of the logits' spread.
    assert np.abs(got - want).max() <= (1e-4 if kind == "F16" else 0.03 * want.std() * 4)
    assert np.sqrt(np.mean((got - want) ** 2)) <= 0.03 * want.std()


@pytest.mark.parametrize("which", ["plain", "packed", "short"])
def test_tree_nodes_equal_plain_decoding_to_the_bit(isa: str, which: str, request: pytest.FixtureRequest) -> None:
    decoder = request.getfixturevalue(which)
    prompt, n = IDS[:37], 23
    parents, tokens = random_tree(5, n), np.random.default_rng(6).integers(0, 101, n)
    decoder.reset()
    decoder.forward(prompt, last_only=True)
    tree = decoder.forward(tokens, parents)
    for node in (0, 7, 13, n - 1):
        path = path_to(parents, node)
        decoder.reset()
        decoder.forward(prompt, last_only=True)
        for step in path:
            row = decoder.forward(tokens[step : step + 1])
        assert np.array_equal(row[0], tree[node])


@pytest.mark.parametrize("which", ["plain", "packed", "short"])
def test_compaction_rollback_and_chunks_equal_a_fresh_prefill(which: str, request: pytest.FixtureRequest) -> None:
    decoder = request.getfixturevalue(which)
    decoder.reset()
    parents, tokens = random_tree(8, 20), np.random.default_rng(9).integers(0, 101, 20)
    decoder.forward(IDS[:50])
    decoder.rollback(20)
    assert decoder.length == 30
    decoder.forward(tokens, parents)
    path = path_to(parents, 19)
    decoder.compact(path)
    assert decoder.length == 30 + len(path)
    after = decoder.forward(IDS[:3])
    decoder.reset()
    fresh = decoder.forward(np.concatenate([IDS[:30], tokens[path], IDS[:3]]))
    assert np.array_equal(after, fresh[-3:])


def test_long_prompts_go_in_several_passes(packed: Decoder, tmp_path: Path) -> None:
    config = transformers.LlamaConfig(**(SIZES | {"max_position_embeddings": 1400, "num_hidden_layers": 1}))
    decoder = Decoder.from_module(transformers.LlamaForCausalLM(config).eval())
    ids = np.random.default_rng(1).integers(0, 101, 1300)
    whole = decoder.forward(ids)
    decoder.reset()
    assert np.array_equal(decoder.forward(ids, last_only=True), whole[-1:])
    decoder.reset()
    for start in range(0, 1300, 433):
        part = decoder.forward(ids[start : start + 433])
        assert np.array_equal(part, whole[start : start + 433])


@pytest.mark.parametrize("which", ["plain", "packed"])
def test_threads_do_not_change_a_bit(which: str, request: pytest.FixtureRequest, restore_threads: None) -> None:
    decoder = request.getfixturevalue(which)
    results = []
    for threads in (1, 2, 3):
        gramcore.set_num_threads(threads)
        decoder.reset()
        results.append(decoder.forward(IDS))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "float16", "int8"])
def test_short_cache_types_stay_close(kv_dtype: str) -> None:
    model = tiny("llama")
    want = Decoder.from_module(model).forward(IDS)
    got = Decoder.from_module(model, kv_dtype=kv_dtype).forward(IDS)
    assert np.sqrt(np.mean((got - want) ** 2)) < 0.02 * want.std()
    assert not np.array_equal(got, want)


def test_generate_is_greedy_and_stops(plain: Decoder) -> None:
    model = tiny("llama")
    ids = torch.from_numpy(IDS[:12])[None]
    want = model.generate(ids, max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0)[0, 12:].tolist()
    assert plain.generate(IDS[:12], max_new_tokens=20, eos_token_id=()) == want
    stop = want[4]
    assert plain.generate(IDS[:12], max_new_tokens=20, eos_token_id=stop) == want[: want.index(stop) + 1]
    assert plain.generate(IDS[:12], max_new_tokens=0) == []
    short = Decoder.from_module(model, max_len=15)
    assert short.generate(IDS[:12], max_new_tokens=20, eos_token_id=()) == want[:4]


def test_packaged_model_runs_without_torch() -> None:
    try:
        find_model("smollm2")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    code = (
        "import sys; from gramcore.model import Decoder; d = Decoder.from_gguf('smollm2', max_len=64);"
        "print(d.generate([504, 3575, 282, 4649, 314], max_new_tokens=4), 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("False")
    model, tokenizer = load("smollm2", bits=32)
    ids = tokenizer("Rivers flow downhill because", return_tensors="pt").input_ids
    with torch.no_grad():
        want = model(ids).logits[0]
    got = torch.from_numpy(Decoder.from_gguf("smollm2", max_len=64).forward(ids[0].numpy()))
    p, q = want.log_softmax(-1), got.log_softmax(-1)
    assert (p.exp() * (p - q)).sum(-1).mean() < 0.01


def test_speculative_text_equals_plain_text(packed: Decoder) -> None:
    from gramcore import spec

    prompt = torch.from_numpy(np.tile(IDS[:9], 5))
    plain = spec.generate(packed.host(), prompt, drafter=None, max_new_tokens=40, eos_token_id=())
    settings: dict[str, Any] = {"policy": spec.FixedLength(6), "max_new_tokens": 40, "eos_token_id": ()}
    drafted = spec.generate(packed.host(), prompt, drafter=spec.SuffixDrafter(), **settings)
    assert list(plain.tokens) == packed.generate(prompt.numpy(), max_new_tokens=40, eos_token_id=())
    assert list(drafted.tokens) == list(plain.tokens)


def test_bad_input(plain: Decoder, tmp_path: Path) -> None:
    plain.reset()
    with pytest.raises(ValueError, match="at least one token"):
        plain.forward([])
    with pytest.raises(IndexError, match=r"ids must be in \[0, 101\)"):
        plain.forward([3, 101])
    with pytest.raises(ValueError, match="fit the cache"):
        plain.forward(np.zeros(257, np.int32))
    with pytest.raises(ValueError, match="earlier node"):
        plain.forward([1, 2], [1, -1])
    with pytest.raises(ValueError, match="one entry per token"):
        plain.forward([1, 2], [-1])
    plain.forward([1, 2], [-1, 0])
    with pytest.raises(ValueError, match="strictly increasing"):
        plain.compact([1, 0])
    with pytest.raises(ValueError, match="inside the cache"):
        plain.compact([2])
    with pytest.raises(ValueError, match="count must be in"):
        plain.rollback(1)
    plain.rollback(0)  # forgets the tree, of which nothing can be kept any more
    with pytest.raises(ValueError, match="inside the cache"):
        plain.compact([0])
    with pytest.raises(ValueError, match="kv_dtype must be one of"):
        Decoder.from_module(tiny("llama"), kv_dtype="int4")
    with pytest.raises(FileNotFoundError, match="folder must hold"):
        Decoder.from_pretrained(tmp_path / "none")
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(FormatError):
        Decoder.from_gguf(tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("GPT2", {}, "architecture must be one of llama, mistral, qwen2, qwen3"),
        ("Llama", {"attention_bias": True}, "attention_bias"),
        ("Llama", {"hidden_act": "gelu"}, "hidden_act must be silu"),
        ("Mistral", {"sliding_window": 64}, "sliding_window"),
        ("Llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "rope scaling"),
    ],
)
def test_unsupported_variants_are_named(kind: str, changes: dict[str, Any], message: str) -> None:
    sizes = {} if kind == "GPT2" else SIZES
    config = getattr(transformers, f"{kind}Config")(**(sizes | changes | {"vocab_size": 50, "num_hidden_layers": 1}))
    model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(ValueError, match=message):
        Decoder.from_module(model)


def test_saved_folder_round_trip(tmp_path: Path) -> None:
    model = tiny("qwen2 biases")
    model.save_pretrained(tmp_path)
    got = Decoder.from_pretrained(tmp_path).forward(IDS[:9])
    assert np.array_equal(got, Decoder.from_module(model).forward(IDS[:9]))


def test_int8_cache_keeps_nan_and_zero() -> None:
    model = tiny("llama")
    with torch.no_grad():
        model.model.layers[0].self_attn.k_proj.weight.zero_()  # keys of zeros: factor 0, attention to all alike
    plain, zeros = Decoder.from_module(model), Decoder.from_module(model, kv_dtype="int8")
    want, got = plain.forward(IDS), zeros.forward(IDS)
    assert np.sqrt(np.mean((got - want) ** 2)) < 0.02 * want.std()
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.weight[3, 5] = torch.nan
    assert np.isnan(Decoder.from_module(model, kv_dtype="int8").forward(IDS)).any()
