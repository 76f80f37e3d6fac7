"""
Draft trees, masks, verification rows, n-gram drafts.
"""
from __future__ import annotations
import numpy
import numpy.typing
import typing
__all__: list[str] = ['CopyCursor', 'NgramTable', 'argmax_row', 'check_path', 'check_tree', 'fill_tree_mask', 'find_child', 'prob_row', 'probs_row', 'prune_tree', 'sample_row', 'sample_weights', 'tree_ancestors', 'tree_depths', 'uniform']
class NgramTable:
    def __init__(self, min_order: typing.SupportsInt | typing.SupportsIndex, max_order: typing.SupportsInt | typing.SupportsIndex, most_recent: bool) -> None:
        ...
    def extend(self, ids: typing.Any) -> None:
        ...
    def propose(self, max_tokens: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.int32]:
        ...
    def propose_tree(self, max_nodes: typing.SupportsInt | typing.SupportsIndex, chain: typing.Any, share: typing.SupportsFloat | typing.SupportsIndex) -> tuple[numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.int32]]:
        ...
    def rollback(self, n: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def match_order(self) -> int:
        ...
    @property
    def num_tokens(self) -> int:
        ...
class CopyCursor:
    def __init__(self) -> None:
        ...
    def extend(self, ids: typing.Any) -> None:
        ...
    def propose(self, max_tokens: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.int32]:
        ...
    def rollback(self, n: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def source(self) -> tuple[int, int]:
        ...
    @property
    def num_tokens(self) -> int:
        ...
def argmax_row(logits: typing.Any) -> int:
    """
    Index of the largest logit, the lowest among equals.
    """
def check_path(parents: typing.Any, path: typing.Any) -> None:
    ...
def check_tree(tokens: typing.Any, parents: typing.Any, vocab_size: typing.SupportsInt | typing.SupportsIndex) -> None:
    ...
def fill_tree_mask(parents: typing.Any, first: typing.SupportsInt | typing.SupportsIndex, base: typing.SupportsInt | typing.SupportsIndex, mask: typing.Any) -> None:
    ...
def find_child(tokens: typing.Any, parents: typing.Any, row: typing.SupportsInt | typing.SupportsIndex, token: typing.SupportsInt | typing.SupportsIndex) -> int:
    """
    Node index of that child, or -1.
    """
def prob_row(logits: typing.Any, temperature: typing.SupportsFloat | typing.SupportsIndex, top_k: typing.SupportsInt | typing.SupportsIndex, top_p: typing.SupportsFloat | typing.SupportsIndex, min_p: typing.SupportsFloat | typing.SupportsIndex, token: typing.SupportsInt | typing.SupportsIndex) -> float:
    """
    The probability of one token under the warped softmax.
    """
def probs_row(logits: typing.Any, temperature: typing.SupportsFloat | typing.SupportsIndex, top_k: typing.SupportsInt | typing.SupportsIndex, top_p: typing.SupportsFloat | typing.SupportsIndex, min_p: typing.SupportsFloat | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.float64]:
    """
    The warped softmax in float64.
    """
def prune_tree(tokens: typing.Any, parents: typing.Any, keep: typing.Any, budget: typing.SupportsInt | typing.SupportsIndex) -> tuple[numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.int32]]:
    """
    (kept node indices, their parents): merges duplicate siblings, drops what keep refuses and what exceeds budget.
    """
def sample_row(logits: typing.Any, temperature: typing.SupportsFloat | typing.SupportsIndex, top_k: typing.SupportsInt | typing.SupportsIndex, top_p: typing.SupportsFloat | typing.SupportsIndex, min_p: typing.SupportsFloat | typing.SupportsIndex, u: typing.SupportsFloat | typing.SupportsIndex) -> int:
    """
    The token at quantile u of the warped softmax.
    """
def sample_weights(weights: typing.Any, u: typing.SupportsFloat | typing.SupportsIndex) -> int:
    """
    The index at quantile u of non-negative weights.
    """
def tree_ancestors(parents: typing.Any) -> numpy.typing.NDArray[numpy.uint64]:
    """
    Bit c of row r: r sees c (row 0 = root), (n + 1, ceil((n + 1) / 64)) uint64.
    """
def tree_depths(parents: typing.Any) -> numpy.typing.NDArray[numpy.int32]:
    """
    Depth of the root (0) and of every node, (n + 1,).
    """
def uniform(seed: typing.SupportsInt | typing.SupportsIndex, position: typing.SupportsInt | typing.SupportsIndex, stream: typing.SupportsInt | typing.SupportsIndex) -> float:
    """
    A number in [0, 1) named by its three arguments.
    """
