"""apply_bitmask_: time against torch's own ways and the bandwidth of the machine; cost of one operator call."""

from __future__ import annotations

import torch
from gramcore.grammar.bitmask import apply_bitmask_

from bench.harness import Bench, Contender


def run(bench: Bench) -> None:
    _overhead(bench)
    for rows, vocab, density in ((1, 131_072, 0.5), (64, 131_072, 0.5), (64, 131_072, 0.01)):
        for dtype in (torch.float32, torch.bfloat16):
            _case(bench, rows, vocab, density, dtype)


def _overhead(bench: Bench) -> None:
    logits = torch.zeros(1, 32)
    mask = torch.full((1, 1), -1, dtype=torch.int32)
    operator = torch.ops.gramcore.apply_bitmask_.default

    def check(name: str, _: object) -> None:
        if not torch.equal(logits, torch.zeros(1, 32)):
            raise AssertionError(f"{name} changed an allowed logit")

    bench.case(
        "operator call, one word",
        [
            Contender("gramcore operator", lambda: operator(logits, mask)),
            Contender("gramcore apply_bitmask_", lambda: apply_bitmask_(logits, mask)),
            Contender(f"torch {torch.__version__} add_", lambda: logits.add_(0.0)),
        ],
        check=check,
    )


def _case(bench: Bench, rows: int, vocab: int, density: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    allowed = torch.rand(rows, vocab, generator=generator) < density
    shifts = torch.arange(32)
    mask = (allowed.view(rows, -1, 32).long() << shifts).sum(-1).to(torch.int32)
    source = torch.randn(rows, vocab, generator=generator).to(dtype)
    want = source.masked_fill(~allowed, -torch.inf)
    logits = source.clone()
    forbidden = ~allowed

    def check(name: str, _: object) -> None:
        if not torch.equal(logits, want):
            raise AssertionError(f"{name} does not equal masked_fill")
        logits.copy_(source)

    moved = logits.numel() * logits.element_size() + mask.numel() * 4
    bench.case(
        f"{rows} x {vocab} {str(dtype).removeprefix('torch.')}, {density:.0%} allowed",
        [
            Contender("gramcore", lambda: apply_bitmask_(logits, mask)),
            Contender(
                f"torch {torch.__version__} masked_fill_ of a bool mask",
                lambda: logits.masked_fill_(forbidden, -torch.inf),
            ),
        ],
        check=check,
        bytes_moved=moved,
        limit_bytes_per_s=bench.limits.copy_gb_s * 1e9,
    )
