// The parts of the DLPack C ABI (version 1.x) that we consume, declared here: layouts are fixed by the
// standard, and a build dependency on its header is not worth forty lines.
#pragma once

#include <cstdint>

namespace gramcore::dlpack {

struct Version {
  std::uint32_t major, minor;
};
struct Device {
  std::int32_t type;  // 1 CPU, 2 CUDA, 3 CUDA-pinned host, 13 CUDA managed
  std::int32_t id;
};
struct DataType {
  std::uint8_t code;  // 0 int, 1 uint, 2 float, 4 bfloat, 6 bool
  std::uint8_t bits;
  std::uint16_t lanes;
};
struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};
struct ManagedTensor {
  Tensor tensor;
  void* manager;
  void (*deleter)(ManagedTensor*);
};
struct ExchangeHeader {
  Version version;
  ExchangeHeader* previous;
};
// Function table found on a tensor type as the capsule `__dlpack_c_exchange_api__`.
struct ExchangeApi {
  ExchangeHeader header;
  int (*allocate)(Tensor*, void**, void*, void (*)(void*, const char*, const char*));
  int (*managed_from_object)(void*, void**);
  int (*managed_to_object)(void*, void**);
  int (*tensor_from_object)(void* object, Tensor* out);  // borrows; may be null
  int (*current_stream)(std::int32_t, std::int32_t, void**);
};

}  // namespace gramcore::dlpack
