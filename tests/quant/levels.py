"""Products at every instruction-set level that rounds alike."""

from __future__ import annotations

import gramcore
import numpy as np
import torch
from gramcore.quant import linear
from gramcore.quant.base import QTensor

__all__ = ["assert_fused_levels_agree"]


def assert_fused_levels_agree(q: QTensor, rows: int) -> None:
    """Levels with fused multiply-add give one product of ``rows`` rows, to the bit."""
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((rows, q.shape[1])).astype(np.float32))
    before, results = gramcore.cpu_level(), []
    for level in gramcore.cpu_info()[1]:
        if level != "base" or "avx2" not in gramcore.cpu_info()[1]:
            gramcore.set_cpu_level(level)
            results.append(linear(x, q))
    gramcore.set_cpu_level(before)
    assert all(torch.equal(r, results[0]) for r in results)
