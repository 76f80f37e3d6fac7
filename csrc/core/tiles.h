// What _tile_loadconfig reads.  For kernel sources; in their namespace, since nothing may be shared between levels.
#pragma once

#include "core/isa.h"

namespace gramcore::tiles {
namespace GC_ISA_NS {

struct TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};

}  // namespace GC_ISA_NS
}  // namespace gramcore::tiles
