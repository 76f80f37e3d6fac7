"""What every registered verifier keeps."""

from __future__ import annotations

import numpy as np
import pytest
from gramcore._core import spec as native
from gramcore._registry import Row, rows
from gramcore.spec import CounterRng, DraftTree, Lossless, TargetRows, Verifier

VERIFIERS = rows(protocol="verifier")


@pytest.fixture(params=VERIFIERS, ids=lambda r: r.name)
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


def make(row: Row) -> Verifier:
    made = row.load()(**row.test_kwargs)
    assert isinstance(made, Verifier)
    return made


def random_case(seed: int, scheme: str, vocab: int = 7) -> tuple[DraftTree, TargetRows]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 9))
    chain = scheme != "fixed"
    parents = np.array([i - 1 if chain else int(rng.integers(-1, i)) for i in range(n)], np.int32)
    q = rng.dirichlet(np.ones(vocab), n + 1)
    tokens = np.array([int(rng.choice(vocab, p=q[parents[i] + 1])) for i in range(n)], np.int32)
    if scheme == "fixed":
        tree = DraftTree(tokens, parents).pruned(None, n)
    else:
        tree = DraftTree(tokens, parents, np.log(q), scheme)
    return tree, TargetRows.from_probs(rng.dirichlet(np.ones(vocab), len(tree) + 1))


def test_verdicts_are_paths_and_tokens(row: Row) -> None:
    verifier = make(row)
    for scheme in verifier.schemes:
        for seed in range(40):
            tree, target = random_case(seed, scheme)
            verdict = verifier.verify(tree, target, CounterRng(seed))
            native.check_path(tree.parents, verdict.path)
            assert 0 <= verdict.next_token < 7
            again = verifier.verify(tree, target, CounterRng(seed))
            assert again.next_token == verdict.next_token
            assert again.path.tolist() == verdict.path.tolist()


def test_an_empty_tree_gives_the_plain_token(row: Row) -> None:
    probs = np.zeros((1, 5))
    probs[0, 3] = 1
    verifier = make(row)
    verdict = verifier.verify(DraftTree.empty(), TargetRows.from_probs(probs), CounterRng(0))
    assert (verdict.path.tolist(), verdict.next_token) == ([], 3)


def test_level_is_declared(row: Row) -> None:
    verifier = make(row)
    assert isinstance(verifier.lossless, Lossless)
    assert row.facts["lossless"] == verifier.lossless.value
    assert verifier.schemes


def test_row_count_and_scheme_are_checked(row: Row) -> None:
    verifier = make(row)
    with pytest.raises(ValueError, match="one row per node"):
        verifier.verify(DraftTree.chain([1]), TargetRows.from_probs(np.full((1, 4), 0.25)), CounterRng(0))
    missing = {"fixed", "iid", "without_replacement", "greedy_tail"} - set(verifier.schemes)
    for scheme in missing:
        logq = None if scheme == "fixed" else np.log(np.full((2, 4), 0.25))
        tree = DraftTree(np.int32([1]), np.int32([-1]), logq, scheme)
        with pytest.raises(ValueError, match="choose a verifier"):
            verifier.verify(tree, TargetRows.from_probs(np.full((2, 4), 0.25)), CounterRng(0))


def test_documentation_sections(row: Row) -> None:
    text = row.load().__doc__ or ""
    assert "Differs from paper:" in text
    assert "Reference:" in text
