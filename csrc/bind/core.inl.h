// gramcore._core: machine facts, threads, instruction-set levels.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind/tensor_arg.h"
#include "core/cpu.h"
#include "core/device.h"
#include "core/limits.h"
#include "core/rng.h"
#include "core/thread_pool.h"
#include "torch/registry.h"

namespace gramcore {

inline void bind_core(pybind11::module_& m) {
  namespace py = pybind11;
  m.def("cpu_model", &cpu_model_name);
  m.def("cpu_levels", [] {
    std::vector<std::string> names;
    for (CpuLevel level : supported_cpu_levels()) names.emplace_back(cpu_level_name(level));
    return names;
  });
  m.def("cpu_level", [] { return std::string(cpu_level_name(current_cpu_level())); });
  m.def("set_cpu_level", [](const std::string& name) { set_cpu_level(parse_cpu_level(name)); }, py::arg("level"));
  m.def("cuda_compiled", &cuda::compiled);
  m.def("cuda_device_count", &cuda::device_count);
  m.def("cuda_status", &cuda::status_message);
  m.def("num_threads", &num_threads,
        "Threads that take part in a call: what `set_num_threads` asked for, else `torch.get_num_threads()` once\n"
        "torch is loaded, else OMP_NUM_THREADS, else the processors this process may run on.");
  m.def("set_num_threads", &set_num_threads, py::arg("n"),
        "Use `n` threads from now on, whatever torch uses; 0 returns to the default (see `num_threads`).");
  m.def(
      "measure_bandwidth",
      [](std::size_t num_bytes, int passes) {
        Bandwidth b;
        {
          const py::gil_scoped_release unlocked;
          b = measure_bandwidth(num_bytes, passes);
        }
        return py::make_tuple(b.read, b.copy, b.triad);
      },
      py::arg("num_bytes"), py::arg("passes"), "(read, copy, triad) in bytes per second.");
  m.def(
      "measure_compute",
      [](int passes) {
        Compute c;
        {
          const py::gil_scoped_release unlocked;
          c = measure_compute(passes);
        }
        return py::make_tuple(c.fp32, c.bf16, c.int8, c.int8_tile);
      },
      py::arg("passes"), "(fp32, bf16, int8, int8 tiles) in operations per second; 0 = no such instruction.");
  m.def("register_torch_ops", &torch::register_ops, "Registers the operators with the torch already loaded.");
  m.def(
      "philox4x32",
      [](std::uint64_t seed, std::uint64_t lo, std::uint64_t hi) {
        const Philox4 block = philox4x32(seed, lo, hi);
        return py::make_tuple(block.v[0], block.v[1], block.v[2], block.v[3]);
      },
      py::arg("seed"), py::arg("counter_lo"), py::arg("counter_hi") = 0);
  m.def(
      "tensor_facts",
      [](TensorArg& t) {
        const TensorView& v = t.view();
        std::vector<std::int64_t> shape(v.shape, v.shape + v.rank), stride(v.stride, v.stride + v.rank);
        return py::make_tuple(dtype_name(v.dtype), shape, stride, v.device, reinterpret_cast<std::uintptr_t>(v.data));
      },
      py::arg("tensor"), "(dtype, shape, stride, device, address) as the bindings see a tensor; for tests.");
}

}  // namespace gramcore
