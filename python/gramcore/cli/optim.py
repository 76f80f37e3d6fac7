"""``gramcore optim list|memory``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gramcore.cli import app

optim = typer.Typer(help="Fused optimizers.", no_args_is_help=True)
app.add_typer(optim, name="optim")


@optim.command("list")
def list_() -> None:
    """Name every optimizer, and what works around one."""
    from gramcore._registry import rows

    listed = rows(family="optim")
    width = max(len(row.name) for row in listed)
    for row in listed:
        typer.echo(f"{row.name:<{width}} {row.summary:<60} {row.paper}")


@optim.command()
def memory(
    config: Annotated[str, typer.Argument(help="model directory or config.json of transformers")],
    dtype: Annotated[str, typer.Option(help="of the parameters: float32, bfloat16 or float16")] = "bfloat16",
) -> None:
    """Print the bytes of state each optimizer keeps for a model, without loading its weights."""
    import torch

    from gramcore._checks import check_choice, require
    from gramcore.optim.by_name import names, state_bytes

    check_choice("dtype", dtype, ("float32", "bfloat16", "float16"))
    is_path = config.startswith((".", "/", "~")) or config.endswith((".json", ".gguf"))
    if is_path and not Path(config).expanduser().exists():
        raise FileNotFoundError(
            f"config must be a model directory, config.json or model name, got {config}: no such file"
        )
    transformers = require("transformers", "hf")
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(config))
    shapes = [tuple(p.shape) for p in model.parameters()]
    numel = sum(p.numel() for p in model.parameters())
    typer.echo(f"{numel / 1e6:.1f}M parameters in {len(shapes)} tensors, {dtype}")
    for name in names():
        total = state_bytes(name, shapes, getattr(torch, dtype))
        typer.echo(f"{name:<18} {total / 2**20:10.1f} MiB {total / numel:8.3f} bytes per parameter")
