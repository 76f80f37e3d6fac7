"""Documentation that runs: every ```python block of the README and docs, in order, one namespace per file."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
from gramcore import _table

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"^```python(?P<flags>[^\n]*)\n(?P<code>.*?)^```\n(?:\n?^```text\n(?P<output>.*?)^```\n)?", re.M | re.S
)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_snippets_run_and_print_what_they_claim(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "snippet"}
    for match in BLOCK.finditer(page.read_text()):
        if "no-run" in match["flags"]:
            continue
        printed = io.StringIO()
        line = page.read_text()[: match.start("code")].count("\n")
        code = compile("\n" * line + match["code"], str(page), "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        if match["output"] is not None:
            assert printed.getvalue().strip() == match["output"].strip()


def test_algorithm_table_is_fresh() -> None:
    readme = (ROOT / "README.md").read_text()
    assert _table.replace(readme) == readme, "run make table"


def test_pages_link_to_files_that_exist() -> None:
    for page in [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
