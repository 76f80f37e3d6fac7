"""``python -m gramcore.demo`` (``make demo``): the main job on a real model, every claim checked as it is printed.

Loads SmolLM2-135M-Instruct from its GGUF, generates with and without speculation and inside a grammar, builds an
n-gram index over Python's own documentation strings, and takes fused-optimizer steps beside torch's.  Each row of the
final table is a claim with its check; the exit status is 1 if one does not hold.
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from gramcore.model import Session

__all__ = ["Claim", "main"]

_PASSAGE = (
    "def moving_average(values, window):\n"
    '    """Return the averages of every run of `window` neighbouring values."""\n'
    "    if window < 1:\n"
    "        raise ValueError(f'window must be >= 1, got {window}')\n"
    "    total = sum(values[:window])\n"
    "    averages = [total / window]\n"
    "    for left, right in zip(values, values[window:]):\n"
    "        total += right - left\n"
    "        averages.append(total / window)\n"
    "    return averages\n"
)
_COPY = f"{_PASSAGE}\n\n# The same function, copied into another module:\n\n"
_EDIT = f"Repeat this Python function exactly, with the argument `window` renamed to `size`:\n\n{_PASSAGE}"
_SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 30},
        "country": {"type": "string", "maxLength": 30},
        "population": {"type": "integer"},
    },
    "required": ["city", "country", "population"],
    "additionalProperties": False,
}
_NEW_TOKENS = 160


@dataclass(frozen=True)
class Claim:
    """One row of the final table: what ran, the figures, and whether the check held."""

    what: str
    figures: str
    check: str
    holds: bool


def main() -> int:
    """Run the demonstration; returns the exit status."""
    console = Console(width=min(Console().width, 150))
    import gramcore

    console.print(str(gramcore.info()), markup=False)
    claims: list[Claim] = []
    for title, part in (
        ("Speculative decoding", _speculation),
        ("Grammar", _grammar),
        ("N-gram index", _index),
        ("Fused optimizer", _optimizer),
    ):
        console.rule(title)
        claims += part(console)
    table = Table(title="gramcore: what ran here, and what was checked")
    for column in ("what", "figures", "check", "holds"):
        table.add_column(column)
    for c in claims:
        table.add_row(c.what, c.figures, c.check, "[green]yes" if c.holds else "[red]NO")
    console.print(table)
    return 0 if all(c.holds for c in claims) else 1


@functools.cache
def _session() -> Session:
    from gramcore.model import open_model

    return open_model("smollm2", bits=4)


def _speculation(console: Console) -> list[Claim]:
    from gramcore import spec
    from gramcore.cli.generate import TokenPrinter

    session = _session()
    runs: tuple[tuple[str, Any, dict[str, Any]], ...] = (
        ("chat, greedy", session.encode(_EDIT), {}),
        ("chat, sampled at temperature 0.7", session.encode(_EDIT), {"temperature": 0.7, "seed": 1}),
        ("copying text, greedy", session.encode(_COPY, chat=False), {}),
    )
    claims = []
    for label, ids, options in runs:
        settings = {"max_new_tokens": _NEW_TOKENS, "eos_token_id": session.stop_token_ids, **options}
        plain = spec.generate(session.host, ids, drafter=None, **settings)
        console.print(f"[dim]{label}:[/dim]")
        printer = TokenPrinter(session.tokenizer)
        fast = spec.generate(session.host, ids, drafter=spec.SuffixDrafter(), streamer=printer, **settings)
        console.print()
        identical = list(plain.tokens) == list(fast.tokens)
        figures = (
            f"plain {_rate(plain):.1f} tok/s, speculative {_rate(fast):.1f} tok/s "
            f"({_rate(fast) / _rate(plain):.2f}x), {fast.stats.tokens_per_step:.2f} tokens per forward"
        )
        claims.append(Claim(f"{label}; int4, suffix drafter", figures, "identical to plain decoding", identical))
    return claims


def _rate(result: Any) -> float:
    return float(result.stats.tokens_per_s)


def _grammar(console: Console) -> list[Claim]:
    from gramcore import grammar as g
    from gramcore import spec
    from gramcore.cli.generate import TokenPrinter

    session = _session()
    tokenizer = session.tokenizer
    info = g.TokenizerInfo.from_huggingface(tokenizer)
    started = time.perf_counter()
    compiled = g.GrammarCompiler(info).compile(g.Grammar.from_json_schema(_SCHEMA))
    compile_ms = (time.perf_counter() - started) * 1e3
    result = spec.generate(
        session.host,
        session.encode("Give the capital of France as JSON with city, country and population."),
        drafter=spec.SuffixDrafter(),
        grammar=g.GrammarMatcher(compiled),
        max_new_tokens=80,
        eos_token_id=session.stop_token_ids,
        streamer=TokenPrinter(tokenizer),
    )
    console.print()
    text = tokenizer.decode(list(result.tokens), skip_special_tokens=True)
    figures = f"compiled in {compile_ms:.2f} ms, {len(result.tokens)} tokens"
    return [Claim("JSON Schema grammar over 49k tokens", figures, "the text is JSON of the schema", _conforms(text))]


def _conforms(text: str) -> bool:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return False
    kinds = {"city": str, "country": str, "population": int}
    if not isinstance(value, dict) or value.keys() != kinds.keys():
        return False
    return all(type(value[key]) is kind for key, kind in kinds.items())


def _index(console: Console) -> list[Claim]:
    from gramcore import ngram

    tokenizer = _session().tokenizer
    documents = [np.asarray(tokenizer(t).input_ids, np.uint16) for t in _python_documentation()]
    tokens = np.concatenate(documents)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        ngram.build_index(documents, folder, token_dtype="u16", progress=False)
        seconds = time.perf_counter() - started
        index = ngram.Index(folder)
        rng = np.random.default_rng(0)
        starts = rng.integers(0, len(tokens) - 3, 200)
        queries = [tokens[s : s + 3].astype(np.int32) for s in starts]
        started = time.perf_counter()
        counts = [index.count(q) for q in queries]
        micros = (time.perf_counter() - started) / len(queries) * 1e6
        exact = all(c == _brute_count(documents, q) for c, q in zip(counts[:25], queries[:25], strict=True))
    console.print(f"{len(documents)} documents, {len(tokens):,} tokens")
    figures = f"built at {len(tokens) / seconds / 1e6:.2f} Mtok/s, trigram count {micros:.2f} us"
    return [Claim("suffix-array index over Python's docstrings", figures, "counts equal a scan of the text", exact)]


def _python_documentation() -> list[str]:
    """Docstrings of the standard library that this interpreter ships: real text, nothing to download."""
    import importlib
    import inspect

    names = "argparse asyncio collections datetime decimal email.message fractions functools http.client inspect io "
    names += "ipaddress itertools json logging os pathlib pickle random re shutil socket statistics string subprocess "
    names += "tarfile tempfile textwrap threading typing unittest urllib.request uuid zipfile"
    texts = []
    for name in names.split():
        module = importlib.import_module(name)
        members = [module, *(m for _, m in inspect.getmembers(module) if inspect.isclass(m) or inspect.isroutine(m))]
        for member in members:
            text = inspect.getdoc(member)
            if text and len(text) > 80:
                texts.append(text)
    return sorted(set(texts))


def _brute_count(documents: list[Any], query: Any) -> int:
    n = len(query)
    return sum(
        int(np.all(np.lib.stride_tricks.sliding_window_view(d, n) == query, axis=1).sum())
        for d in documents
        if len(d) >= n
    )


def _optimizer(console: Console) -> list[Claim]:
    import torch

    from gramcore import optim

    def make(seed: int = 0) -> list[torch.nn.Parameter]:
        generator = torch.Generator().manual_seed(seed)
        shapes = [(576, 576), (1536, 576), (576, 1536), (576,)] * 6
        return [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]

    ours, theirs = make(), make()
    for a, b in zip(ours, theirs, strict=True):
        a.grad = torch.randn_like(a)
        b.grad = a.grad.clone()
    settings: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.1}
    pair = (optim.AdamW(ours, **settings), torch.optim.AdamW(theirs, fused=True, **settings))
    # One after the other: torch's OpenMP threads spin for a while after a step and would hold the cores.
    mine, peer = (_step_seconds(optimizer) for optimizer in pair)
    numel = sum(p.numel() for p in ours)
    mine, peer = mine / numel * 1e9, peer / numel * 1e9
    with torch.no_grad():
        worst = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    state_bytes = sum(
        t.numel() * t.element_size() for s in pair[0].state.values() for t in s.values() if torch.is_tensor(t)
    )
    console.print(f"{numel:,} parameters, largest difference after 30 steps {worst:.2e}")
    figures = (
        f"{mine:.3f} ns/param, torch fused {peer:.3f} ns/param ({peer / mine:.2f}x), "
        f"{state_bytes / numel:.1f} B/param of state"
    )
    return [Claim("AdamW fp32, fused over 24 tensors", figures, "equals torch within 1e-5", worst < 1e-5)]


def _step_seconds(optimizer: Any, steps: int = 30) -> float:
    """Median time of a step."""
    spent = []
    for _ in range(steps):
        started = time.perf_counter()
        optimizer.step()
        spent.append(time.perf_counter() - started)
    return float(np.median(spent))


if __name__ == "__main__":
    sys.exit(main())
