"""Instances that the packaged model writes under real schemas, checked by `jsonschema`.

    python -m bench.grammar.bench_generate FOLDER [--count N] [--max-new-tokens N] [--in-time]

FOLDER is that of bench_schemas.  The first N schemas that strict mode takes are each shown to SmolLM2-135M-Instruct,
which samples one instance (temperature 0.7, seed 0).  Finished instances must be valid; others ran out of tokens,
unless --in-time leads every text to its end within them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from gramcore import spec
from gramcore.grammar import Grammar, GrammarCompiler, GrammarMatcher, GrammarTooComplex, TokenizerInfo

from bench.grammar.bench_schemas import load_cases

__all__ = ["main"]


def write_instance(
    session: Any, compiled: Any, schema: Any, max_new_tokens: int, in_time: bool
) -> tuple[str, int, bool]:
    """The text under the schema, its number of tokens, and whether it is finished."""
    prompt = session.encode(f"Write a short JSON instance of this schema: {json.dumps(schema)[:2000]}")
    result = spec.generate(
        session.host,
        prompt,
        max_new_tokens=max_new_tokens,
        temperature=0.7,
        seed=0,
        drafter=spec.SuffixDrafter(),
        grammar=GrammarMatcher(compiled, max_tokens=max_new_tokens if in_time else None),
        eos_token_id=session.stop_token_ids,
    )
    tokens = list(result.tokens)
    finished = bool(tokens) and tokens[-1] in session.stop_token_ids
    return session.tokenizer.decode(tokens, skip_special_tokens=True), len(tokens), finished


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--max-new-tokens", type=int, default=300)
    parser.add_argument("--in-time", action="store_true")
    options = parser.parse_args()
    import jsonschema
    from gramcore.model import open_model

    session = open_model("smollm2")
    compiler = GrammarCompiler(TokenizerInfo.from_huggingface(session.tokenizer))
    seen = valid = unfinished = tokens = 0
    invalid: list[str] = []
    start = time.perf_counter()
    for case in load_cases(options.folder, 10**9):
        if seen == options.count:
            break
        try:
            compiled = compiler.compile(Grammar.from_json_schema(json.dumps(case["schema"]), strict=True, spaces=False))
        except (ValueError, GrammarTooComplex):
            continue
        seen += 1
        text, length, finished = write_instance(
            session, compiled, case["schema"], options.max_new_tokens, options.in_time
        )
        tokens += length
        if not finished:
            unfinished += 1
            continue
        kind = jsonschema.validators.validator_for(case["schema"], default=jsonschema.Draft202012Validator)
        if kind(case["schema"]).is_valid(json.loads(text)):
            valid += 1
        else:
            invalid.append(text)
    print(f"{seen} schemas: {valid} valid, {len(invalid)} invalid, {unfinished} unfinished")
    each = 1e3 * (time.perf_counter() - start) / max(1, tokens)
    print(f"{tokens} tokens, {each:.1f} ms each, model and compilation too")
    for text in invalid:
        print(f"  invalid: {text}")


if __name__ == "__main__":
    main()
