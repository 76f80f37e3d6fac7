"""``gramcore quantize``: quantise a model, report what it cost, save it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gramcore.cli import app
from gramcore.cli._files import check_targets, read_file


@app.command()
def quantize(
    model: Annotated[str | None, typer.Argument(help="GGUF file, model folder, or smollm2")] = None,
    scheme: Annotated[str, typer.Option(help="a scheme name; `list` prints them")] = "int4_g32_asym",
    out: Annotated[Path | None, typer.Option(help="write the quantised model here (safetensors)")] = None,
    text: Annotated[Path | None, typer.Option(help="text for calibration and perplexity")] = None,
    self_calibrate: Annotated[
        bool, typer.Option("--self-calibrate", help="calibrate on tokens the model samples, not on --text")
    ] = False,
    max_tokens: Annotated[int, typer.Option(min=2, help="tokens of the text to use, and to sample")] = 2048,
    plot: Annotated[Path | None, typer.Option(help="write a per-layer error plot here (needs matplotlib)")] = None,
) -> None:
    """Quantise a dense copy of a model; print bits and error per layer, and perplexity before and after on --text.

    Everything that can be wrong with the options is said before the work begins.
    """
    from gramcore.quant.schemes import resolve, scheme_names

    if scheme == "list":
        typer.echo("\n".join(scheme_names()))
        return
    if model is None:
        raise ValueError("model must be given, got none; name a GGUF file, a model folder, or smollm2")
    codec = resolve(scheme)
    if codec.needs_inputs and text is None and not self_calibrate:
        raise ValueError(f"--text must be given for scheme {scheme}, which is calibrated; or pass --self-calibrate")
    content = _read(text) if text else None
    check_targets(out=out, plot=plot)
    if plot is not None:
        _check_picture(plot)

    import copy

    import torch

    from gramcore.model.hf import load, load_folder
    from gramcore.quant import compare, quantize_, sample_texts, save_quantized

    saved = (Path(model) / "config.json").is_file()
    dense, tokenizer = load_folder(model, torch.float32) if saved else load(model, bits=32)
    ids = None if content is None else torch.tensor(tokenizer(content)["input_ids"][:max_tokens])
    if ids is not None and len(ids) < 2:
        raise ValueError(f"text must have at least two tokens, got {len(ids)} ({str(text)!r})")
    quantised = copy.deepcopy(dense)
    calibration = None
    if codec.needs_inputs and (self_calibrate or ids is None):
        calibration = sample_texts(dense, length=max(2, max_tokens // 16))
    elif codec.needs_inputs and ids is not None:
        calibration = [ids[i : i + 512].unsqueeze(0) for i in range(0, len(ids), 512)]
    report = quantize_(quantised, codec, calibration=calibration)
    typer.echo(str(report))
    if ids is not None:
        d = compare(quantised, dense, ids)
        typer.echo(
            f"perplexity {d.reference_perplexity:.3f} -> {d.perplexity:.3f}, KL {d.kl:.4f} nats, "
            f"same top token {100 * d.agreement_frac:.1f} % ({d.num_tokens} tokens)"
        )
    if out is not None:
        save_quantized(quantised, out)
        typer.echo(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")
    if plot is not None:
        _plot(report, plot, scheme)
        typer.echo(f"wrote {plot}")


def _check_picture(path: Path) -> None:
    """matplotlib is there and knows the kind of picture."""
    from gramcore._checks import require

    require("matplotlib", "bench")
    kinds = sorted(require("matplotlib.backend_bases", "bench").FigureCanvasBase.filetypes)
    if path.suffix.removeprefix(".").lower() not in kinds:
        raise ValueError(f"--plot must end in one of {', '.join('.' + k for k in kinds)}, got {str(path)!r}")


def _read(path: Path) -> str:
    content = read_file("text", path, errors="replace")
    if not content.strip():
        raise ValueError(f"text must not be empty, got {str(path)!r}")
    return content


def _plot(report: object, path: Path, scheme: str) -> None:
    from gramcore._checks import require
    from gramcore.quant import QuantReport

    assert isinstance(report, QuantReport)
    require("matplotlib", "bench").use("Agg")
    pyplot = require("matplotlib.pyplot", "bench")
    figure, axes = pyplot.subplots(figsize=(10, 4), layout="constrained")
    axes.plot([r.error for r in report.layers], marker=".", linewidth=0.8)
    axes.set(
        xlabel="layer in model order", ylabel="relative RMS error of the weight", title=f"{scheme}: error per layer"
    )
    axes.set_ylim(bottom=0)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
