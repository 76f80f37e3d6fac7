"""Optimizers by name, parameter groups from a model, and the bytes of state each needs."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch

from gramcore import _registry

__all__ = ["create", "layer_blocks", "names", "param_groups", "state_bytes"]


#: Registry protocols of what :func:`create` makes.
_PROTOCOLS = ("optimizer", "zeroth_order")
_TOOLS = "optimizer_tool"


def names(*protocols: str) -> list[str]:
    """Names :func:`create` knows, of all protocols or of those given."""
    return [row.name for protocol in protocols or _PROTOCOLS for row in _registry.rows("optim", protocol)]


def _find(name: str, *protocols: str) -> _registry.Row:
    for protocol in protocols or _PROTOCOLS:
        for row in _registry.rows("optim", protocol):
            if row.name.lower() == name.lower():
                return row
    known = [row.name for p in protocols or _PROTOCOLS for row in _registry.rows("optim", p)]
    folded = {re.sub(r"\W", "", k).lower(): k for k in known}
    near = difflib.get_close_matches(re.sub(r"\W", "", name).lower(), folded, n=1)
    hint = f"; did you mean {folded[near[0]]!r}?" if near else ""
    raise ValueError(f"name must be one of {', '.join(known)}, got {name!r}{hint}")


def is_decayed(name: str, p: torch.Tensor) -> bool:
    """The usual rule: matrices and larger decay; vectors and scalars (norms, biases) do not."""
    return p.ndim >= 2


def param_groups(
    model: torch.nn.Module,
    *,
    weight_decay: float,
    decayed: Callable[[str, torch.Tensor], bool] = is_decayed,
    exclude: Callable[[str, torch.Tensor], bool] | None = None,
) -> list[dict[str, Any]]:
    """Two groups of a model's trainable parameters: with ``weight_decay`` and without.

    Args:
        model: its named parameters are visited once each; tied weights count once.
        weight_decay: of the first group.
        decayed: called with (name, parameter); true puts it into the first group.
        exclude: true leaves a parameter out of both.
    """
    groups: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for name, p in model.named_parameters():
        if p.requires_grad and not (exclude and exclude(name, p)):
            groups[0 if decayed(name, p) else 1].append(p)
    made = [{"params": groups[0], "weight_decay": weight_decay}, {"params": groups[1], "weight_decay": 0.0}]
    return [g for g in made if g["params"]]


def layer_blocks(model: torch.nn.Module) -> list[list[torch.Tensor]]:
    """Trainable parameters by layer: one list per numbered submodule, and one per other part of the model.

    A name belongs to its prefix up to the first number (``model.layers.3``), or to what comes before its last two
    parts (``lm_head``); blocks come in the order of the model.

    Example:
        >>> import torch
        >>> from gramcore.optim import layer_blocks
        >>> [len(b) for b in layer_blocks(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, False)))]
        [2, 1]
    """
    blocks: dict[str, list[torch.Tensor]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            numbered = re.match(r"(?:.*?\.)?\d+(?=\.)", name)
            blocks.setdefault(numbered.group() if numbered else name.rpartition(".")[0], []).append(p)
    return list(blocks.values())


def create(
    name: str,
    model: torch.nn.Module | Iterable[Any],
    *,
    exclude: Callable[[str, torch.Tensor], bool] | None = None,
    **arguments: Any,
) -> Any:
    """Make an optimizer by its registry name (any case).

    Args:
        name: one of ``gramcore optim list``.
        model: a module (with ``weight_decay`` given, its vectors are exempt, see :func:`param_groups`; optimizers by
            blocks get its :func:`layer_blocks`), or parameters, groups or blocks, used as they are.
        exclude: called with (name, parameter) of a module's parameters; true leaves one out.
        arguments: of the optimizer.  LOMO, SAM, FSAM and MKOR work around one: ``base`` names it (SGD for LOMO, AdamW
            for the others), and arguments that are not theirs are its.

    Returns:
        The optimizer; a zeroth-order one has its ``torch.optim.Optimizer`` in ``base``, LOMO in ``optimizer``.

    Raises:
        ValueError: an unknown name; the message lists the known ones.  Also a name that ``gramcore optim list`` has for
            something that is not an optimizer; the message says where it is.  ``exclude`` without a module.

    Example:
        >>> import torch
        >>> from gramcore.optim import create
        >>> type(create("adamw", torch.nn.Linear(2, 2), lr=1e-3, weight_decay=0.1)).__name__
        'AdamW'
    """
    row = _find(name, *_PROTOCOLS, _TOOLS)
    takes = row.facts.get("takes", "params")
    if row.protocol == _TOOLS and takes != "blocks":
        return _around(row, model, {**arguments, **({"exclude": exclude} if exclude else {})})
    if exclude and not (isinstance(model, torch.nn.Module) and takes == "params"):
        raise ValueError(
            f"exclude must come with a module and an optimizer that takes parameters, got {type(model).__name__} for "
            f"{row.name}; leave the parameters out of the list instead"
        )
    if isinstance(model, torch.nn.Module) and takes == "params":
        decay = arguments.get("weight_decay", 0.0)
        params: Any = param_groups(model, weight_decay=decay, exclude=exclude)
        if not decay:  # one group, in the model's order
            kept = {p for group in params for p in group["params"]}
            params = [p for p in model.parameters() if p in kept]
    elif isinstance(model, torch.nn.Module) and takes == "blocks":
        params = layer_blocks(model)
    else:
        params = model
    return row.load()(params, **{**row.facts.get("fixed", {}), **arguments})


def _around(row: _registry.Row, model: Any, arguments: dict[str, Any]) -> Any:
    """What works around an optimizer, with that optimizer."""
    factory, takes = row.load(), row.facts["takes"]
    if not takes:
        raise ValueError(f"name must be an optimizer's, got {row.name!r}; use gramcore.optim.{factory.__name__}")
    theirs = inspect.signature(factory).parameters.keys()
    own = {k: v for k, v in arguments.items() if k in theirs and k != "base"}
    rest = {k: v for k, v in arguments.items() if k not in own and k != "base"}
    base = create(arguments.get("base", row.facts["base"]), model, **rest)
    first = (model, base) if takes == "model+optimizer" else (base,)
    return factory(*first, **{**row.facts["fixed"], **own})


def state_bytes(
    name: str, shapes: Iterable[tuple[int, ...]], dtype: torch.dtype = torch.float32, **arguments: Any
) -> int:
    """Bytes of state an optimizer holds for parameters of these shapes, found by making that state without data.

    Args: shapes: of the parameters.  dtype: of the parameters.  arguments: of the optimizer.
    """
    row = _find(name)
    total = 0
    seen: dict[tuple[int, ...], int] = {}
    for shape in shapes:
        if shape not in seen:
            p = torch.nn.Parameter(torch.empty(shape, dtype=dtype, device="meta"))
            takes: dict[str, Any] = {"params": [p], "blocks": [[p]], "model": torch.nn.ParameterList([p])}
            made = row.load()(takes[row.facts.get("takes", "params")], **{**row.facts.get("fixed", {}), **arguments})
            optimizer = getattr(made, "base", made)
            with torch.device("meta"):
                state = optimizer.init_state(optimizer.param_groups[0], p)
            seen[shape] = sum(t.numel() * t.element_size() for t in state.values() if isinstance(t, torch.Tensor))
        total += seen[shape]
    return total
