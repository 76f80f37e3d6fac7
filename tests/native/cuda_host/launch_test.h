// Helpers of tests that launch kernels.
#pragma once

#include <string>
#include <vector>

#include "core/cuda/launch.h"
#include "native/test.h"

namespace gramcore::test {

// Zero-initialised device memory that frees itself.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::size_t n) : n_(n) {
    void* p = nullptr;
    EXPECT(cudaMalloc(&p, n * sizeof(T)) == cudaSuccess);
    data_ = static_cast<T*>(p);
    EXPECT(cudaMemsetAsync(data_, 0, n * sizeof(T), nullptr) == cudaSuccess);
  }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() const { return data_; }
  std::vector<T> read() const {
    std::vector<T> host(n_);
    EXPECT(cudaMemcpyAsync(host.data(), data_, n_ * sizeof(T), cudaMemcpyDeviceToHost, nullptr) == cudaSuccess);
    EXPECT(cudaStreamSynchronize(nullptr) == cudaSuccess);
    return host;
  }
  T first() const { return read()[0]; }

 private:
  T* data_;
  std::size_t n_;
};

inline void expect_success() {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw Failure{cudaGetErrorString(error)};
}

// The text of the failure the launch just made must have left.
inline std::string expect_failure(cudaError_t expected) {
  const cudaError_t error = cudaGetLastError();
  EXPECT_EQ(static_cast<int>(error), static_cast<int>(expected));
  EXPECT_EQ(static_cast<int>(cudaGetLastError()), static_cast<int>(cudaSuccess));
  return cudaGetErrorString(error);
}

}  // namespace gramcore::test
