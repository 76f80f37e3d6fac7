"""The emulated kernels as a shared library."""

from __future__ import annotations

import ctypes

import pytest

from tests.cuda import toolchain


@pytest.fixture(scope="session")
def emulated() -> ctypes.CDLL:
    """Every .cu of the library, compiled by the C++ compiler against csrc/cuda_host."""
    library = ctypes.CDLL(str(toolchain.build("plain", "gramcore_cuda_emu") / "libgramcore_cuda_emu.so"))
    library.gc_cuda_last_message.restype = ctypes.c_char_p
    return library
