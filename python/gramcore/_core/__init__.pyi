"""
Native cores of gramcore. Private: use the Python modules of the package.
"""
from __future__ import annotations
import typing
from . import optim
from . import quant
from . import ngram
from . import grammar
from . import spec
from . import model
__all__: list[str] = ['cpu_level', 'cpu_levels', 'cpu_model', 'cuda_compiled', 'cuda_device_count', 'cuda_status', 'grammar', 'measure_bandwidth', 'measure_compute', 'model', 'ngram', 'num_threads', 'optim', 'philox4x32', 'quant', 'register_torch_ops', 'set_cpu_level', 'set_num_threads', 'spec', 'tensor_facts']
def cpu_level() -> str:
    ...
def cpu_levels() -> list[str]:
    ...
def cpu_model() -> str:
    ...
def cuda_compiled() -> bool:
    ...
def cuda_device_count() -> int:
    ...
def cuda_status() -> str:
    ...
def measure_bandwidth(num_bytes: typing.SupportsInt | typing.SupportsIndex, passes: typing.SupportsInt | typing.SupportsIndex) -> tuple[float, float, float]:
    """
    (read, copy, triad) in bytes per second.
    """
def measure_compute(passes: typing.SupportsInt | typing.SupportsIndex) -> tuple[float, float, float, float]:
    """
    (fp32, bf16, int8, int8 tiles) in operations per second; 0 = no such instruction.
    """
def num_threads() -> int:
    """
    Threads that take part in a call: what `set_num_threads` asked for, else `torch.get_num_threads()` once
    torch is loaded, else OMP_NUM_THREADS, else the processors this process may run on.
    """
def philox4x32(seed: typing.SupportsInt | typing.SupportsIndex, counter_lo: typing.SupportsInt | typing.SupportsIndex, counter_hi: typing.SupportsInt | typing.SupportsIndex = 0) -> tuple[int, int, int, int]:
    ...
def register_torch_ops() -> list[tuple[str, bool]]:
    """
    Registers the operators with the torch already loaded.
    """
def set_cpu_level(level: str) -> None:
    ...
def set_num_threads(n: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    Use `n` threads from now on, whatever torch uses; 0 returns to the default (see `num_threads`).
    """
def tensor_facts(tensor: typing.Any) -> tuple[str, list[int], list[int], int, int]:
    """
    (dtype, shape, stride, device, address) as the bindings see a tensor; for tests.
    """
__version__: str = '0.1.0'
