// Tiles of AMX.  For kernel sources; in their namespace, since nothing may be shared between levels.
#pragma once

#include "core/isa.h"

namespace gramcore::tiles {
namespace GC_ISA_NS {

struct TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};

#if defined(__AMX_TILE__)
// GCC's tile intrinsics do not say what memory they read and write: to be called before tiles are loaded from what was
// just written, and before what they were stored to is read.
GC_INLINE void settle() {
  asm volatile("" ::: "memory");
}
GC_INLINE void configure(const TileConfig& config) {
  settle();
  _tile_loadconfig(&config);
}
#endif

}  // namespace GC_ISA_NS
}  // namespace gramcore::tiles
