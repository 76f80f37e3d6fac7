"""Draft parts by the name that their files carry."""

from __future__ import annotations

from typing import Any

__all__ = ["kinds"]


def kinds() -> dict[str, Any]:
    """Name in files and on the command line -> class."""
    from gramcore.spec.heads.clover import Clover
    from gramcore.spec.heads.eagle import Eagle
    from gramcore.spec.heads.mlp_speculator import MLPSpeculator
    from gramcore.spec.heads.prompt_tokens import PromptTokenHeads
    from gramcore.spec.heads.residual import BlockHeads, Koala

    return {made.kind: made for made in (BlockHeads, Koala, Eagle, MLPSpeculator, Clover, PromptTokenHeads)}
