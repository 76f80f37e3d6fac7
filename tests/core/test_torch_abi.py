"""Our declarations of LibTorch's stable C interface agree with the headers of the torch installed here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def test_declarations_match_the_installed_headers(tmp_path: Path) -> None:
    include = Path(torch.__file__).parent / "include"
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None or not include.exists():
        pytest.skip("needs a C++ compiler and torch's headers")
    source = tmp_path / "check.cc"
    source.write_text(
        """
#define USE_CUDA 1
#define TORCH_TARGET_VERSION (((0ULL + 2) << 56) | ((0ULL + 13) << 48))
#include <torch/csrc/stable/c/shim.h>
#include "torch/stable_abi.h"
#include <type_traits>
// Handles are opaque pointers on both sides: compare after mapping each pointer to an opaque type to void*.
template <class T> struct Plain { using type = T; };
template <class T> struct Plain<T*> {
  using inner = typename Plain<T>::type;
  using type = std::conditional_t<std::is_class_v<std::remove_cv_t<T>>, void*, inner*>;
};
template <class R, class... A> struct Plain<R (*)(A...)> {
  using type = typename Plain<R>::type (*)(typename Plain<A>::type...);
};
template <class Ours, class Theirs> constexpr bool same =
    std::is_same_v<typename Plain<Ours>::type, typename Plain<Theirs>::type>;
#define CHECK(result, name, parameters) \\
  static_assert(same<decltype(gramcore::torch::Api::name), decltype(&::name)>, #name);
GC_TORCH_SYMBOLS(CHECK)
"""
    )
    command = [compiler, "-std=c++20", "-fsyntax-only", "-w", f"-I{include}", f"-I{ROOT / 'csrc'}", str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
