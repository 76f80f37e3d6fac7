"""ggml's matrix products and quantisers through the libraries inside llama-cpp-python."""

from __future__ import annotations

import ctypes as c
import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bench.harness import Contender, peer_version

__all__ = ["TYPES", "ggml_contenders", "ggml_quantize"]

#: name of a format -> ggml's number for it
TYPES = {
    "Q4_0": 2,
    "Q4_1": 3,
    "Q8_0": 8,
    "Q2_K": 10,
    "Q3_K": 11,
    "Q4_K": 12,
    "Q6_K": 14,
    "IQ4_NL": 20,
    "TQ1_0": 34,
    "TQ2_0": 35,
}
F32 = npt.NDArray[np.float32]
_P = c.c_void_p


class _Init(c.Structure):
    _fields_ = (("mem_size", c.c_size_t), ("mem_buffer", _P), ("no_alloc", c.c_bool))


@functools.cache
def _library() -> Any:
    """All functions in one namespace.  Raises ImportError without llama-cpp-python."""
    import llama_cpp

    folder = Path(llama_cpp.__file__).parent / "lib"
    base, cpu, top = (c.CDLL(str(folder / f"libggml{part}.so"), mode=c.RTLD_GLOBAL) for part in ("-base", "-cpu", ""))

    class Ggml:
        pass

    def take(library: c.CDLL, name: str, result: Any, *arguments: Any) -> None:
        function = getattr(library, f"ggml_{name}")
        function.restype, function.argtypes = result, arguments
        setattr(Ggml, name, staticmethod(function))

    take(base, "init", _P, _Init)
    take(base, "free", None, _P)
    take(base, "new_tensor_2d", _P, _P, c.c_int, c.c_int64, c.c_int64)
    take(base, "mul_mat", _P, _P, _P, _P)
    take(base, "new_graph", _P, _P)
    take(base, "build_forward_expand", None, _P, _P)
    take(base, "quantize_chunk", c.c_size_t, c.c_int, _P, _P, c.c_int64, c.c_int64, c.c_int64, _P)
    take(base, "quantize_init", None, c.c_int)
    take(base, "row_size", c.c_size_t, c.c_int, c.c_int64)
    take(base, "backend_alloc_ctx_tensors_from_buft", _P, _P, _P)
    take(base, "backend_alloc_ctx_tensors", _P, _P, _P)
    take(base, "backend_buft_name", c.c_char_p, _P)
    take(base, "backend_dev_backend_reg", _P, _P)
    take(base, "backend_dev_supports_op", c.c_bool, _P, _P)
    take(base, "backend_reg_get_proc_address", _P, _P, c.c_char_p)
    take(base, "backend_tensor_set", None, _P, _P, c.c_size_t, c.c_size_t)
    take(base, "backend_tensor_get", None, _P, _P, c.c_size_t, c.c_size_t)
    take(base, "backend_graph_compute", c.c_int, _P, _P)
    take(top, "backend_load_all", None)
    take(top, "backend_dev_by_type", _P, c.c_int)
    take(cpu, "backend_cpu_init", _P)
    take(cpu, "backend_cpu_set_n_threads", None, _P, c.c_int)
    Ggml.backend_load_all()  # type: ignore[attr-defined]
    return Ggml


def ggml_quantize(weight: torch.Tensor, kind: str) -> npt.NDArray[np.uint8]:
    """The bytes of ``weight`` ``(N, K)`` in a format; rows must be whole blocks."""
    g, code = _library(), TYPES[kind]
    rows, columns = weight.shape
    source = np.ascontiguousarray(weight.numpy(), np.float32)
    out = np.zeros(rows * g.row_size(code, columns), np.uint8)
    g.quantize_init(code)
    size = g.quantize_chunk(code, source.ctypes.data, out.ctypes.data, 0, rows, columns, None)
    if size != out.size:
        raise RuntimeError(f"{kind} must take {out.size} bytes, got {size}")
    return out


def ggml_contenders(weight: torch.Tensor, x: torch.Tensor, kind: str) -> list[Contender]:
    """Products with the weight in one format, in every memory layout ggml's CPU backend offers for it."""
    g = _library()
    device = g.backend_dev_by_type(0)
    address = g.backend_reg_get_proc_address(g.backend_dev_backend_reg(device), b"ggml_backend_dev_get_extra_bufts")
    layouts: list[int | None] = [None]
    if address:
        extra = c.CFUNCTYPE(c.POINTER(_P), _P)(address)(device)
        i = 0
        while extra and extra[i]:
            layouts.append(extra[i])
            i += 1
    data = ggml_quantize(weight, kind)
    products = (_Product(weight.shape, x, kind, data, layout) for layout in layouts)
    return [Contender(p.name, p) for p in products if p.supported]


class _Product:
    """One graph: x times a weight that lies in a buffer type (None: the plain one)."""

    def __init__(self, shape: Any, x: torch.Tensor, kind: str, data: npt.NDArray[np.uint8], layout: int | None) -> None:
        g = _library()
        n, k = shape
        self.backend = g.backend_cpu_init()
        g.backend_cpu_set_n_threads(self.backend, torch.get_num_threads())
        weights, rest = (g.init(_Init(1 << 20, None, True)) for _ in range(2))
        w = g.new_tensor_2d(weights, TYPES[kind], k, n)
        if layout is None:
            g.backend_alloc_ctx_tensors(weights, self.backend)
        else:
            g.backend_alloc_ctx_tensors_from_buft(weights, layout)
        inputs = g.new_tensor_2d(rest, 0, k, x.shape[0])
        self.result = g.mul_mat(rest, w, inputs)
        self.graph = g.new_graph(rest)
        g.build_forward_expand(self.graph, self.result)
        g.backend_alloc_ctx_tensors(rest, self.backend)
        layout_name = "" if layout is None else g.backend_buft_name(layout).decode().lower()
        self.name = " ".join(filter(None, (f"ggml ({peer_version('llama-cpp-python')})", kind, layout_name)))
        # With several rows the AMX layout ends the process by an illegal instruction (0.3.36, Sapphire Rapids).
        self.supported = bool(g.backend_dev_supports_op(g.backend_dev_by_type(0), self.result)) and (
            layout_name != "amx" or x.shape[0] == 1
        )
        if self.supported:
            g.backend_tensor_set(w, data.ctypes.data, 0, data.size)
            values = np.ascontiguousarray(x.numpy(), np.float32)
            g.backend_tensor_set(inputs, values.ctypes.data, 0, values.nbytes)
        self.out = np.empty((x.shape[0], n), np.float32)

    def __call__(self) -> F32:
        g = _library()
        if g.backend_graph_compute(self.backend, self.graph) != 0:
            raise RuntimeError(f"{self.name} must compute its graph, got an error")
        g.backend_tensor_get(self.result, self.out.ctypes.data, 0, self.out.nbytes)
        return self.out
