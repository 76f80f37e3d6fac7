"""A draft tree as text or as a PNG: accepted path, probabilities, the token that followed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from gramcore._checks import require
from gramcore._files import replacing
from gramcore.spec.base import Dice, DraftTree, FloatArray, TargetRows, Verdict, Verifier

__all__ = ["RecordingVerifier", "draw_tree", "save_tree_png"]


_GOOD, _REST = "tab:green", "silver"


class RecordingVerifier(Verifier):
    """Passes on to another rule and keeps the last tree it saw, its verdict and the target's probabilities of nodes.

    Args:
        inner: the rule in charge.

    Differs from paper: none.   Reference: that of the inner rule.
    """

    def __init__(self, inner: Verifier) -> None:
        self.inner = inner
        self.lossless, self.schemes = inner.lossless, inner.schemes
        self.last: tuple[DraftTree, Verdict, list[float]] | None = None

    def report(self) -> dict[str, float]:
        return self.inner.report()

    def _walk(self, tree: DraftTree, rows: TargetRows, dice: Dice) -> tuple[list[int], int]:
        import numpy as np

        path, token = self.inner._walk(tree, rows, dice)
        if len(tree) and (self.last is None or len(path) >= len(self.last[1].path)):
            laws: dict[int, FloatArray] = {}
            plain = TargetRows(np.stack([np.asarray(rows.raw(i), np.float32) for i in range(len(rows))]))
            plain.sampling = type(rows.sampling)(temperature=1.0)
            for parent in {int(p) for p in tree.parents}:
                laws[parent] = plain.probs(parent + 1)
            shares = [float(laws[int(p)][int(t)]) for p, t in zip(tree.parents, tree.tokens, strict=True)]
            self.last = (tree, Verdict(np.array(path, np.int32), token), shares)
        return path, token


def draw_tree(
    tree: DraftTree,
    verdict: Verdict,
    probs: Sequence[float] | None = None,
    name: Callable[[int], str] = str,
) -> str:
    """The tree in lines; accepted nodes carry a check mark, the last line the next token.

    Args:
        tree, verdict: drafts and what became of them.
        probs: probability of every node under the target given its path.
        name: text of a token id.

    >>> import numpy as np
    >>> tree = DraftTree(np.int32([7, 8, 9]), np.int32([-1, 0, -1]))
    >>> print(draw_tree(tree, Verdict(np.int32([0]), 5), [0.9, 0.1, 0.05]))
    root
    ├─ ✓ 7  0.90
    │  └─ 8  0.10
    └─ 9  0.05
    next: 5
    """
    accepted = {int(node) for node in verdict.path}
    lines = ["root"]

    def visit(row: int, indent: str) -> None:
        children = tree.children(row)
        for i, node in enumerate(children):
            last = i == len(children) - 1
            share = "" if probs is None else f"  {probs[node]:.2f}"
            mark = "✓ " if int(node) in accepted else ""
            lines.append(f"{indent}{'└─' if last else '├─'} {mark}{name(int(tree.tokens[node]))}{share}")
            visit(int(node) + 1, indent + ("   " if last else "│  "))

    visit(0, "")
    return "\n".join([*lines, f"next: {name(verdict.next_token)}"])


def save_tree_png(
    path: str | os.PathLike[str],
    tree: DraftTree,
    verdict: Verdict,
    probs: Sequence[float] | None = None,
    name: Callable[[int], str] = str,
) -> None:
    """What :func:`draw_tree` prints, as a PNG file that is written whole or not at all.

    Args: path: file to write.  tree, verdict, probs, name: as of :func:`draw_tree`.
    Raises: MissingExtraError without matplotlib (``gramcore[bench]``); OSError.
    """
    require("matplotlib", "bench")
    from matplotlib.figure import Figure

    places: dict[int, tuple[float, float]] = {}
    leaf = 0.0

    def place(row: int, depth: int) -> float:
        nonlocal leaf
        heights = [place(int(node) + 1, depth + 1) for node in tree.children(row)]
        if not heights:
            heights = [leaf]
            leaf += 1
        places[row] = (float(depth), -sum(heights) / len(heights))
        return sum(heights) / len(heights)

    place(0, 0)
    accepted = {0, *(int(node) + 1 for node in verdict.path)}
    widest = max(x for x, _ in places.values())
    figure = Figure(figsize=(2.5 + 1.15 * widest, 1.1 + 0.5 * leaf))
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.margins(x=0.6 / (widest + 1), y=0.4 / (leaf + 1))
    for row, (x, y) in places.items():
        good = row in accepted
        if row > 0:
            px, py = places[int(tree.parents[row - 1]) + 1]
            axes.plot([px, x], [py, y], color=_GOOD if good else _REST, linewidth=2 if good else 1, zorder=1)
        share = "" if row == 0 or probs is None else f"\n{probs[row - 1]:.2f}"
        label = "root" if row == 0 else _plain(name(int(tree.tokens[row - 1])))
        box = {"facecolor": "honeydew" if good else "white", "edgecolor": _GOOD if good else _REST, "boxstyle": "round"}
        axes.text(x, y, label + share, ha="center", va="center", fontsize=8, bbox=box)
    following = _plain(name(verdict.next_token))
    axes.set_title(f"{len(verdict.path)} of {len(tree)} drafted tokens accepted, next: {following}", fontsize=9)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=120, bbox_inches="tight")


def _plain(text: str) -> str:
    """Text that matplotlib does not take for a formula."""
    return text.replace("$", r"\$")
