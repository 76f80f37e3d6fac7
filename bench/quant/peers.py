"""Peers of the low-bit products, each optional: absent ones are left out and said so once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gramcore.quant import QTensor, linear

from bench.harness import Bench, Contender, peer_version

__all__ = ["peers_ggml", "peers_int4", "peers_int8", "product_case"]


def product_case(
    bench: Bench,
    case: str,
    ours: Mapping[str, QTensor],
    weight: torch.Tensor,
    x: torch.Tensor,
    peers: Sequence[Contender],
    operations: str = "int8",
) -> None:
    """Check and time products with one weight; GB/s are those of the first of ``ours``.  ``operations``: the kind whose
    rate bounds them."""
    exact = (x.double() @ weight.double().T).numpy()
    scale = np.abs(exact).mean()

    def check(contender: str, output: Any) -> None:
        error = np.abs(np.asarray(output, dtype=np.float64).reshape(exact.shape) - exact).mean() / scale
        # TQ2_0 keeps -1, 0 and 1 times the largest of 256: of Gaussian weights little more than signs of outliers.
        limit = 1.0 if "TQ2_0" in contender else 0.8 if "one bit" in case else 0.5
        if not error < limit:
            raise AssertionError(
                f"{contender}: mean error must be below {limit} of the mean magnitude, got {error:.3f}"
            )

    contenders = [Contender(name, functools.partial(linear, x, q)) for name, q in ours.items()]
    first = next(iter(ours.values()))
    bench.case(
        case,
        [*contenders, *peers],
        check=check,
        bytes_moved=float(first.stored_bytes()),
        flops=2.0 * x.shape[0] * weight.numel(),
        operations=operations if operations in bench.limits.gop_s else None,
    )


def peers_int4(weight: torch.Tensor, x: torch.Tensor) -> list[Contender]:
    """int4 contenders with groups of 32 over the same weight and activations."""
    return _present(weight, x, _torch_int4, _onnxruntime, _openvino)


def peers_int8(weight: torch.Tensor, x: torch.Tensor) -> list[Contender]:
    """int8 contenders over the same weight and activations."""
    return _present(weight, x, _torch_dynamic_int8, _torch_int8)


def peers_ggml(weight: torch.Tensor, x: torch.Tensor, kinds: Sequence[str]) -> list[Contender]:
    """ggml's products in these formats, in every layout it has; rows that are not whole blocks leave a format out."""
    return [c for kind in kinds for c in _present(weight, x, functools.partial(_ggml, kind=kind))]


def _present(weight: torch.Tensor, x: torch.Tensor, *builders: Callable[..., Any]) -> list[Contender]:
    found: list[Contender] = []
    for build in builders:
        try:
            made = build(weight, x)
        except ImportError as error:
            _say(str(getattr(build, "__name__", "ggml")), str(error))
            continue
        found += made if isinstance(made, list) else [made]
    return found


def _ggml(weight: torch.Tensor, x: torch.Tensor, kind: str) -> list[Contender]:
    from bench.quant.ggml import ggml_contenders

    return ggml_contenders(weight, x, kind)


@functools.cache
def _say(name: str, why: str) -> None:
    print(f"  peer {name.strip('_')} left out: {why}")


def _torch_int4(weight: torch.Tensor, x: torch.Tensor) -> Contender:
    n, k = weight.shape
    g = weight.reshape(n, -1, 32)
    low, high = g.amin(2, keepdim=True), g.amax(2, keepdim=True)
    scale = (high - low).clamp_min(1e-8) / 15
    codes = ((g - low) / scale).round().clamp(0, 15).to(torch.int32).reshape(n, k)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    # value = (code - 8) * scale + zero, scales and zeros (K / 32, N, 2)
    pairs = torch.stack([scale[..., 0], low[..., 0] + 8 * scale[..., 0]], -1).transpose(0, 1).contiguous().bfloat16()
    bf = x.bfloat16()
    run = torch.ops.aten._weight_int4pack_mm_for_cpu
    return Contender(f"torch {torch.__version__} int4pack g32", lambda: run(bf, packed, 32, pairs).float())


def _torch_dynamic_int8(weight: torch.Tensor, x: torch.Tensor) -> Contender:
    layer = torch.nn.Sequential(torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False))
    layer[0].weight.data.copy_(weight)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(layer, {torch.nn.Linear}, dtype=torch.qint8)

    def run() -> torch.Tensor:
        with torch.no_grad():
            return quantised(x)

    return Contender(f"torch {torch.__version__} dynamic int8", run)


def _torch_int8(weight: torch.Tensor, x: torch.Tensor) -> Contender:
    scale = weight.abs().amax(1) / 127
    codes = (weight / scale.unsqueeze(1)).round().to(torch.int8)
    bf, scales = x.bfloat16(), scale.bfloat16()
    run = torch.ops.aten._weight_int8pack_mm
    return Contender(f"torch {torch.__version__} int8pack", lambda: run(bf, codes, scales).float())


def _nibble_pairs(codes: np.ndarray) -> np.ndarray:
    return (codes[..., 0::2] | (codes[..., 1::2] << 4)).astype(np.uint8)


def _onnxruntime(weight: torch.Tensor, x: torch.Tensor) -> Contender:
    import onnx
    import onnxruntime as ort

    n, k = weight.shape
    g = weight.reshape(n, -1, 32)
    scale = g.gather(2, g.abs().argmax(2, keepdim=True))[..., 0] / -8
    codes = (g / scale.unsqueeze(-1) + 8).round().clamp(0, 15).to(torch.uint8).numpy()
    helper = onnx.helper
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=k, N=n, bits=4, block_size=32, accuracy_level=4
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, k])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, n])],
        [
            onnx.numpy_helper.from_array(_nibble_pairs(codes), "w"),
            onnx.numpy_helper.from_array(scale.numpy().reshape(-1), "s"),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    array = x.numpy()
    return Contender(f"{peer_version('onnxruntime')} int4 g32", lambda: session.run(None, {"x": array})[0])


def _openvino(weight: torch.Tensor, x: torch.Tensor) -> Contender:
    import openvino as ov
    from openvino import opset13 as op

    n, k = weight.shape
    g = weight.reshape(n, -1, 32)
    scale = (g.gather(2, g.abs().argmax(2, keepdim=True)) / -8).numpy()
    codes = (g.numpy() / scale + 8).round().clip(0, 15).astype(np.uint8)
    raw = ov.Tensor(_nibble_pairs(codes).reshape(-1), ov.Shape([n, k // 32, 32]), ov.Type.u4)
    q = op.convert(op.constant(raw, shared_memory=False), "f16")
    zero = op.convert(op.constant(np.full((n, k // 32, 1), 8, np.uint8)), "f16")
    w = op.multiply(op.subtract(q, zero), op.constant(scale.astype(np.float16)))
    w = op.convert(op.reshape(w, [n, k], special_zero=False), "f32")
    parameter = op.parameter([-1, k], ov.Type.f32)
    model = ov.Model([op.matmul(parameter, w, False, True)], [parameter])
    config = {"INFERENCE_NUM_THREADS": str(torch.get_num_threads()), "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(model, "CPU", config).create_infer_request()
    array = x.numpy()

    def run() -> np.ndarray:
        request.infer({0: array}, share_inputs=True)
        return request.get_output_tensor().data

    return Contender(f"{peer_version('openvino')} int4 g32", run)
