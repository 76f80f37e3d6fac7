// Built-in vector types of CUDA C++ with their sizes and alignments, and dim3.
#pragma once

#include <cstdint>

#define GC_HOST_VECTOR(name, element, align2, align4)                         \
  struct name##1 {                                                            \
    element x;                                                                \
  };                                                                          \
  struct alignas(align2) name##2 {                                            \
    element x, y;                                                             \
  };                                                                          \
  struct name##3 {                                                            \
    element x, y, z;                                                          \
  };                                                                          \
  struct alignas(align4) name##4 {                                            \
    element x, y, z, w;                                                       \
  };                                                                          \
  inline name##1 make_##name##1(element x) {                                  \
    return {x};                                                               \
  }                                                                           \
  inline name##2 make_##name##2(element x, element y) {                       \
    return {x, y};                                                            \
  }                                                                           \
  inline name##3 make_##name##3(element x, element y, element z) {            \
    return {x, y, z};                                                         \
  }                                                                           \
  inline name##4 make_##name##4(element x, element y, element z, element w) { \
    return {x, y, z, w};                                                      \
  }

GC_HOST_VECTOR(char, signed char, 2, 4)
GC_HOST_VECTOR(uchar, unsigned char, 2, 4)
GC_HOST_VECTOR(short, short, 4, 8)
GC_HOST_VECTOR(ushort, unsigned short, 4, 8)
GC_HOST_VECTOR(int, int, 8, 16)
GC_HOST_VECTOR(uint, unsigned, 8, 16)
GC_HOST_VECTOR(longlong, long long, 16, 16)
GC_HOST_VECTOR(ulonglong, unsigned long long, 16, 16)
GC_HOST_VECTOR(float, float, 8, 16)
GC_HOST_VECTOR(double, double, 16, 16)
#undef GC_HOST_VECTOR

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr operator uint3() const { return {x, y, z}; }
};
