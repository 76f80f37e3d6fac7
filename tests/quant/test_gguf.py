"""GGUF containers: values equal the format's own reader, hostile files are refused in one sentence."""

from __future__ import annotations

import contextlib
import struct
import tempfile
from pathlib import Path

import gguf
import numpy as np
import pytest
from gramcore.errors import FormatError
from gramcore.quant import GgufFile
from gramcore.quant.blocks import BLOCK_TYPES
from hypothesis import given
from hypothesis import strategies as st


def text(s: str) -> bytes:
    return struct.pack("<Q", len(s)) + s.encode()


def container(
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    keys: bytes = b"",
    num_keys: int = 0,
    tensors: list[tuple[str, tuple[int, ...], int, int]] | None = None,
    num_tensors: int | None = None,
    data: bytes = bytes(64),
) -> bytes:
    tensors = tensors if tensors is not None else [("a", (8,), 0, 0), ("b", (8,), 0, 32)]
    out = magic + struct.pack("<IQQ", version, len(tensors) if num_tensors is None else num_tensors, num_keys) + keys
    for name, dims, kind, offset in tensors:
        out += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
    return out + bytes(-len(out) % 32) + data


@pytest.mark.parametrize("kind", BLOCK_TYPES.values(), ids=lambda t: t.name)
def test_every_format_equals_the_reference_reader(kind: object) -> None:
    rng = np.random.default_rng(7)
    raw = rng.integers(0, 256, (64, kind.block_bytes), dtype=np.uint8)  # type: ignore[attr-defined]
    theirs = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(kind.code)).reshape(-1)  # type: ignore[attr-defined]
    with np.errstate(invalid="ignore", over="ignore"):
        ours = kind.dequantize(raw.reshape(-1))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(ours, theirs.astype(np.float32))


@pytest.fixture(autouse=True)
def quiet_random_halves() -> object:
    """Random bytes hold NaN and infinite scales; NumPy's remarks about them are no finding."""
    with np.errstate(all="ignore"):
        yield


def test_reads_what_the_writer_wrote(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "x.gguf"), "llama")
    writer.add_uint32("n", 7)
    writer.add_string("s", "größe")
    writer.add_array("list", [1, 2, 3])
    writer.add_array("words", ["a", "", "ccc"])
    writer.add_bool("yes", True)
    writer.add_float32("f", 0.5)
    weight = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)
    raw = gguf.quants.quantize(weight, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("w", raw, raw_shape=raw.shape, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("v", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(tmp_path / "x.gguf")
    expected = {"n": 7, "s": "größe", "list": [1, 2, 3], "words": ["a", "", "ccc"], "yes": True, "f": 0.5}
    assert {k: file.metadata[k] for k in expected} == expected
    assert list(file) == ["w", "v"]
    assert file["w"].shape == (6, 64)
    np.testing.assert_array_equal(
        file["w"].dequantize(), gguf.quants.dequantize(raw, gguf.GGMLQuantizationType.Q8_0).reshape(6, 64)
    )
    np.testing.assert_array_equal(file["v"].dequantize(), weight)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "magic": (container(magic=b"GGML"), "must start with 'GGUF'"),
    "version": (container(version=9), "version must be one of"),
    "huge key count": (container(num_keys=1 << 62), "metadata entries must fit"),
    "huge tensor count": (container(num_tensors=1 << 62), "tensors must fit"),
    "key length past end": (container(num_keys=1, keys=struct.pack("<Q", 1 << 40)), "at most"),
    "array past end": (
        container(num_keys=1, keys=text("k") + struct.pack("<IIQ", 9, 4, 1 << 60)),
        "items of k must fit",
    ),
    "nested arrays": (container(num_keys=1, keys=text("k") + struct.pack("<IIQ", 9, 9, 1)), "scalars or strings"),
    "unknown value type": (container(num_keys=1, keys=text("k") + struct.pack("<I", 77)), "GGUF value type"),
    "bad text": (container(num_keys=1, keys=text("k") + struct.pack("<IQ", 8, 2) + b"\xff\xfe"), "must be UTF-8"),
    "same key twice": (container(num_keys=2, keys=(text("k") + struct.pack("<II", 4, 1)) * 2), "keys must be unique"),
    "alignment": (
        container(num_keys=1, keys=text("general.alignment") + struct.pack("<II", 4, 24)),
        "alignment must be a power of two",
    ),
    "rank": (container(tensors=[("a", (1, 1, 1, 1, 1), 0, 0)]), "rank of tensor 'a'"),
    "rank 0": (container(tensors=[("a", (), 0, 0)]), "rank of tensor 'a'"),
    "zero size": (container(tensors=[("a", (0,), 0, 0)]), "positive sizes"),
    "product overflows": (container(tensors=[("a", (1 << 33, 1 << 33), 0, 0)]), "positive sizes"),
    "type": (container(tensors=[("a", (8,), 99, 0)]), "type of tensor 'a' must be one of F32"),
    "split block": (container(tensors=[("a", (33,), 2, 0)]), "whole Q4_0 blocks"),
    "offset past end": (container(tensors=[("a", (8,), 0, 1 << 50)]), "must end inside the file"),
    "offset unaligned": (container(tensors=[("a", (8,), 0, 4)]), "multiple of 32"),
    "overlap": (container(tensors=[("a", (9,), 0, 0), ("b", (4,), 0, 32)]), "must not overlap"),
    "same name": (container(tensors=[("a", (8,), 0, 0), ("a", (8,), 0, 32)]), "names must be unique"),
    "empty": (b"", "not a GGUF file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(case: str, tmp_path: Path) -> None:
    raw, message = HOSTILE[case]
    path = tmp_path / "x.gguf"
    path.write_bytes(raw)
    with pytest.raises(FormatError, match=message):
        GgufFile(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = container(num_keys=1, keys=text("k") + struct.pack("<IIQ", 9, 8, 2) + text("ab") + text("c"))
    path = tmp_path / "x.gguf"
    path.write_bytes(whole)
    assert len(GgufFile(path)) == 2
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError):
            GgufFile(path)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes_never_escape_as_another_error(flips: list[tuple[int, int]]) -> None:
    raw = bytearray(container(num_keys=1, keys=text("k") + struct.pack("<IIQ", 9, 8, 2) + text("ab") + text("c")))
    for position, value in flips:
        raw[position % len(raw)] = value
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(raw)
        file.flush()
        with contextlib.suppress(FormatError):  # anything else fails the test
            for tensor in GgufFile(file.name).values():
                tensor.dequantize()


def test_missing_file() -> None:
    with pytest.raises(FileNotFoundError, match="GGUF file must exist"):
        GgufFile("/nonexistent.gguf")
