// Stretches of stored numbers as fp32: the memory itself where that is fp32, else a buffer.
#pragma once

#include <cstdint>

#include "optim/engine.h"
#include "optim/kernels/blocks.h"
#include "optim/kernels/codecs.h"

namespace gramcore::optim {

class FloatSpans {
 public:
  FloatSpans() : codecs_(codecs_kernels()), blocks_(blocks_kernels()) {}

  // n values from element `at`, in `buffer` unless they are fp32.
  float* load(void* data, Storage storage, std::int64_t at, std::int64_t n, float* buffer) const {
    switch (storage) {
      case Storage::f32: return static_cast<float*>(data) + at;
      case Storage::bf16: codecs_.load_bf16(halves(data, at), buffer, n); break;
      case Storage::f16: codecs_.load_f16(halves(data, at), buffer, n); break;
      default: break;
    }
    return buffer;
  }
  const float* load(const void* data, Storage storage, std::int64_t at, std::int64_t n, float* buffer) const {
    return load(const_cast<void*>(data), storage, at, n, buffer);
  }
  // Back to where `load` took them from.  bf16 is rounded stochastically by `noise` (see rounding.h) unless it is null.
  void store(const float* from, void* data, Storage storage, std::int64_t at, std::int64_t n, const NoiseKey* noise,
             int field) const {
    if (storage == Storage::f16) {
      codecs_.store_f16(from, halves(data, at), n);
    } else if (storage == Storage::bf16 && noise) {
      codecs_.store_bf16_stochastic(from, halves(data, at), n, *noise, field);
    } else if (storage == Storage::bf16) {
      codecs_.store_bf16(from, halves(data, at), n);
    }
  }

  // A parameter and its bf16 remainder.
  float* load_pair(void* high, void* low, std::int64_t at, std::int64_t n, float* buffer) const {
    codecs_.load_bf16_pair(halves(high, at), halves(low, at), buffer, n);
    return buffer;
  }
  void store_pair(const float* from, void* high, void* low, std::int64_t at, std::int64_t n) const {
    codecs_.store_bf16_pair(from, halves(high, at), halves(low, at), n);
  }

  // Moment k, stored as floats or in blocks of codes, one of which begins at `at`.
  float* load_moment(const Slot& slot, int k, std::int64_t at, std::int64_t n, float* buffer) const {
    const auto* codes = static_cast<const std::uint8_t*>(slot.data);
    const int map = slot_is_signed(k) ? 0 : 1;
    if (slot.storage == Storage::q8) {
      blocks_.load8[map](codes + at, slot.scales + at / kBlock8, buffer, n);
    } else if (slot.storage == Storage::q4) {
      blocks_.load4[map](codes + at / 2, slot.scales + at / kBlock4, buffer, n);
    } else {
      return load(slot.data, slot.storage, at, n, buffer);
    }
    return buffer;
  }
  void store_moment(const float* from, const Slot& slot, int k, std::int64_t at, std::int64_t n,
                    const NoiseKey* noise) const {
    auto* codes = static_cast<std::uint8_t*>(slot.data);
    const int map = slot_is_signed(k) ? 0 : 1;
    if (slot.storage == Storage::q8) {
      blocks_.store8[map](from, codes + at, slot.scales + at / kBlock8, n);
    } else if (slot.storage == Storage::q4) {
      blocks_.store4[map](from, codes + at / 2, slot.scales + at / kBlock4, n);
    } else {
      store(from, slot.data, slot.storage, at, n, noise, k + 1);
    }
  }

 private:
  static std::uint16_t* halves(void* data, std::int64_t at) { return static_cast<std::uint16_t*>(data) + at; }

  const CodecsKernels& codecs_;
  const BlocksKernels& blocks_;
};

}  // namespace gramcore::optim
