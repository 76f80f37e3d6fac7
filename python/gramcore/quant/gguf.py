"""Reading GGUF files: metadata and tensors, every number checked before it is used, nothing copied.

The file is treated as hostile: counts, lengths, offsets and types are bounded by the bytes that are there, tensors
must not overlap or leave the file, and every refusal says which entry is wrong.
"""

from __future__ import annotations

import itertools
import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from gramcore.errors import FormatError
from gramcore.quant.blocks import BLOCK_TYPES, OTHER_TYPES, BlockType

__all__ = ["GgufFile", "GgufTensor"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_DIMS = 4
_MAX_KEY = 1 << 16
# value type -> struct code; 8 is a string, 9 an array
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# the smallest encoding of one array element, to bound counts
_MIN_BYTES = {code: struct.calcsize(f"<{c}") for code, c in _SCALARS.items()} | {_STRING: 8, _ARRAY: 12}


@dataclass(frozen=True)
class GgufTensor:
    """One tensor as stored: ``shape`` is row-major (rows first), ``data`` its raw bytes.

    Attributes:
        name: the tensor's name in the file.
        shape: for a weight ``(N, K)``.
        type: storage format, one of :data:`gramcore.quant.blocks.BLOCK_TYPES`.
        data: ``uint8`` view of the file's bytes.
    """

    name: str
    shape: tuple[int, ...]
    type: BlockType
    data: npt.NDArray[np.uint8]

    def dequantize(self) -> npt.NDArray[np.float32]:
        """All elements as fp32, shaped ``shape``; equal to the reference reader of the format."""
        return self.type.dequantize(self.data).reshape(self.shape)


class GgufFile(Mapping[str, GgufTensor]):
    """A memory-mapped GGUF file: a mapping from tensor name to :class:`GgufTensor`, plus ``metadata``.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: no such file.
        FormatError: not a GGUF file, truncated, corrupt or of an unsupported version or tensor type.

    Example:
        >>> from gramcore.quant import GgufFile
        >>> GgufFile("missing.gguf")
        Traceback (most recent call last):
            ...
        FileNotFoundError: GGUF file must exist, got 'missing.gguf'
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"GGUF file must exist, got {str(path)!r}")
        with self.path.open("rb") as file:
            size = self.path.stat().st_size
            if size < 24:
                raise FormatError(f"{self.path}: not a GGUF file ({size} bytes, a header alone has 24)")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        reader = _Reader(self._map, str(self.path))
        self.metadata: dict[str, Any] = {}
        self._tensors: dict[str, GgufTensor] = {}
        self._parse(reader)

    def __getitem__(self, name: str) -> GgufTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __enter__(self) -> GgufFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._tensors.clear()

    @property
    def version(self) -> int:
        """Version of the container format."""
        return self._version

    def _parse(self, r: _Reader) -> None:
        if r.take(4, "magic") != _MAGIC:
            raise r.wrong("must start with 'GGUF'; this is another kind of file")
        self._version = int(r.scalar("I", "version"))
        if self._version not in _VERSIONS:
            raise r.wrong(f"version must be one of {_VERSIONS}, got {self._version}")
        num_tensors, num_keys = r.scalar("Q", "tensor count"), r.scalar("Q", "metadata count")
        r.check_count(num_keys, 13, "metadata entries")
        for i in range(num_keys):
            key = r.string(f"key {i}", _MAX_KEY)
            if key in self.metadata:
                raise r.wrong(f"metadata keys must be unique, got {key!r} twice")
            self.metadata[key] = r.value(r.scalar("I", f"type of {key}"), key)
        r.check_count(num_tensors, 25, "tensors")
        infos = [self._tensor_info(r, i) for i in range(num_tensors)]
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1) or alignment > 1 << 20:
            raise r.wrong(f"general.alignment must be a power of two up to 2^20, got {alignment!r}")
        self._place(r, infos, -(-r.position // alignment) * alignment, alignment)

    def _tensor_info(self, r: _Reader, i: int) -> tuple[str, tuple[int, ...], BlockType, int]:
        name = r.string(f"name of tensor {i}", _MAX_KEY)
        rank = r.scalar("I", f"rank of {name}")
        if not 1 <= rank <= _MAX_DIMS:
            raise r.wrong(f"rank of tensor {name!r} must be in [1, {_MAX_DIMS}], got {rank}")
        dims = tuple(r.scalar("Q", f"shape of {name}") for _ in range(rank))
        code, offset = r.scalar("I", f"type of {name}"), r.scalar("Q", f"offset of {name}")
        kind = BLOCK_TYPES.get(code)
        if kind is None:
            known, got = ", ".join(t.name for t in BLOCK_TYPES.values()), OTHER_TYPES.get(code, f"code {code}")
            raise r.wrong(
                f"type of tensor {name!r} must be one of {known}, got {got}; convert the file anew to one of them"
            )
        if any(d == 0 for d in dims) or math.prod(dims) > 1 << 62:
            raise r.wrong(f"shape of tensor {name!r} must have positive sizes, got {dims}")
        if dims[0] % kind.block_len:
            raise r.wrong(f"rows of tensor {name!r} must hold whole {kind.name} blocks, got {dims[0]} elements")
        return name, dims[::-1], kind, offset

    def _place(
        self, r: _Reader, infos: list[tuple[str, tuple[int, ...], BlockType, int]], base: int, align: int
    ) -> None:
        used: list[tuple[int, int, str]] = []
        raw = np.frombuffer(self._map, np.uint8)
        for name, shape, kind, offset in infos:
            num_bytes = math.prod(shape) // kind.block_len * kind.block_bytes
            if name in self._tensors:
                raise r.wrong(f"tensor names must be unique, got {name!r} twice")
            if offset % align:
                raise r.wrong(f"offset of tensor {name!r} must be a multiple of {align}, got {offset}")
            begin, end = base + offset, base + offset + num_bytes
            if end > r.size:
                raise r.wrong(
                    f"tensor {name!r} must end inside the file, got end {end} of {r.size} bytes; "
                    "the file is cut short: download or copy it again"
                )
            used.append((begin, end, name))
            self._tensors[name] = GgufTensor(name, shape, kind, raw[begin:end])
        used.sort()
        for (_, end, first), (begin, _, second) in itertools.pairwise(used):
            if begin < end:
                raise r.wrong(f"tensors must not overlap, got {first!r} and {second!r}")


class _Reader:
    """Bounded little-endian reads."""

    def __init__(self, data: mmap.mmap, path: str) -> None:
        self.data, self.path, self.size, self.position = data, path, len(data), 0

    def wrong(self, text: str) -> FormatError:
        return FormatError(f"{self.path}: {text}")

    def take(self, num_bytes: int, what: str) -> bytes:
        end = self.position + num_bytes
        if end > self.size:
            raise self.wrong(f"{what} must end inside the file, got end {end} of {self.size} bytes; it is cut short")
        chunk = self.data[self.position : end]
        self.position = end
        return chunk

    def scalar(self, code: str, what: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}"), what))[0]

    def check_count(self, count: int, min_bytes: int, what: str) -> None:
        if count * min_bytes > self.size - self.position:
            raise self.wrong(
                f"number of {what} must fit the file, got {count} with {self.size - self.position} bytes left"
            )

    def string(self, what: str, limit: int | None = None) -> str:
        length = self.scalar("Q", f"length of {what}")
        if limit is not None and length > limit:
            raise self.wrong(f"{what} must have at most {limit} bytes, got {length}")
        raw = self.take(length, what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.wrong(f"{what} must be UTF-8, got {raw[:32]!r}") from error

    def value(self, kind: int, what: str) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind], what)
        if kind == _STRING:
            return self.string(what)
        if kind != _ARRAY:
            raise self.wrong(f"type of {what} must be a GGUF value type (0 to 12), got {kind}")
        item, count = self.scalar("I", f"item type of {what}"), self.scalar("Q", f"length of {what}")
        if item == _ARRAY or item not in _MIN_BYTES:
            raise self.wrong(f"items of {what} must be scalars or strings, got type {item}")
        self.check_count(count, _MIN_BYTES[item], f"items of {what}")
        if item == _STRING:
            return [self.string(what) for _ in range(count)]
        code = _SCALARS[item]
        return list(struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize(f"<{code}"), what)))
