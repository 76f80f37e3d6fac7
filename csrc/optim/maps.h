// The published maps of low-bit moments, as numbers: 8 bits (Dettmers et al. 2022, arXiv:2110.02861) and 4 bits (Li et
// al. 2023, arXiv:2309.01507).  CPU and CUDA codecs read them; kernels/blocks.inl.h says how.
#pragma once

#include <cstdint>

namespace gramcore::optim {

// Value = slope * mag + offset in decade i; mag = inverse * value + shift.  `lowest` is the smallest mag of decade 0.
struct Map8 {
  float slope[8], offset[8], inverse[8], shift[8];
  float up[6];      // where decade i ends and i + 1 begins
  float zero, one;  // below: code of 0; at or above: code of 1.0
};

static constexpr Map8 make_map8(double lowest, double end) {
  Map8 m{};
  double decade = 1e-6, mags = lowest;
  for (int i = 0; i < 7; ++i) {
    const double slope = decade * 0.9 / mags, offset = decade * (0.45 / mags - 0.8);
    m.slope[i] = static_cast<float>(slope);
    m.offset[i] = static_cast<float>(offset);
    m.inverse[i] = static_cast<float>(1 / slope);
    m.shift[i] = static_cast<float>(-offset / slope);
    const double last = slope * (2 * mags - 1) + offset;
    const double next = i < 6 ? decade * 10 * (0.9 * (2 * mags + 0.5) / (2 * mags) - 0.8) : end;
    (i < 6 ? m.up[i] : m.one) = static_cast<float>((last + next) / 2);
    if (i == 0) m.zero = static_cast<float>((slope * mags + offset) / 2);
    decade *= 10;
    mags *= 2;
  }
  m.offset[7] = 1.0f;  // mag 2^7 * lowest
  return m;
}
static constexpr Map8 kSigned8 = make_map8(1, 1.0), kUnsigned8 = make_map8(2, 1.0);

// Magnitudes of signed 4-bit codes, |code - 7|; code 15 is 1.0.
static constexpr float kSteps4[8] = {0.0f, 0.0055f, 0.0325f, 0.0775f, 0.2125f, 0.4375f, 0.6625f, 0.8875f};

}  // namespace gramcore::optim
