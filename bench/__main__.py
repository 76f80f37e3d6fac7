"""``python -m bench [family[.benchmark]] [--csv FILE]``."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import bench
from bench.harness import Bench


def find(selector: str) -> Iterator[tuple[str, str]]:
    """(family, benchmark) pairs that match ``""``, ``"family"`` or ``"family.benchmark"``."""
    family_wanted, _, name_wanted = selector.partition(".")
    for family in pkgutil.iter_modules(bench.__path__):
        if not family.ispkg or (family_wanted and family.name != family_wanted):
            continue
        package = importlib.import_module(f"bench.{family.name}")
        for module in pkgutil.iter_modules(package.__path__):
            name = module.name.removeprefix("bench_")
            if module.name.startswith("bench_") and name_wanted in ("", name):
                yield family.name, name


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("selector", nargs="?", default="", help="family or family.benchmark; default all")
    parser.add_argument("--csv", type=Path, help="append result rows to this file")
    arguments = parser.parse_args()
    chosen = list(find(arguments.selector))
    if not chosen:
        known = ", ".join(f"{family}.{name}" for family, name in find(""))
        parser.error(f"selector must name a benchmark, got {arguments.selector!r}; known: {known}")
    for family, name in chosen:
        module = importlib.import_module(f"bench.{family}.bench_{name}")
        run = Bench(family, name)
        module.run(run)
        if arguments.csv:
            run.write_csv(arguments.csv)


if __name__ == "__main__":
    main()
