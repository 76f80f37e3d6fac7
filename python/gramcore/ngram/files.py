"""Which files make an index: shards of a directory and the small description beside them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gramcore._checks import check_choice
from gramcore.errors import FormatError

__all__ = ["TOKEN_BYTES", "WHOLE", "Description", "Plan", "shard_file", "shard_numbers", "token_bytes"]

#: Token types of the layout and their width.
TOKEN_BYTES = {"u8": 1, "u16": 2, "u32": 4}
DESCRIPTION = "gramcore-index.json"
PLAN = "gramcore-build.json"


#: Number of the only shard of a directory whose files have none in their names (written by infini-gram's v6 indexer).
WHOLE = -1


def shard_file(directory: Path, stem: str, number: int) -> Path:
    """A file of a shard: ``stem.N``, or ``stem`` for the shard ``WHOLE``."""
    return directory / (stem if number == WHOLE else f"{stem}.{number}")


def token_bytes(token_dtype: str) -> int:
    """Width of a token type given by name."""
    return TOKEN_BYTES[check_choice("token_dtype", token_dtype, tuple(TOKEN_BYTES))]


@dataclass(frozen=True)
class Description:
    """What the layout itself does not say; written last, so its presence means the build completed."""

    token_dtype: str
    version: int  # of infini-gram's layout: 4 forward, 5 reversed
    shards: int
    num_documents: int
    num_tokens: int
    tokenizer: str = ""  # its name, when texts were indexed
    tokenizer_mark: str = ""  # see Codec.mark
    format: int = 1

    def check_tokenizer(self, directory: Path, mark: str) -> None:
        """Raise ValueError where texts were indexed with another tokenizer than the one of the given mark."""
        if "" not in (mark, self.tokenizer_mark) and mark != self.tokenizer_mark:
            raise ValueError(
                f"{directory}: tokenizer must be the one the index was built with, {self.tokenizer}, got one that cuts "
                "texts otherwise; give that one"
            )

    def write(self, directory: Path) -> None:
        """Write into the index directory, whole or not at all."""
        temporary = directory / f"{DESCRIPTION}.tmp-{os.getpid()}"
        temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        temporary.replace(directory / DESCRIPTION)

    @classmethod
    def read(cls, directory: Path) -> Description | None:
        """The description of an index, None when there is none (an index built by infini-gram)."""
        path = directory / DESCRIPTION
        if not path.exists():
            return None
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            needed = {k: fields[k] for k in ("token_dtype", "version", "shards", "num_documents", "num_tokens")}
            later: dict[str, Any] = {k: str(fields[k]) for k in ("tokenizer", "tokenizer_mark") if k in fields}
            found = cls(**needed, **later)
            known = fields["format"] == 1 and found.token_dtype in TOKEN_BYTES and found.version in (4, 5)
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{path}: must describe an index, got {error}; build the index again") from error
        if not known:
            raise FormatError(f"{path}: must be of format 1 and layout version 4 or 5, got {fields}; update gramcore")
        return found


@dataclass
class Plan:
    """How far a build has come; kept in the index directory until it is complete."""

    options: list[Any]
    pieces: list[list[dict[str, int]]]  # per checkpoint of the text, per shard: num_documents and num_tokens
    tokenized: bool = False
    texts: bool = False  # whether some documents came as text
    blocks: dict[str, int] = field(default_factory=dict)  # per shard: tokens per block of its sort, 0: in memory

    @property
    def shards(self) -> list[dict[str, int]]:
        """Documents and tokens of each shard."""
        return [{k: sum(f[k] for f in facts) for k in facts[0]} for facts in zip(*self.pieces, strict=True)]

    @property
    def num_documents(self) -> int:
        """Documents written so far."""
        return sum(s["num_documents"] for s in self.shards)

    @classmethod
    def start(cls, directory: Path, options: list[Any], *, resume: bool) -> Plan:
        """The plan found in the directory, or a new one. Raises FileExistsError where neither may be."""
        path = directory / PLAN
        for left in directory.glob("*.tmp-*"):  # of a killed build
            left.unlink()
        if path.exists() and resume:
            try:
                fields = json.loads(path.read_text(encoding="utf-8"))
                plan = cls(fields["options"], fields["pieces"], fields["tokenized"], fields["texts"], fields["blocks"])
            except (ValueError, KeyError, TypeError) as error:
                raise FormatError(f"{path}: must describe a build, got {error}; remove the directory") from error
            if plan.options != options:
                raise FileExistsError(
                    f"{directory}: holds an unfinished build with options {plan.options}, got {options}; "
                    "call it again with the same arguments, or remove the directory"
                )
            return plan
        if any((directory / name).exists() for name in ("table.0", DESCRIPTION, PLAN)):
            raise FileExistsError(f"{directory}: must not hold an index already; remove it or choose another directory")
        return cls(options, [])

    def write(self, directory: Path) -> None:
        """Record the progress, whole or not at all."""
        temporary = directory / f"{PLAN}.tmp-{os.getpid()}"
        temporary.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        temporary.replace(directory / PLAN)

    @staticmethod
    def remove(directory: Path) -> None:
        """Forget the plan of a complete build."""
        (directory / PLAN).unlink(missing_ok=True)


def shard_numbers(directory: Path, described: Description | None = None) -> list[int]:
    """Numbers of the shards in a directory: 0 .. n-1, or ``WHOLE`` alone.

    Raises: FormatError when there is none, one is missing, both kinds are there, or the build did not end.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: index directory must exist; build one with build_index")
    if described is None and (directory / PLAN).exists():
        raise FormatError(f"{directory}: must hold a whole index, got an unfinished build; call build_index again")
    names = (p.name.removeprefix("table.") for p in directory.glob("table.*"))
    numbers = sorted(int(name) for name in names if name.isdigit())
    if (directory / "table").exists():
        if numbers:
            raise FormatError(
                f"{directory}: must hold either table or table.0, got both; remove the one that is foreign"
            )
        numbers = [WHOLE]
    elif not numbers:
        raise FormatError(f"{directory}: must hold table.0, tokenized.0 and offset.0, got no table.0; is it an index?")
    elif numbers != list(range(len(numbers))):
        raise FormatError(f"{directory}: shards must be numbered 0 to {len(numbers) - 1}, got {numbers}")
    if described is not None and described.shards != len(numbers):
        raise FormatError(f"{directory}: must hold {described.shards} shards, got {len(numbers)}; build it again")
    return numbers
