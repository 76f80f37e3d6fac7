"""The device branch of the torch operators: there exactly when the build has CUDA."""

from __future__ import annotations

import gramcore
import pytest
import torch
from gramcore.torch_ops import ops


@pytest.mark.parametrize(
    "name",
    [
        "apply_bitmask_",
        "tree_attention",
        "tree_attention_ragged",
        "kv_compact_",
        "linear_packed",
        "linear_bipolar",
        "linear_binary",
        "linear_table",
        "dequantize_table",
        "dequantize_packed",
        "embedding_packed",
    ],
)
def test_operators_with_a_twin_have_it(name: str) -> None:
    ops()
    built = gramcore.info().cuda_status != "built without CUDA"
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"gramcore::{name}", "CUDA") == built
