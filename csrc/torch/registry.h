// Operators announce themselves with a static Ops object; register_ops() hands all of them to torch.
//
//   static void apply_bitmask_(OpCall& call) { TensorView logits = call.tensor(0); ... }
//   static const Ops ops{{"apply_bitmask_(Tensor(a!) logits, Tensor mask) -> ()", boxed<apply_bitmask_>}};
#pragma once

#include <cstdint>
#include <exception>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "core/dtype.h"
#include "torch/stable_abi.h"

namespace gramcore::torch {

// One call from the dispatcher.  Takes ownership of the input handles and frees them at the end.
class OpCall {
 public:
  OpCall(IValue* stack, std::uint64_t num_inputs, std::uint64_t num_outputs)
      : stack_(stack), num_inputs_(num_inputs), num_outputs_(num_outputs) {}
  OpCall(const OpCall&) = delete;
  OpCall& operator=(const OpCall&) = delete;
  ~OpCall();

  // Arguments by position; each may be read once.
  TensorView tensor(std::uint64_t i);
  bool optional_tensor(std::uint64_t i, TensorView* out);  // false when None
  void tensor_list(std::uint64_t i, std::vector<TensorView>* out);
  std::int64_t integer(std::uint64_t i) const { return static_cast<std::int64_t>(stack_[i]); }
  double real(std::uint64_t i) const;
  bool boolean(std::uint64_t i) const { return (stack_[i] & 0xffu) != 0; }

  // Allocates a dense tensor that becomes output `i`; device -1 is the CPU, else a CUDA device index.
  TensorView new_output(std::uint64_t i, DType dtype, std::initializer_list<std::int64_t> shape, int device = -1);
  TensorView new_output(std::uint64_t i, DType dtype, const std::int64_t* shape, int rank, int device = -1);
  // A one-dimensional tensor of `device` that lives until the call returns.
  TensorView scratch(DType dtype, std::int64_t numel, int device);

 private:
  TensorHandle own(IValue value);

  IValue* stack_;
  std::uint64_t num_inputs_, num_outputs_;
  std::vector<TensorHandle> owned_;
  TensorHandle outputs_[4] = {};
  int exceptions_at_entry_ = std::uncaught_exceptions();
};

// The current stream of a CUDA device, with that device made current while the object lives.
class CudaStream {
 public:
  explicit CudaStream(int device);
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;
  ~CudaStream();
  void* get() const { return stream_; }

 private:
  CudaGuardHandle guard_ = nullptr;
  void* stream_ = nullptr;
};

// Throws TypeMismatch unless t is on the device every argument of a call must be on: -1 is the CPU.
void check_device(const TensorView& t, const char* name, int device);

template <void (*Fn)(OpCall&)>
void boxed(IValue* stack, std::uint64_t num_inputs, std::uint64_t num_outputs) {
  OpCall call(stack, num_inputs, num_outputs);
  Fn(call);
}

struct OpRow {
  const char* schema;  // "name(Tensor x, ...) -> Tensor"
  BoxedFn cpu;
  BoxedFn cuda = nullptr;  // null: no device twin; torch then says the backend is missing
};

class Ops {
 public:
  Ops(std::initializer_list<OpRow> rows);
};

// Defines every row in the torch library "gramcore" (once per process) and lets the thread pool follow
// torch.get_num_threads().  Returns (operator name, whether it returns tensors) of every row.
std::vector<std::pair<std::string, bool>> register_ops();

}  // namespace gramcore::torch
