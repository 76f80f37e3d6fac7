"""Compile, mask and accept times over real schemas, teacher-forced on their instances, beside xgrammar and llguidance.

    python -m bench.grammar.bench_schemas FOLDER [--limit N] [--engines NAMES] [--large]

FOLDER holds files of guidance-ai/jsonschemabench (maskbench/data): {"schema": …, "tests": [{"valid": …, "data": …}]};
of more than N of them those are taken whose names have the smallest SHA-256.
One thread, the vocabulary of SmolLM2 (49,152 tokens), or with --large that of bench_programs (131,072): gramcore alone,
texts cut into the longest tokens.  Masks and accepts are timed by the thread's own clock, less what reading it takes.
Verdicts are counted before times are believed; a mask is
checked against accept at every step (the forced token's bit must be set exactly when it is accepted).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, GrammarTooComplex, TokenizerInfo

from bench.harness import peer_version

__all__ = ["Engine", "main", "measure"]

#: compile(schema) -> new matcher factory; a matcher is (fill(mask) -> None, accept(token) -> bool, done() -> bool)
Engine = Callable[[str], Callable[[], tuple[Callable[[Any], Any], Callable[[int], bool], Callable[[], bool]]]]


def gramcore_engine(info: TokenizerInfo, any_order: bool) -> Engine:
    compiler = GrammarCompiler(info)

    def compile_schema(text: str) -> Any:
        compiled = compiler.compile(Grammar.from_json_schema(text, any_order=any_order))

        def new() -> Any:
            matcher = GrammarMatcher(compiled)._native
            return matcher.fill_bitmask, matcher.accept, matcher.can_terminate

        return new

    return compile_schema


def xgrammar_engine(tokenizer: Any, vocab_size: int) -> Engine:
    import xgrammar

    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocab_size)
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    def compile_schema(text: str) -> Any:
        compiled = compiler.compile_json_schema(text)

        def new() -> Any:
            matcher = xgrammar.GrammarMatcher(compiled)
            stop = info.stop_token_ids[0]

            def done() -> bool:
                ok = matcher.accept_token(stop)
                if ok:
                    matcher.rollback(1)
                return bool(ok)

            return matcher.fill_next_token_bitmask, matcher.accept_token, done

        return new

    return compile_schema


def llguidance_engine(tokenizer: Any, vocab_size: int) -> Engine:
    import llguidance
    import llguidance.hf

    ll = llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocab_size)

    def compile_schema(text: str) -> Any:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(text)
        error = llguidance.LLMatcher.validate_grammar(grammar, ll)
        if error:
            raise ValueError(error)

        def new() -> Any:
            matcher = llguidance.LLMatcher(ll, grammar, log_level=0)
            return (
                lambda out: matcher.unsafe_compute_mask_ptr(out.ctypes.data, out.nbytes),
                matcher.consume_token,
                matcher.is_accepting,
            )

        return new

    return compile_schema


def thread_clock_cost() -> float:
    """Seconds between two readings of the thread's clock with nothing between them, median."""
    return float(np.median([-(time.thread_time_ns() - time.thread_time_ns()) for _ in range(1000)])) * 1e-9


def percentiles(values: list[float]) -> str:
    if not values:
        return "none"
    v = np.asarray(values) * 1e6
    return f"avg {v.mean():8.1f}  p50 {np.percentile(v, 50):8.1f}  p99 {np.percentile(v, 99):9.1f}  max {v.max():10.1f}"


