"""Masks of programs and of batches over a large vocabulary: SQL and C-like grammars, 32 rows, task grammars.

    python -m bench.grammar.bench_programs [--texts N] [--names N]

The vocabulary is the largest one that mistral_common brings (131,072 tokens), read as bytes; texts are random programs
cut into the longest tokens.  One thread; at every step the bit of the next token is checked against accept.  Times are
of the thread's clock less what reading it takes, over all texts by one compiled grammar: the first text meets nothing,
later ones more and more of what they need.  llguidance walks the same tokens where it is installed.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gramcore.grammar import (
    BatchMatcher,
    Catalogue,
    Grammar,
    GrammarCompiler,
    GrammarMatcher,
    TokenizerInfo,
    constituency_parse,
    disambiguation,
    information_extraction,
)

from bench.grammar.bench_schemas import percentiles, thread_clock_cost
from bench.harness import peer_version

__all__ = ["main"]

SQL = r"""
start: select ";"
select: "SELECT"i cols "FROM"i tables where? order?
cols: "*" | expr ("," expr)*
tables: NAME join*
join: "JOIN"i NAME "ON"i expr
where: "WHERE"i expr
order: "ORDER"i "BY"i expr ("," expr)*
expr: expr "OR"i conj | conj
conj: conj "AND"i cmp | cmp
cmp: sum (("=" | "<" | ">" | "<=" | ">=" | "<>" | "LIKE"i) sum)?
sum: sum ("+" | "-") term | term
term: term ("*" | "/") atom | atom
atom: NAME | NAME "." NAME | NUMBER | STRING | "(" expr ")" | NAME "(" expr ("," expr)* ")" | "(" select ")"
NAME: /[A-Za-z_][A-Za-z0-9_]*/
NUMBER: /[0-9]+(\.[0-9]+)?/
STRING: /'[^'\n]*'/
%ignore /[ \t\n]+/
"""

C = r"""
start: func+
func: type NAME "(" (type NAME ("," type NAME)*)? ")" block
type: ("int" | "char" | "float" | "void") "*"*
block: "{" stmt* "}"
stmt: type NAME ("=" expr)? ";" | expr ";" | "return" expr? ";" | "if" "(" expr ")" stmt ("else" stmt)? | "while" "(" expr ")" stmt | block
expr: lor | un ("=" | "+=" | "-=") expr
lor: lor "||" land | land
land: land "&&" eq | eq
eq: eq ("==" | "!=") rel | rel
rel: rel ("<" | ">" | "<=" | ">=") add | add
add: add ("+" | "-") mul | mul
mul: mul ("*" | "/" | "%") un | un
un: ("-" | "!" | "*" | "&") un | post
post: post "(" (expr ("," expr)*)? ")" | post "[" expr "]" | post "++" | prim
prim: NAME | NUM | STR | "(" expr ")"
NAME: /[A-Za-z_][A-Za-z0-9_]*/
NUM: /[0-9]+/
STR: /"[^"\n]*"/
%ignore /[ \t\n]+/
"""  # noqa: E501

NAMES = ("alpha", "b2", "total_sum", "Kunde", "q", "zeta9")


def c_expr(r: random.Random, depth: int = 0) -> str:
    name, kind = r.choice(NAMES), r.random()
    if depth > 2 or kind < 0.35:
        return name
    if kind < 0.5:
        return str(r.randrange(9999))
    if kind < 0.6:
        return f'"{name} {r.choice(NAMES)}"'
    if kind < 0.75:
        return f"{name}({c_expr(r, depth + 1)}, {c_expr(r, depth + 1)})"
    if kind < 0.85:
        return f"{name}[{c_expr(r, depth + 1)}]"
    return c_expr(r, depth + 1) + r.choice([" + ", " * ", " == ", " && "]) + name


def c_statement(r: random.Random, depth: int = 0) -> str:
    kind = r.random()
    if depth < 2 and kind < 0.3:
        return f"if ({c_expr(r)}) {{ {c_statement(r, depth + 1)} }}"
    if depth < 2 and kind < 0.5:
        return f"while ({c_expr(r)}) {{ {c_statement(r, depth + 1)} {c_statement(r, depth + 1)} }}"
    return r.choice([f"int {r.choice(NAMES)} = {c_expr(r)};", f"return {c_expr(r)};", f"{c_expr(r)};"])


def c_program(r: random.Random) -> str:
    return f"int {r.choice(NAMES)}(int {r.choice(NAMES)}) {{ {' '.join(c_statement(r) for _ in range(3))} }}"


def sql_expr(r: random.Random, depth: int = 0) -> str:
    name, kind = r.choice(NAMES), r.random()
    if depth > 2 or kind < 0.4:
        return name if kind < 0.2 else f"{r.choice(NAMES)}.{name}"
    if kind < 0.5:
        return f"{r.randrange(9999)}.5"
    if kind < 0.6:
        return f"'{name} %'"
    if kind < 0.7:
        return f"(SELECT max({name}) FROM {r.choice(NAMES)})"
    return f"({sql_expr(r, depth + 1)})" + r.choice([" + ", " * ", " = ", " AND "]) + f"({sql_expr(r, depth + 1)})"


def sql_query(r: random.Random) -> str:
    columns = ", ".join(sql_expr(r) for _ in range(1 + r.randrange(3)))
    tables = f"{r.choice(NAMES)} JOIN {r.choice(NAMES)} ON {r.choice(NAMES)} = {sql_expr(r, 3)}"
    return f"SELECT {columns} FROM {tables} WHERE {sql_expr(r)} ORDER BY {sql_expr(r, 2)};"


def vocabulary() -> tuple[dict[str, Any], list[bytes]]:
    import mistral_common

    files = sorted(Path(mistral_common.__file__).parent.rglob("tekken*.json"))
    if not files:
        raise FileNotFoundError("mistral_common brings no tekken vocabulary")
    data = json.loads(files[-1].read_text())
    config = data["config"]
    special = config["default_num_special_tokens"]
    ranks = [base64.b64decode(v["token_bytes"]) for v in data["vocab"][: config["default_vocab_size"] - special]]
    return config, ranks


def longest_tokens(text: bytes, ranks: dict[bytes, int]) -> Iterator[int]:
    i = 0
    while i < len(text):
        n = next(n for n in range(min(24, len(text) - i), 0, -1) if text[i : i + n] in ranks)
        yield ranks[text[i : i + n]]
        i += n


def walk(
    new: Callable[[], tuple[Callable[[Any], Any], Callable[[int], bool]]], texts: list[list[int]], mask: Any
) -> None:
    """Print the mask and accept times over all texts."""
    clock, cost = time.thread_time_ns, thread_clock_cost()
    fill_s, accept_s, first, wrong = [], [], 0, 0
    for text in texts:
        fill, accept = new()
        for token in text:
            start = clock()
            fill(mask)
            middle = clock()
            ok = accept(token)
            accept_s.append(max(0.0, (clock() - middle) * 1e-9 - cost))
            fill_s.append(max(0.0, (middle - start) * 1e-9 - cost))
            wrong += not ok or not mask[0, token // 32] >> (token % 32) & 1
        first = first or len(fill_s)
    print(f"    {len(texts)} texts, {len(fill_s)} steps, wrong {wrong}")
    for name, values in (
        ("mask", fill_s),
        ("  first text", fill_s[:first]),
        ("  last half", fill_s[len(fill_s) // 2 :]),
    ):
        print(f"    {name:12s} us  {percentiles(values)}")
    print(f"    {'accept':12s} us  {percentiles(accept_s)}")


def programs(info: TokenizerInfo, config: dict[str, Any], ranks: dict[bytes, int], count: int) -> None:
    mask = np.zeros((1, (len(info) + 31) // 32), np.int32)
    for name, source, make in (("SQL", SQL, sql_query), ("C-like", C, c_program)):
        r = random.Random(2)
        texts = [list(longest_tokens(make(r).encode(), ranks)) for _ in range(count)]
        start = time.perf_counter()
        compiled = GrammarCompiler(info).compile(Grammar.from_lark(source))
        GrammarMatcher(compiled).fill_bitmask(mask)
        print(f"{name}: gramcore, compile + first mask {1e3 * (time.perf_counter() - start):.1f} ms")

        def ours(compiled: Any = compiled) -> Any:
            native = GrammarMatcher(compiled)._native
            return native.fill_bitmask, native.accept

        walk(ours, texts, mask)
        print(f"    {compiled.num_states} states, {compiled.num_bytes / 1e6:.0f} MB")
        if (version := peer_version("llguidance")) is None or peer_version("tiktoken") is None:
            continue
        import llguidance
        import llguidance.tiktoken
        import tiktoken

        encoding = tiktoken.Encoding(
            "bench", pat_str=config["pattern"], mergeable_ranks=ranks, special_tokens={"</s>": len(ranks)}
        )
        tokenizer = llguidance.tiktoken.lltokenizer_from_encoding(encoding, eos_token=len(ranks))

        def peer(source: str = source, tokenizer: Any = tokenizer) -> Any:
            matcher = llguidance.LLMatcher(tokenizer, llguidance.grammar_from("lark", source), log_level=0)
            return lambda out: matcher.unsafe_compute_mask_ptr(out.ctypes.data, out.nbytes), matcher.consume_token

        print(f"{name}: {version}")
        walk(peer, texts, mask)


def batch(info: TokenizerInfo, ranks: dict[bytes, int], rows: int = 32) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "integer"}}},
        "required": ["a", "b"],
    }
    compiled = GrammarCompiler(info).compile(Grammar.from_json_schema(schema))
    text = b'{"a": "some text of moderate length here", "b": [1, 22, 333, 4]}'
    masks = np.zeros((rows, (len(info) + 31) // 32), np.int32)
    for name in ("first", "second", "third"):
        matchers = BatchMatcher([GrammarMatcher(compiled) for _ in range(rows)])
        times = []
        for token in longest_tokens(text, ranks):
            start = time.perf_counter()
            matchers.fill_bitmasks(masks)
            times.append(time.perf_counter() - start)
            if not matchers.accept([token] * rows).all():
                raise AssertionError(f"token {token} was refused")
        print(f"{rows} rows of a schema, {name} pass: us per step  {percentiles(times)}")


def tasks(info: TokenizerInfo, count: int) -> None:
    rng = np.random.default_rng(0)
    names = [f"{v:x} name {i}" for i, v in enumerate(rng.integers(0, 1 << 40, count))]
    compiler = GrammarCompiler(info)
    mask = np.zeros((1, (len(info) + 31) // 32), np.int32)
    start = time.perf_counter()
    catalogue = Catalogue(names)
    print(f"catalogue of {count} names: {time.perf_counter() - start:.1f} s")
    sentence = "the quick brown fox jumps over dog"
    makers: dict[str, Callable[[int], Grammar]] = {
        "information extraction": lambda i: information_extraction(catalogue, Catalogue([f"relation {i}", "in"])),
        "disambiguation": lambda i: disambiguation(names[50 * i : 50 * i + 50]),
        "constituency parse": lambda i: constituency_parse([*sentence.split(), str(i)], ["S", "NP", "VP"]),
    }
    for name, make in makers.items():
        times = []
        for i in range(20):
            start = time.perf_counter()
            GrammarMatcher(compiler.compile(make(i))).fill_bitmask(mask)
            times.append(time.perf_counter() - start)
        print(f"{name}, grammar + compile + first mask: us  {percentiles(times)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=60)
    parser.add_argument("--names", type=int, default=1_000_000)
    options = parser.parse_args()
    try:
        config, tokens = vocabulary()
    except (ImportError, FileNotFoundError) as error:
        sys.exit(f"no large vocabulary: {error}; install mistral_common")
    ranks = {token: i for i, token in enumerate(tokens)}
    info = TokenizerInfo([*tokens, b"</s>"], stop=[len(tokens)])
    print(f"{len(info)} tokens")
    programs(info, config, ranks, options.texts)
    batch(info, ranks)
    tasks(info, options.names)


if __name__ == "__main__":
    main()
