"""Evidence of learning: a small byte-level Llama on real text, once per optimizer, same data and seed.

    python -m bench.optim.train_tiny --steps 200 --out build/train_tiny.csv [--names AdamW,GaLore] [--plot tiny.png]

Text: the sources of the Python standard library. Compare implementations of one rule; learning rates are not tuned.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import importlib.util
import re
import sysconfig
import time
from pathlib import Path
from typing import Any

import torch
from gramcore._checks import require
from gramcore.optim import FusedOptimizer, ZerothOrder, create
from gramcore.optim.by_name import names

#: Learning rates of the recipes where they are not AdamW's: low-rank methods use ten times as much.
RATES = {"AdamW": 3e-3, "AdamW-8bit": 3e-3, "AdamW-4bit": 3e-3, "Grams": 3e-3, "Lion": 5e-4, "Adam-mini": 3e-3}
RATES |= {"GaLore": 1e-2, "Fira": 1e-2, "APOLLO": 1e-2, "APOLLO-Mini": 1e-2, "FRUGAL": 3e-3, "GWT": 1e-2}
RATES |= {"Adafactor": 2e-2, "AdaLomo": 2e-2, "CAME": 1e-3, "SGD": 0.3, "SGD-momentum": 0.03, "Sophia": 3e-4}
RATES |= {"GaLore+": 1e-2, "GradNormLoRP": 1e-2, "Grass": 1e-2, "COSMOS": 1e-2, "Lion-8bit": 5e-4, "AdamWScale": 3e-2}
RATES |= {"MeZO": 1e-4, "ZO-Adam": 3e-4, "ZO-SGD-MMT": 1e-5, "ZO-SGD-Sign": 1e-3, "ZO-SGD-Cons": 1e-4}
RATES |= {"ZO-Sparse": 1e-4, "ZO-Blockwise": 1e-4, "ForwardGradient": 1e-4}
RATE = 3e-3
ARGUMENTS: dict[str, dict[str, object]] = {
    "GaLore": {"rank": 32, "refresh_every": 50},
    "Fira": {"rank": 32, "refresh_every": 50},
    "APOLLO": {"rank": 32, "refresh_every": 50},
    "GaLore+": {"rank": 32, "refresh_every": 50, "heads": 4},
    "GradNormLoRP": {"rank": 32, "refresh_every": 50},
    "Grass": {"rank": 32, "refresh_every": 50},
}
#: Official packages beside the rule of ours whose learning rate they share; run when installed.
PEERS: dict[str, tuple[str, str, dict[str, object]]] = {
    "torch AdamW": ("AdamW", "torch.optim:AdamW", {"fused": True}),
    "bitsandbytes AdamW8bit": ("AdamW-8bit", "bitsandbytes.optim:AdamW8bit", {}),
    "came-pytorch": ("CAME", "came_pytorch:CAME", {}),
}
BATCH, LENGTH = 8, 128


def load_text(limit: int = 8 << 20) -> torch.Tensor:
    root = Path(sysconfig.get_paths()["stdlib"])
    data = b""
    for path in sorted(root.glob("*.py")):
        data += path.read_bytes()
        if len(data) >= limit:
            break
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def make_model() -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        attn_implementation="eager",  # has a forward derivative
        vocab_size=256,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
    )
    return LlamaForCausalLM(config)


def batch_of(text: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    starts = torch.randint(text.numel() - LENGTH, (BATCH,), generator=generator)
    return torch.stack([text[s : s + LENGTH] for s in starts.tolist()]).long()


@torch.no_grad()
def validation_loss(model: torch.nn.Module, text: torch.Tensor) -> float:
    generator = torch.Generator().manual_seed(1)
    losses = [model(input_ids=x, labels=x).loss.item() for x in (batch_of(text, generator) for _ in range(8))]
    return sum(losses) / len(losses)


def train(name: str, text: torch.Tensor, steps: int) -> list[dict[str, object]]:
    cut = text.numel() * 9 // 10
    model = make_model()
    optimizer: Any
    if name in PEERS:
        rule, path, arguments = PEERS[name]
        module, _, attribute = path.partition(":")
        factory = getattr(importlib.import_module(module), attribute)
        optimizer = factory(model.parameters(), lr=RATES.get(rule, RATE), **arguments)
    else:
        optimizer = create(name, model, lr=RATES.get(name, RATE), **ARGUMENTS.get(name, {}))
    zeroth = isinstance(optimizer, ZerothOrder)
    base = optimizer.base if zeroth else optimizer
    schedule = torch.optim.lr_scheduler.LambdaLR(base, lambda t: min(1.0, (t + 1) / 20) * (1 - 0.9 * t / steps))
    generator = torch.Generator().manual_seed(0)
    rows: list[dict[str, object]] = []
    started = time.perf_counter()
    for t in range(1, steps + 1):
        x = batch_of(text[:cut], generator)
        if zeroth:
            loss = optimizer.step(lambda: model(input_ids=x, labels=x).loss)  # noqa: B023
        else:
            optimizer.zero_grad()
            loss = model(input_ids=x, labels=x).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        if t % max(1, steps // 20) == 0:
            held = base.state_bytes() if isinstance(base, FusedOptimizer) else bytes_of(base)
            rows.append({"optimizer": name, "step": t, "loss": round(loss.item(), 4), "state_bytes": held})
    rows[-1]["validation"] = round(validation_loss(model, text[cut:]), 4)
    rows[-1]["seconds"] = round(time.perf_counter() - started, 1)
    print(f"{name:<14} validation {rows[-1]['validation']} nats/byte, state {rows[-1]['state_bytes']} bytes")
    return rows


def bytes_of(optimizer: torch.optim.Optimizer) -> int:
    values = (v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor))
    return sum(v.numel() * v.element_size() for v in values)


def read_rows(path: Path) -> list[dict[str, object]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{k: v if k == "optimizer" else float(v or "nan") for k, v in r.items()} for r in csv.DictReader(file)]


def write_rows(rows: list[dict[str, object]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["optimizer", "step", "loss", "state_bytes", "validation", "seconds"])
        writer.writeheader()
        writer.writerows(rows)


def draw(rows: list[dict[str, object]], path: Path) -> None:
    require("matplotlib", "bench").use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(15, 6), layout="constrained")
    for i, name in enumerate(dict.fromkeys(str(r["optimizer"]) for r in rows)):
        own = [r for r in rows if r["optimizer"] == name]
        # 20 colours twice over, told apart by line and marker.
        color, line, marker = pyplot.get_cmap("tab20")(i % 20), ("-", "--", ":")[i // 20], "osD"[i // 20]
        left.plot([r["step"] for r in own], [r["loss"] for r in own], label=name, color=color, linestyle=line)
        right.scatter(own[-1]["state_bytes"], own[-1]["validation"], color=color, marker=marker)
    left.set(xlabel="step", ylabel="training loss, nats/byte")
    right.set(xlabel="bytes of optimizer state", ylabel="validation loss, nats/byte", xscale="log")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", fontsize=7)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("build/train_tiny.csv"))
    parser.add_argument("--names", help="comma-separated; default every optimizer and every installed official package")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--append", action="store_true", help="keep the rows that --out has of other optimizers")
    arguments = parser.parse_args()
    text = load_text()
    installed = [n for n, (_, path, _) in PEERS.items() if importlib.util.find_spec(re.split("[.:]", path)[0])]
    chosen = arguments.names.split(",") if arguments.names else [*installed, *names()]
    rows = [row for row in read_rows(arguments.out) if row["optimizer"] not in chosen] if arguments.append else []
    for name in chosen:
        rows += train(name, text, arguments.steps)
        write_rows(rows, arguments.out)  # a long run may be cut short
    if arguments.plot:
        draw(rows, arguments.plot)


if __name__ == "__main__":
    main()