def measure(
    engine: Engine, cases: list[dict[str, Any]], encode: Callable[[str], list[int]], vocab: int, torch_mask: bool
) -> None:
    """Print verdicts and times of one engine."""
    clock = time.perf_counter
    compile_s, first_s, mask_s, accept_s = [], [], [], []
    refused = right = valid_rejected = invalid_accepted = disagreements = 0
    words = np.zeros((1, (vocab + 31) // 32), np.int32)
    mask: Any = words
    if torch_mask:
        import torch

        mask = torch.from_numpy(words)
    for case in cases:
        text = json.dumps(case["schema"])
        start = clock()
        try:
            new = engine(text)
            fill, _, _ = new()
            mid = clock()
            fill(mask)
        except Exception:  # peers raise their own types
            refused += 1
            continue
        compile_s.append(clock() - start)
        first_s.append(clock() - mid)
        all_right = True
        for test in case.get("tests", ()):
            fill, accept, done = new()
            ok = True
            for token in encode(json.dumps(test["data"], ensure_ascii=False)):
                start = time.thread_time_ns()
                fill(mask)
                middle = time.thread_time_ns()
                allowed = bool(words[0, token // 32] >> (token % 32) & 1)
                begun = time.thread_time_ns()
                try:
                    ok = bool(accept(token))
                except GrammarTooComplex:
                    ok = False
                accept_s.append((time.thread_time_ns() - begun) * 1e-9)
                mask_s.append((middle - start) * 1e-9)
                disagreements += allowed != ok
                if not ok:
                    break
            ok = ok and done()
            valid_rejected += test["valid"] and not ok
            invalid_accepted += ok and not test["valid"]
            all_right &= ok == test["valid"]
        right += all_right
    print(f"  refused {refused}, wholly right {right} of {len(cases)}")
    print(f"  valid rejected {valid_rejected}, invalid accepted {invalid_accepted}")
    print(f"  mask disagrees with accept {disagreements}")
    cost = thread_clock_cost()
    for name, values in (
        ("compile + first mask", compile_s),
        ("first mask", first_s),
        ("mask", [max(0.0, t - cost) for t in mask_s]),
        ("accept", [max(0.0, t - cost) for t in accept_s]),
    ):
        print(f"  {name:21s} us  {percentiles(values)}")


def load_cases(folder: Path, limit: int) -> Iterator[dict[str, Any]]:
    """The files whose names have the smallest hashes: a sample of all kinds, since names begin with the kind."""
    paths = sorted(folder.rglob("*.json"), key=lambda path: hashlib.sha256(path.name.encode()).digest())
    for path in paths[:limit]:
        yield json.loads(path.read_text())


def measure_large(cases: list[dict[str, Any]]) -> None:
    """The same of gramcore over the largest vocabulary that mistral_common brings."""
    from bench.grammar.bench_programs import longest_tokens, vocabulary

    _, tokens = vocabulary()
    ranks = {token: i for i, token in enumerate(tokens)}
    for any_order in (False, True):
        info = TokenizerInfo([*tokens, b"</s>"], stop=[len(tokens)])
        print(f"gramcore{', keys in any order' if any_order else ''}: {len(info)} tokens")
        engine = gramcore_engine(info, any_order)
        measure(engine, cases, lambda text: list(longest_tokens(text.encode(), ranks)), len(info), False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--engines", default="gramcore,gramcore-any-order,llguidance,xgrammar")
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    if options.large:
        return measure_large(list(load_cases(options.folder, options.limit)))
    from gramcore.model.hf import find_model
    from gramcore.model.tokenizer import load_tokenizer
    from gramcore.quant import GgufFile

    with GgufFile(find_model("smollm2")) as file:
        tokenizer = load_tokenizer(file)
    cases = list(load_cases(options.folder, options.limit))

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    for name in options.engines.split(","):
        ours = name.startswith("gramcore")
        info = TokenizerInfo.from_gguf(find_model("smollm2"))  # each engine begins with nothing known
        print(name if ours else peer_version(name) or name)
        if ours:
            measure(gramcore_engine(info, name != "gramcore"), cases, encode, len(info), False)
        else:
            try:
                made = {"xgrammar": xgrammar_engine, "llguidance": llguidance_engine}[name](tokenizer, len(info))
            except ImportError as error:
                print(f"  absent: {error}")
                continue
            measure(made, cases, encode, len(info), name == "xgrammar")


if __name__ == "__main__":
    main()
